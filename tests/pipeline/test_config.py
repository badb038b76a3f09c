import subprocess
import sys

import pytest

from pipeline import config


def test_the_defaults_are_valid():
    assert config.load() == config.PipelineConfig()


def test_overrides_win_over_the_file_and_values_over_both(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("trainer:\n  epochs: 3\n  batch_size: 64\n  learning_rate: 1e-2\n")
    loaded = config.load(
        preset, ["trainer.batch_size=32", "trainer.learning_rate=5e-3"], {"trainer.learning_rate": 0.5}
    )
    assert (loaded.trainer.epochs, loaded.trainer.batch_size, loaded.trainer.learning_rate) == (3, 32, 0.5)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.epocs=3", "trainer.epocs: unknown key; did you mean epochs? Allowed: epochs, batch_size"),
        ("colour=red", "colour: unknown key. Allowed: name, data, root"),
        ("model.cnn.depth=2", "model.cnn.depth: unknown key. Allowed: filters"),
        ("trainer.epochs=many", "trainer.epochs: input should be a valid integer; found 'many'"),
        ("trainer.epochs=true", "trainer.epochs: input should be a valid integer; found True"),
        ("trainer.epochs=0", "trainer.epochs: input should be greater than or equal to 1; found 0"),
        ("trainer.learning_rate=.inf", "trainer.learning_rate: input should be a finite number"),
        ("model.architecture=vit", "model.architecture: input should be 'cnn' or 'mobilenetv2'; found 'vit'"),
        ("augmentation.rotation_degrees=-1", "greater than or equal to 0; found -1"),
        ("tuner.batch_sizes=[]", "at least 1 item"),
        ("tuner.learning_rate={min: 0.1, max: 0.01}", "min (0.1) must be smaller than max (0.01)"),
        ("name=Not a name", "name: string should match pattern"),
        ("trainer=5", "trainer: is a section; set trainer.epochs, trainer.batch_size"),
        ("tuner.batch_sizes=64", "tuner.batch_sizes: expected a list, such as [64, 128]; found 64"),
        ("trainer.epochs.more=5", "unknown"),
        ("epochs", "expected key=value, found 'epochs'"),
        ("trainer.epochs=[", "the value of trainer.epochs is not valid YAML"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_is_allowed(override, expected):
    overrides = ["trainer.epochs=3", override] if override.startswith("trainer.epochs.") else [override]
    expected = "is a value, not a section" if len(overrides) == 2 else expected
    with pytest.raises(config.ConfigError) as refused:
        config.load(overrides=overrides)
    assert expected in str(refused.value)


def test_every_problem_is_listed_at_once():
    with pytest.raises(config.ConfigError) as refused:
        config.load(overrides=["trainer.epochs=0", "evaluation.min_accuracy=2"])
    assert "trainer.epochs" in str(refused.value)
    assert "evaluation.min_accuracy" in str(refused.value)


def test_a_file_that_is_missing_or_no_mapping_is_refused(tmp_path):
    with pytest.raises(config.ConfigError, match="cannot read the configuration file"):
        config.load(tmp_path / "none.yaml")
    listing = tmp_path / "list.yaml"
    listing.write_text("- 1\n")
    with pytest.raises(config.ConfigError, match="expected `key: value` lines, found list"):
        config.load(listing)


def test_settings_of_a_step_hold_only_what_it_depends_on():
    base = config.load()
    more_epochs = config.load(overrides=["trainer.epochs=99"])
    assert base.tuner_settings() == more_epochs.tuner_settings()
    assert base.trainer_settings() != more_epochs.trainer_settings()
    other_network = config.load(overrides=["model.mobilenetv2.alpha=0.35"])
    assert base.trainer_settings() == other_network.trainer_settings()
    gates = config.load(overrides=["evaluation.min_accuracy=0.9", "tuner.trials=1"])
    assert base.trainer_settings() == gates.trainer_settings()


def test_settings_survive_json():
    settings = config.load(overrides=["model.cnn.filters=[8, 16]"]).tuner_settings()
    assert config.TrainingSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_list_keys_lists_every_leaf():
    listed = {key: default for key, default, _ in config.list_keys()}
    assert listed["model.cnn.filters"] == (32, 64, 128, 256)
    assert listed["tuner.learning_rate.max"] == 1e-2
    assert "model" not in listed


def test_nothing_heavy_is_imported():
    code = (
        "import sys, pipeline.config; print([m for m in ('tensorflow', 'tfx', 'numpy') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
