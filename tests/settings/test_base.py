import pytest

from settings.base import list_keys
from settings.pipeline import PipelineConfig


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.epochs=many", "trainer.epochs: input should be a valid integer; found 'many'"),
        ("trainer.epochs=true", "trainer.epochs: input should be a valid integer; found true"),
        ("trainer.epochs=0", "trainer.epochs: input should be greater than or equal to 1; found 0"),
        ("seed=4294967296", "seed: input should be less than 4294967296"),
        ("trainer.learning_rate=.inf", "trainer.learning_rate: input should be a finite number"),
    ],
)
def test_invalid_numbers_are_refused(error_message, override, expected):
    assert expected in error_message(override)


def test_list_keys_lists_every_value_that_can_be_set():
    defaults = {key: default for key, default, _ in list_keys(PipelineConfig)}
    assert defaults["model.cnn.filters"] == (32, 64, 128, 256)
    assert defaults["tuner.budget.minutes"] is None
    assert "model" not in defaults
