import json

import pytest

from pipeline import cli
from settings.base import ConfigError


def load(source, *overrides, root):
    return cli.load([], list(overrides), None, False, str(source), root=str(root))


@pytest.mark.parametrize(
    "content",
    [
        {
            "trainer.learning_rate": {"value": 0.15, "source": "tuner"},
            "trainer.batch_size": {"value": 125, "source": "tuner"},
        },
        {
            "space": [],
            "values": {"trainer.learning_rate": 0.15, "trainer.batch_size": 125, "tuner/epochs": 3},
        },
        {"trainer.learning_rate": 0.15, "trainer.batch_size": 125},
    ],
    ids=["Trainer", "Tuner", "own"],
)
def test_values_of_a_file_replace_the_search(tmp_path, content):
    file = tmp_path / "found.json"
    file.write_text(json.dumps(content))
    config = load(file, root=tmp_path)
    assert (config.trainer.learning_rate, config.trainer.batch_size, config.has_tuner) == (0.15, 125, False)
    # What --set fixes counts more, and what the file lacks is still searched.
    more = load(file, "trainer.batch_size=64", "tuner.space.model.cnn.dropout=[0, 0.5]", root=tmp_path)
    assert (more.trainer.batch_size, list(more.searched())) == (64, ["model.cnn.dropout"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "expected a JSON object, found list"),
        ("{", "expected a JSON file"),
        ("{}", "it has no hyperparameters"),
        ('{"learning_rate": 0.1}', "learning_rate: unknown key; did you mean trainer.learning_rate"),
        ('{"trainer.batch_size": 0}', "trainer.batch_size: input should be greater than or equal to 1"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(tmp_path, content, message):
    file = tmp_path / "found.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load(file, root=tmp_path)


def test_a_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--hyperparameters 2026: no such file, and as a run: "):
        load("2026", root=tmp_path)
