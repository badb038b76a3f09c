import contextlib

import pytest

from settings import loading
from settings.base import ConfigError
from settings.training import AugmentationConfig, TrainingSettings


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "trainer={optimizer: muon, weight_decay: 0.1}",
            "weight_decay is for trainer.optimizer=adamw and sgd",
        ),
        ("trainer.momentum=0.9", "trainer: momentum is for trainer.optimizer=sgd and muon, found adamw"),
        ("augmentation.rotation_degrees=-1", "greater than or equal to 0; found -1"),
        ("trainer.crop_scales=1", "trainer.crop_scales: expected a list, such as [1.0]; found 1"),
        ("tuner.budget.minutes=0", "tuner.budget.minutes: input should be greater than 0; found 0"),
    ],
)
def test_invalid_settings_are_refused(error_message, override, expected):
    assert expected in error_message(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.crop_scales=[0.5,0.75]", r"last scale has to be 1\.0"),
        ("trainer.crop_scales=[0,1]", "greater than 0"),
    ],
)
def test_crop_scales_have_to_be_positive_and_end_with_one(override, message):
    assert loading.load(overrides=["trainer.crop_scales=[0.5,1]"]).trainer.crop_scales == (0.5, 1.0)
    with pytest.raises(ConfigError, match=message):
        loading.load(overrides=[override])


@pytest.mark.parametrize(
    ("optimizer", "used"), [("adam", False), ("adamw", True), ("sgd", True), ("muon", False)]
)
def test_weight_decay_is_refused_for_optimizers_that_do_not_use_it(optimizer, used):
    values = {"trainer.optimizer": optimizer, "trainer.weight_decay": 0.1}
    with (
        contextlib.nullcontext() if used else pytest.raises(ConfigError, match=r"trainer\.weight_decay=null")
    ):
        loading.load(values=values)
    loading.load(values={**values, "trainer.weight_decay": None})


def test_augmentation_none_switches_every_change_off():
    assert not any(AugmentationConfig.none().model_dump().values())
    for name, field in AugmentationConfig.model_fields.items():
        assert type(getattr(AugmentationConfig.none(), name)) is type(field.default)


def test_training_settings_are_equal_after_a_round_trip_through_json():
    settings = loading.load(overrides=["model.cnn.filters=[8, 16]"]).tuner_settings()
    assert TrainingSettings.model_validate(settings.to_json()) == settings
