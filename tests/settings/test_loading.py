import subprocess
import sys
from pathlib import Path

import pytest

from settings import loading
from settings.base import ConfigError
from settings.pipeline import PipelineConfig
from settings.training import TrainerConfig

PRESETS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_without_files_and_overrides_all_settings_have_their_defaults():
    assert loading.load() == PipelineConfig()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.name)
def test_every_preset_is_valid_and_the_origin_of_its_settings(preset):
    origins = {row["origin"] for row in loading.load([preset]).describe()}
    assert origins == {"default", preset.name}


def test_overrides_take_precedence_over_the_file_and_values_over_both(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("trainer:\n  epochs: 3\n  batch_size: 64\n  learning_rate: 1e-2\n")
    loaded = loading.load(
        [preset], ["trainer.batch_size=32", "trainer.learning_rate=5e-3"], {"trainer.learning_rate": 0.5}
    )
    assert (loaded.trainer.epochs, loaded.trainer.batch_size, loaded.trainer.learning_rate) == (3, 32, 0.5)


def test_later_presets_take_precedence_setting_by_setting(tmp_path, describe):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("trainer: {epochs: 3, batch_size: 64}\nevaluation: {slices: [brightness]}\n")
    second.write_text("trainer: {batch_size: 32}\nevaluation: {slices: []}\nkubeflow: {image: i}\n")
    loaded = loading.load([first, second])
    assert (loaded.trainer.epochs, loaded.trainer.batch_size) == (3, 32)
    assert (loaded.evaluation.slices, loaded.kubeflow.image) == ((), "i")
    described = describe(loaded)
    assert described["trainer.epochs"][1] == "first.yaml"
    assert described["trainer.batch_size"][1] == described["evaluation.slices"][1] == "second.yaml"
    with pytest.raises(ConfigError, match=r"first\.yaml and .*second\.yaml plus overrides cannot be used"):
        loading.load([first, second], ["trainer.epochs=0"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.epocs=3", "trainer.epocs: unknown key; did you mean epochs? Allowed: epochs, batch_size"),
        (
            "epochs=3",
            "epochs: unknown key; did you mean trainer.epochs or tuner.epochs or tuner.budget.epochs?",
        ),
        ("colour=red", "colour: unknown key. Allowed: name, data, root"),
        ("trainer=5", "trainer: is a section, not a value; set trainer.epochs, trainer.batch_size"),
        ("epochs", "expected key=value, found 'epochs'"),
        ("trainer.epochs=[", "the value of trainer.epochs is not valid YAML"),
    ],
)
def test_invalid_overrides_are_refused_with_what_is_allowed(error_message, override, expected):
    assert expected in error_message(override)


def test_a_key_below_a_value_is_refused():
    with pytest.raises(ConfigError, match="is a value, not a section"):
        loading.load(overrides=["trainer.epochs=3", "trainer.epochs.more=5"])


def test_a_preset_that_is_not_text_is_refused(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"preset\.yaml: it is not UTF-8 text"):
        loading.load([preset])


def test_a_preset_that_is_missing_or_not_a_mapping_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration file"):
        loading.load([tmp_path / "none.yaml"])
    listing = tmp_path / "list.yaml"
    listing.write_text("- 1\n")
    with pytest.raises(ConfigError, match="expected `key: value` lines, found list"):
        loading.load([listing])


def test_the_error_lists_every_problem():
    with pytest.raises(ConfigError) as error:
        loading.load(overrides=["trainer.epochs=0", "evaluation.min_accuracy=2"])
    assert "trainer.epochs" in str(error.value)
    assert "evaluation.min_accuracy" in str(error.value)


def test_without_a_preset_every_origin_is_default(describe):
    assert {origin for _, origin in describe(loading.load()).values()} == {"default"}


def test_an_overridden_section_replaces_that_of_the_preset(tmp_path, describe):
    preset = tmp_path / "preset.yaml"
    preset.write_text("tuner:\n  space:\n    trainer.learning_rate: {min: 0.001, max: 0.01}\n")
    key = "tuner.space.trainer.learning_rate"
    described = describe(loading.load([preset], [f"{key}={{min: 0.002, max: 0.008}}"]))
    assert described[f"{key}.min"] == (0.002, "--set")
    assert described[f"{key}.max"] == (0.008, "--set")
    described = describe(loading.load([preset], [f"{key}.min=0.002"]))
    assert described[f"{key}.min"] == (0.002, "--set")
    assert described[f"{key}.max"] == (0.01, "preset.yaml")


def test_loading_does_not_import_tensorflow_tfx_or_numpy():
    code = (
        "import sys, settings.loading; print([m for m in ('tensorflow', 'tfx', 'numpy') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_a_preset_builds_on_its_architectures_preset_unless_it_has_base_none(tmp_path, describe):
    part, alone, other = (tmp_path / f"{name}.yaml" for name in ("part", "alone", "other"))
    part.write_text("kubeflow: {image: i}\ntrainer: {epochs: 7}\n")
    alone.write_text("base: none\ntrainer: {batch_size: 32}\n")
    other.write_text("model: {architecture: mobilenetv2}\n")
    quick = loading.load([loading.PRESETS / "quick.yaml"])
    mobilenetv2 = loading.load([loading.PRESETS / "mobilenetv2.yaml"])
    assert loading.load(on_base=True).model_dump() == quick.model_dump()

    on_quick = loading.load([part], on_base=True)
    assert on_quick.model == quick.model
    assert (on_quick.trainer.optimizer, on_quick.trainer.epochs, on_quick.kubeflow.image) == ("muon", 7, "i")
    described = describe(on_quick)
    assert described["trainer.optimizer"][1] == "quick.yaml"
    assert described["trainer.epochs"][1] == "part.yaml"

    assert loading.load([alone], on_base=True).trainer == TrainerConfig(batch_size=32)
    assert loading.load([alone, part], on_base=True).trainer == TrainerConfig(batch_size=32, epochs=7)
    for loaded in (
        loading.load([other], on_base=True),
        loading.load([], ["model.architecture=mobilenetv2"], on_base=True),
        loading.load([], [], {"model.architecture": "mobilenetv2"}, on_base=True),
    ):
        assert loaded.model_dump() == mobilenetv2.model_dump()
    with pytest.raises(ConfigError, match="expected one of cnn, mobilenetv2"):
        loading.load([], ["model.architecture=vit"], on_base=True)


def test_a_base_other_than_none_is_refused(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("base: quick.yaml\n")
    with pytest.raises(ConfigError, match=r"base: expected `none`, .*found 'quick.yaml'"):
        loading.load([preset], on_base=True)


def test_every_preset_in_configs_has_base_none():
    for preset in PRESETS:
        assert loading.load([preset], on_base=True).model_dump() == loading.load([preset]).model_dump()


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["trainer.optimizer=adam"], "tuner.space.trainer.learning_rate.max of quick.yaml is for muon"),
        (
            ["trainer.optimizer=adamw", "tuner.enabled=false"],
            "trainer.learning_rate of quick.yaml is for muon",
        ),
        (["trainer.optimizer=adam", "trainer.batch_size=64"], "learning_rate.max of quick.yaml"),
        (["trainer.optimizer=adam", "trainer.learning_rate=0.003"], None),
        (["trainer.optimizer=adam", "tuner.space.trainer.learning_rate={min: 1e-3, max: 1e-2}"], None),
        (["trainer.optimizer=muon"], None),
    ],
)
def test_a_learning_rate_of_another_optimizer_is_refused(overrides, key):
    if key is None:
        assert loading.load([], overrides, on_base=True)
        return
    with pytest.raises(ConfigError, match=key):
        loading.load([], overrides, on_base=True)


def test_a_preset_that_changes_the_optimizer_has_to_set_its_learning_rate(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("trainer: {optimizer: sgd}\n")
    with pytest.raises(ConfigError, match=r"quick\.yaml is for muon.* docs/training\.md"):
        loading.load([preset], on_base=True)
    space = "{trainer.learning_rate: {min: 0.01, max: 0.1}}"
    preset.write_text(f"trainer: {{optimizer: sgd}}\ntuner: {{space: {space}}}\n")
    assert loading.load([preset], on_base=True).trainer.optimizer == "sgd"
