import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from settings import loading
from settings.base import ConfigError, list_keys
from settings.evaluation import EvaluationConfig, ModelCardConfig
from settings.model import ModelConfig
from settings.pipeline import PipelineConfig
from settings.training import AugmentationConfig, TrainerConfig, TrainingSettings

PRESETS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_the_defaults_are_valid():
    assert loading.load() == PipelineConfig()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.name)
def test_every_preset_is_valid_and_sets_what_it_says(preset):
    origins = {row["origin"] for row in loading.load([preset]).describe()}
    assert origins == {"default", preset.name}


def test_overrides_win_over_the_file_and_values_over_both(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("trainer:\n  epochs: 3\n  batch_size: 64\n  learning_rate: 1e-2\n")
    loaded = loading.load(
        [preset], ["trainer.batch_size=32", "trainer.learning_rate=5e-3"], {"trainer.learning_rate": 0.5}
    )
    assert (loaded.trainer.epochs, loaded.trainer.batch_size, loaded.trainer.learning_rate) == (3, 32, 0.5)


def test_later_presets_win_over_earlier_ones_setting_by_setting(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("trainer: {epochs: 3, batch_size: 64}\nevaluation: {slices: [brightness]}\n")
    second.write_text("trainer: {batch_size: 32}\nevaluation: {slices: []}\nkubeflow: {image: i}\n")
    loaded = loading.load([first, second])
    assert (loaded.trainer.epochs, loaded.trainer.batch_size) == (3, 32)
    assert (loaded.evaluation.slices, loaded.kubeflow.image) == ((), "i")
    described = _described(loaded)
    assert described["trainer.epochs"][1] == "first.yaml"
    assert described["trainer.batch_size"][1] == described["evaluation.slices"][1] == "second.yaml"
    with pytest.raises(ConfigError, match=r"first\.yaml and .*second\.yaml and what was set"):
        loading.load([first, second], ["trainer.epochs=0"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.epocs=3", "trainer.epocs: unknown key; did you mean epochs? Allowed: epochs, batch_size"),
        ("epochs=3", "epochs: unknown key; did you mean trainer.epochs or tuner.epochs? Allowed: name, data"),
        ("model.cnn.filters=64", "model.cnn.filters: expected a list, such as [32, 64, 128, 256]; found 64"),
        (
            "trainer={optimizer: muon, weight_decay: 0.1}",
            "weight_decay is for trainer.optimizer=adamw and sgd",
        ),
        ("trainer.momentum=0.9", "trainer: momentum is for trainer.optimizer=sgd and muon, found adamw"),
        (
            "model.mobilenetv2.fine_tune_from=block_13_expnd",
            "fine_tune_from: block_13_expnd is not a layer of MobileNetV2; similar ones are block_13_expand",
        ),
        (
            "model.mobilenetv2.feature_layers=[out_relu, top]",
            "feature_layers: top is not a layer of MobileNetV2; similar ones are out_relu",
        ),
        (
            "model.mobilenetv2={feature_layers: [block_12_add, block_6_pad], fine_tune_from: Conv_1}",
            "fine_tune_from=Conv_1 comes after block_12_add, the last of feature_layers",
        ),
        ("colour=red", "colour: unknown key. Allowed: name, data, root"),
        ("model.cnn.depth=2", "model.cnn.depth: unknown key. Allowed: whitening, filters"),
        ("trainer.epochs=many", "trainer.epochs: input should be a valid integer; found 'many'"),
        ("trainer.epochs=true", "trainer.epochs: input should be a valid integer; found True"),
        ("trainer.epochs=0", "trainer.epochs: input should be greater than or equal to 1; found 0"),
        ("seed=4294967296", "seed: input should be less than 4294967296"),
        ("trainer.learning_rate=.inf", "trainer.learning_rate: input should be a finite number"),
        (
            "model.architecture=vit",
            "model.architecture: expected one of cnn, mobilenetv2, efficientnetv2b0; found 'vit'",
        ),
        ("augmentation.rotation_degrees=-1", "greater than or equal to 0; found -1"),
        ("tuner.batch_sizes=[]", "at least 1 item"),
        ("tuner.learning_rate={min: 0.1, max: 0.01}", "min (0.1) must not be larger than max (0.01)"),
        ("evaluation.min_class_recall=1.1", "min_class_recall: input should be less than or equal to 1"),
        (
            "evaluation.slices=[contrast, contrast]",
            "evaluation.slices: expected each value once; found ['contrast', 'contrast']",
        ),
        ("evaluation.slices=contrast", "evaluation.slices: expected a list"),
        ("name=Not a name", "name: string should match pattern"),
        ("trainer=5", "trainer: is a section; set trainer.epochs, trainer.batch_size"),
        ("tuner.batch_sizes=64", "tuner.batch_sizes: expected a list, such as [64, 128]; found 64"),
        ("trainer.epochs.more=5", "unknown"),
        ("epochs", "expected key=value, found 'epochs'"),
        ("kubeflow.steps.Trainr.cpu=2", "kubeflow.steps: there is no step Trainr; expected some of Import"),
        ("kubeflow.steps.Baseline.cpu=2", "there is no step Baseline"),
        ("kubeflow.steps.Trainer.cpus=2", "kubeflow.steps.Trainer.cpus: unknown key; did you mean cpu?"),
        ("kubeflow.steps.Trainer.memory_gb=0", "kubeflow.steps.Trainer.memory_gb: input should be greater"),
        ("kubeflow.steps.Trainer.workers=2", "workers need a machine_type, such as n1-standard-8"),
        ("kubeflow.steps.Trainer={machine_type: n1, cpu: 2}", "leave out cpu and memory_gb"),
        ("kubeflow.steps.Tuner={machine_type: n1, workers: 2}", "and workers, not Tuner"),
        ("kubeflow.steps.Trainer.accelerator_count=2", "accelerator_count needs an accelerator"),
        ("beam.runner=beam", "beam.runner: input should be 'direct', 'dataflow', 'flink' or 'spark'"),
        ("beam.flink.paralelism=2", "beam.flink.paralelism: unknown key; did you mean parallelism?"),
        (
            "beam.direct.num_workers=2",
            "num_workers: unknown key; did you mean beam.dataflow.num_workers? Allowed: processes",
        ),
        (
            "beam.dataflow.num_workers=2",
            "beam: beam.dataflow.num_workers means nothing with beam.runner=direct",
        ),
        (
            "beam={runner: flink, direct: {processes: 2}}",
            "beam.direct.processes means nothing with beam.runner",
        ),
        (
            "beam.runner=dataflow",
            "beam.runner=dataflow needs beam.dataflow.project; beam.runner=dataflow needs beam.dataflow.reg",
        ),
        ("beam.runner=flink", "beam: beam.runner=flink needs beam.flink.job_endpoint"),
        ("beam.runner=spark", "beam: beam.runner=spark needs beam.spark.job_endpoint"),
        ("beam.flink.job_endpoint=http://flink:80", "beam.flink.job_endpoint: string should match pattern"),
        ("beam.flink.parallelism=many", "beam.flink.parallelism: input should be a valid integer"),
        ("beam.spark.environment_type=POD", "environment_type: input should be 'DOCKER', 'EXTERNAL', 'PROC"),
        ("beam.spark.environment_type=EXTERNAL", "EXTERNAL needs host:port of a worker pool"),
        ("beam.spark={environment_type: PROCESS, environment_config: boot}", 'needs JSON with a "command"'),
        (
            "beam.spark={environment_type: LOOPBACK, environment_config: x}",
            "LOOPBACK has no environment_config",
        ),
        ("beam.dataflow.project=My project", "beam.dataflow.project: string should match pattern"),
        ("beam.dataflow.temp_location=/tmp", "beam.dataflow.temp_location: string should match pattern"),
        (
            "beam.dataflow={num_workers: 3, max_num_workers: 2}",
            "num_workers (3) must not be more than max_num",
        ),
        ("kubeflow.vertex.regoin=r", "kubeflow.vertex.regoin: unknown key; did you mean region?"),
        ("kubeflow.vertex.labels={team: 1}", "kubeflow.vertex.labels.team: input should be a valid string"),
        ("kubeflow.kfp=5", "kubeflow.kfp: is a section; set kubeflow.kfp.host"),
        ("kubeflow.cache=1", "kubeflow.cache: input should be a valid boolean"),
        ("trainer.epochs=[", "the value of trainer.epochs is not valid YAML"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_is_allowed(override, expected):
    overrides = ["trainer.epochs=3", override] if override.startswith("trainer.epochs.") else [override]
    expected = "is a value, not a section" if len(overrides) == 2 else expected
    with pytest.raises(ConfigError) as refused:
        loading.load(overrides=overrides)
    assert expected in str(refused.value)


def test_the_layer_to_fine_tune_from_has_to_be_there_only_where_something_is_fine_tuned():
    layers = "model.mobilenetv2.feature_layers=[block_12_add]"
    assert loading.load(overrides=[layers, "model.mobilenetv2.fine_tune_epochs=0"])
    with pytest.raises(ConfigError, match="comes after block_12_add"):
        loading.load(overrides=[layers, "model.mobilenetv2.fine_tune_epochs=1"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.crop_scales=[0.5,0.75]"], r"last scale has to be 1\.0"),
        (["trainer.crop_scales=[0,1]"], "greater than 0"),
        (
            ["model.cnn.mirrored_filters=true", "model.cnn.filters=[8,9]"],
            r"mirrored_filters needs even numbers of filters, found \[8, 9\]",
        ),
        (["trainer.crop_scales=[0.5,1]", "model.architecture=mobilenetv2"], r"architecture=cnn.*image_size"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, message):
    assert loading.load(overrides=["trainer.crop_scales=[0.5,1]"]).trainer.crop_scales == (0.5, 1.0)
    with pytest.raises(ConfigError, match=message):
        loading.load(overrides=overrides)


@pytest.mark.parametrize("network", ["model.architecture=mobilenetv2", "model.cnn.batch_normalization=false"])
def test_muon_is_refused_for_a_network_without_kernels_for_it(network):
    loading.load(overrides=["trainer.optimizer=muon"])
    with pytest.raises(
        ConfigError, match=r"cannot be used:\n  trainer\.optimizer=muon trains .*any network$"
    ):
        loading.load(overrides=["trainer.optimizer=muon", network])


DATAFLOW = {"beam.runner": "dataflow", "beam.dataflow.project": "my-project", "beam.dataflow.region": "r"}
IN_BUCKETS = {"root": "gs://b/runs", "kubeflow.data_uri": "gs://b/data", "kubeflow.image": "image:1"}
SPARK = {"beam.runner": "spark", "beam.spark.job_endpoint": "spark:8099"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({**DATAFLOW, **IN_BUCKETS, "root": "runs"}, "root: expected a gs:// URI, .* found 'runs'"),
        ({**DATAFLOW, **IN_BUCKETS, "kubeflow.data_uri": "/data"}, "kubeflow.data_uri: expected a gs:// URI"),
        ({**DATAFLOW, **IN_BUCKETS, "kubeflow.data_uri": None}, "kubeflow.data_uri: .* found None"),
        ({**DATAFLOW, **IN_BUCKETS, "kubeflow.image": None}, "sdk_container_image or kubeflow.image"),
        (
            {"beam.runner": "flink", "beam.flink.job_endpoint": "flink:8099"},
            "environment_config or kubeflow.image: DOCKER",
        ),
    ],
)
def test_workers_that_would_have_no_image_or_no_data_are_refused(values, expected):
    settings = loading.load(values=values)
    with pytest.raises(ConfigError, match=expected):
        settings.check_workers()


@pytest.mark.parametrize(
    "values",
    [
        {**DATAFLOW, **IN_BUCKETS},
        {
            **DATAFLOW,
            **IN_BUCKETS,
            "kubeflow.image": None,
            "beam.dataflow.sdk_container_image": "image:1",
        },
        {**SPARK, "kubeflow.image": "image:1"},
        {**SPARK, "beam.spark.environment_config": "image:1"},
        {**SPARK, "beam.spark.environment_type": "LOOPBACK"},
    ],
)
def test_workers_that_have_all_are_not_refused(values):
    loading.load(values=values).check_workers()


@pytest.mark.parametrize(
    ("target", "root", "data", "expected"),
    [
        ("vertex", "gs://b/runs", "gs://b", None),
        ("kfp", "gs://b/runs/", "gs://b/data", None),
        ("kfp", "/mnt/runs", None, None),
        ("vertex", "runs", "gs://b/data", "root: expected gs://BUCKET/...; found runs"),
        ("vertex", "/mnt/runs", "gs://b/data", "root: expected gs://BUCKET/...; found /mnt/runs"),
        ("vertex", "gs://", "gs://b/data", "root: expected gs://BUCKET/...; found gs://"),
        ("vertex", "gs:///runs", "gs://b/data", "root: expected gs://BUCKET/...; found gs:///runs"),
        ("vertex", "gs://b/runs", None, "kubeflow.data_uri: expected gs://BUCKET/...; found nothing"),
        ("kfp", "runs", None, "root: expected gs://BUCKET/..., or the absolute path of a volume"),
        ("kfp", "/mnt/runs", "s3://b/data", "kubeflow.data_uri: .*; found s3://b/data"),
    ],
)
def test_places_that_no_step_could_reach_are_refused(target, root, data, expected):
    settings = loading.load(values={"root": root, "kubeflow.data_uri": data})
    if expected is None:
        settings.check_places(target)
        return
    with pytest.raises(ConfigError, match=expected):
        settings.check_places(target)


def test_a_preset_that_is_no_text_is_refused(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"preset\.yaml: it is no text"):
        loading.load([preset])


def test_every_problem_is_listed_at_once():
    with pytest.raises(ConfigError) as refused:
        loading.load(overrides=["trainer.epochs=0", "evaluation.min_accuracy=2"])
    assert "trainer.epochs" in str(refused.value)
    assert "evaluation.min_accuracy" in str(refused.value)


def test_a_file_that_is_missing_or_no_mapping_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration file"):
        loading.load([tmp_path / "none.yaml"])
    listing = tmp_path / "list.yaml"
    listing.write_text("- 1\n")
    with pytest.raises(ConfigError, match="expected `key: value` lines, found list"):
        loading.load([listing])


def test_settings_of_a_step_hold_only_what_it_depends_on():
    base = loading.load()
    more_epochs = loading.load(overrides=["trainer.epochs=99"])
    assert base.tuner_settings() == more_epochs.tuner_settings()
    assert base.trainer_settings() != more_epochs.trainer_settings()
    other_network = loading.load(overrides=["model.mobilenetv2.alpha=0.35"])
    assert base.trainer_settings().to_json() == other_network.trainer_settings().to_json()
    gates = loading.load(overrides=["evaluation.min_accuracy=0.9", "tuner.trials=1"])
    assert base.trainer_settings() == gates.trainer_settings()


def test_settings_survive_json():
    settings = loading.load(overrides=["model.cnn.filters=[8, 16]"]).tuner_settings()
    assert TrainingSettings.model_validate(settings.to_json()) == settings


def test_list_keys_lists_every_leaf():
    listed = {key: default for key, default, _ in list_keys(PipelineConfig)}
    assert listed["model.cnn.filters"] == (32, 64, 128, 256)
    assert listed["tuner.learning_rate.max"] == 1e-2
    assert "model" not in listed


def _described(loaded):
    return {row["key"]: (row["value"], row["origin"]) for row in loaded.describe()}


def test_every_setting_is_described_with_where_it_comes_from(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("trainer:\n  epochs: 3\n  batch_size: 64\ntuner:\n  batch_sizes: [8, 16]\n")
    described = _described(
        loading.load(
            [preset],
            ["trainer.batch_size=32", "tuner.learning_rate={min: 0.002, max: 0.008}", "seed = 7"],
            {"data": "shapes", "root": "elsewhere"},
        )
    )
    settings = [key for key, _, _ in list_keys(PipelineConfig)]
    left_out = ("root", "kubeflow.", "beam.", "model.mobilenetv2.", "model.efficientnetv2b0.")
    assert list(described) == [key for key in settings if not key.startswith(left_out)]
    changed = {key: row for key, row in described.items() if row[1] != "default"}
    assert changed == {
        "data": ("shapes", "flag"),
        "seed": (7, "--set"),
        "trainer.epochs": (3, "preset.yaml"),
        "trainer.batch_size": (32, "--set"),
        "tuner.learning_rate.min": (0.002, "--set"),
        "tuner.learning_rate.max": (0.008, "--set"),
        "tuner.batch_sizes": ([8, 16], "preset.yaml"),
    }
    assert described["model.cnn.filters"] == ([32, 64, 128, 256], "default")
    assert described["model.image_size"] == (None, "default")


def test_the_keys_of_the_command_line_are_known(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("seed: 3\nkubeflow: {vertex: {labels: {a: b}}}\n")
    loaded = loading.load(
        [preset], ["trainer={epochs: 3}", "kubeflow.vertex.labels.c=d"], {"root": "elsewhere"}
    )
    assert loaded.keys_of_command_line() == ["trainer.epochs", "kubeflow.vertex.labels.c", "root"]
    assert loaded.kubeflow.vertex.labels == {"a": "b", "c": "d"}


def test_without_a_preset_all_is_default():
    assert {origin for _, origin in _described(loading.load()).values()} == {"default"}


def test_a_range_that_is_set_takes_the_place_of_the_presets(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("tuner:\n  learning_rate: {min: 0.001, max: 0.01}\n")
    described = _described(loading.load([preset], ["tuner.learning_rate={min: 0.002, max: 0.008}"]))
    assert described["tuner.learning_rate.min"] == (0.002, "--set")
    assert described["tuner.learning_rate.max"] == (0.008, "--set")
    described = _described(loading.load([preset], ["tuner.learning_rate.min=0.002"]))
    assert described["tuner.learning_rate.min"] == (0.002, "--set")
    assert described["tuner.learning_rate.max"] == (0.01, "preset.yaml")


def test_gates_can_be_left_out_but_for_the_lowest_accuracy():
    names = [
        name
        for name in EvaluationConfig.model_fields
        if name.startswith(("min_", "max_")) and name != "min_accuracy"
    ]
    assert len(names) == 7
    evaluation = loading.load(overrides=[f"evaluation.{name}=null" for name in names]).evaluation
    assert [getattr(evaluation, name) for name in names] == [None] * 7
    with pytest.raises(ConfigError, match="min_accuracy: input should be a valid number; found None"):
        loading.load(overrides=["evaluation.min_accuracy=null"])


def test_slices_are_of_the_image_or_of_a_feature_in_the_schema():
    loading.load().evaluation.check_slices([])
    evaluation = loading.load(overrides=["evaluation.slices=[contrast, camera]"]).evaluation
    evaluation.check_slices(["label", "camera"])
    message = "expected some of brightness, contrast, label; found 'camera'. A feature of .* schema.pbtxt"
    with pytest.raises(ConfigError, match=message):
        evaluation.check_slices(["label"])
    loading.load(overrides=["evaluation.slices=[]"]).evaluation.check_slices([])


@pytest.mark.parametrize(
    ("overrides", "weights_license"),
    [
        ([], None),
        (["model.mobilenetv2.weights=other.h5"], None),
        (["model.architecture=mobilenetv2", "model.mobilenetv2.weights=random"], None),
        (
            ["model.architecture=mobilenetv2", "model.mobilenetv2.weights=/from/others.h5"],
            "that of others.h5",
        ),
    ],
)
def test_the_model_card_names_the_license_of_foreign_weights_in_use(overrides, weights_license):
    overrides = [*overrides, "model_card.intended_use=Sorting parcels."]
    assert loading.load(overrides=overrides).describe_model() == {
        "intended_use": "Sorting parcels.",
        "limits": ModelCardConfig().limits,
        "weights_license": weights_license,
    }


def test_the_license_of_imagenet_weights_warns_of_the_images_terms():
    described = loading.load(overrides=["model.architecture=mobilenetv2"]).describe_model()
    for words in ("Apache License 2.0", "ImageNet's images", "non-commercial"):
        assert words in described["weights_license"]


def test_nothing_heavy_is_imported():
    code = (
        "import sys, settings.loading; print([m for m in ('tensorflow', 'tfx', 'numpy') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_machines_for_the_trainer_are_refused_where_there_are_none():
    kubeflow = loading.load(
        overrides=["kubeflow.steps.Trainer={machine_type: n1-standard-8, workers: 4}"]
    ).kubeflow
    with pytest.raises(ConfigError, match="workers 4; a run on this machine trains in one process"):
        kubeflow.check_custom_job("local")
    with pytest.raises(ConfigError, match="workers 4; open-source Kubeflow Pipelines trains in one"):
        kubeflow.check_custom_job("kfp")
    with pytest.raises(ConfigError, match=r"needs kubeflow\.vertex\.project and kubeflow"):
        kubeflow.check_custom_job("vertex")
    # As the message says.
    back = [
        "kubeflow.steps.Trainer={machine_type: n1-standard-8, workers: 4}",
        "kubeflow.steps.Trainer.machine_type=null",
        "kubeflow.steps.Trainer.workers=1",
    ]
    for target in ("local", "kfp", "vertex"):
        loading.load(overrides=back).kubeflow.check_custom_job(target)


@pytest.mark.parametrize(
    ("values", "size", "message"),
    [
        ({"model.architecture": "mobilenetv2"}, (32, 40), None),
        ({"model.architecture": "mobilenetv2"}, (40, 31), r"at least 32x32 pixels, found 40x31.*image_size"),
        ({"model.architecture": "mobilenetv2"}, (31, 40), r"at least 32x32 pixels, found 31x40.*image_size"),
        ({"model.cnn.filters": (2, 2, 2)}, (9, 20), None),
        ({"model.cnn.filters": (2, 2, 2)}, (8, 20), r"8x20 pixels are too small for 3 blocks.*9x9"),
        ({"model.cnn.filters": (2, 2, 2), "model.cnn.whitening": False}, (8, 20), None),
        (
            {"model.cnn.filters": (2, 2, 2, 2), "model.cnn.whitening": False},
            (15, 20),
            r"15x20 pixels are too small for 4 blocks.*16x16",
        ),
        ({"model.cnn.filters": (2, 2), "trainer.crop_scales": (0.5, 1.0)}, (10, 10), None),
        (
            {"model.cnn.filters": (2, 2), "trainer.crop_scales": (0.5, 1.0)},
            (12, 8),
            r"crop_scales: at scale 0\.5 images of 8 pixels have 4, .*least 5",
        ),
    ],
)
def test_images_too_small_for_the_network_are_refused_with_both_numbers(values, size, message):
    settings = loading.load([], [], values)
    with pytest.raises(ConfigError, match=message) if message else contextlib.nullcontext():
        settings.model.network.check_image_size(size, settings.trainer.crop_scales)


def test_a_preset_goes_on_top_of_the_one_of_its_architecture_unless_it_is_whole(tmp_path):
    part, whole, other = (tmp_path / f"{name}.yaml" for name in ("part", "whole", "other"))
    part.write_text("kubeflow: {image: i}\ntrainer: {epochs: 7}\n")
    whole.write_text("base: none\ntrainer: {batch_size: 32}\n")
    other.write_text("model: {architecture: mobilenetv2}\n")
    quick = loading.load([loading.PRESETS / "quick.yaml"])
    mobilenetv2 = loading.load([loading.PRESETS / "mobilenetv2.yaml"])
    assert loading.load(on_base=True).model_dump() == quick.model_dump()

    on_quick = loading.load([part], on_base=True)
    assert on_quick.model == quick.model
    assert (on_quick.trainer.optimizer, on_quick.trainer.epochs, on_quick.kubeflow.image) == ("muon", 7, "i")
    described = _described(on_quick)
    assert described["trainer.optimizer"][1] == "quick.yaml"
    assert described["trainer.epochs"][1] == "part.yaml"

    assert loading.load([whole], on_base=True).trainer == TrainerConfig(batch_size=32)
    assert loading.load([whole, part], on_base=True).trainer == TrainerConfig(batch_size=32, epochs=7)
    for asked in (
        loading.load([other], on_base=True),
        loading.load([], ["model.architecture=mobilenetv2"], on_base=True),
        loading.load([], [], {"model.architecture": "mobilenetv2"}, on_base=True),
    ):
        assert asked.model_dump() == mobilenetv2.model_dump()
    with pytest.raises(ConfigError, match="expected one of cnn, mobilenetv2"):
        loading.load([], ["model.architecture=vit"], on_base=True)


def test_a_base_other_than_none_is_refused(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("base: quick.yaml\n")
    with pytest.raises(ConfigError, match=r"base: expected `none`, .*found 'quick.yaml'"):
        loading.load([preset], on_base=True)


def test_every_preset_in_the_project_is_whole():
    for preset in PRESETS:
        assert loading.load([preset], on_base=True).model_dump() == loading.load([preset]).model_dump()


def test_the_sections_of_the_architectures_have_their_names_and_their_presets():
    architectures = ModelConfig.architectures()
    assert list(architectures) == ["cnn", "mobilenetv2", "efficientnetv2b0"]
    for name, section in architectures.items():
        assert section.architecture == name
        assert loading.load([loading.PRESETS / section.preset]).model.architecture == name


def test_a_hyperparameter_that_the_command_line_sets_is_left_out_of_the_search(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("trainer: {learning_rate: 0.15, batch_size: 250}\n")
    searched = loading.load([preset], on_base=True)
    assert searched.has_tuner
    assert searched.tuner_settings().tuner == searched.tuner

    pinned = loading.load([preset], ["trainer.learning_rate=0.12"], on_base=True)
    assert pinned.has_tuner
    search = pinned.tuner_settings().tuner
    assert (search.learning_rate.min, search.learning_rate.max) == (0.12, 0.12)
    assert search.batch_sizes == searched.tuner.batch_sizes
    search = loading.load([preset], ["trainer.batch_size=100"], on_base=True).tuner_settings().tuner
    assert (search.learning_rate, search.batch_sizes) == (searched.tuner.learning_rate, (100,))

    both = loading.load([preset], ["trainer.learning_rate=0.12", "trainer.batch_size=100"], on_base=True)
    assert not both.has_tuner
    assert "Tuner" not in both.steps()


def test_no_augmentation_is_none_whatever_the_defaults_are(monkeypatch):
    assert not any(AugmentationConfig.none().model_dump().values())
    for name, field in AugmentationConfig.model_fields.items():
        assert type(getattr(AugmentationConfig.none(), name)) is type(field.default)


@pytest.mark.parametrize(
    ("optimizer", "used"), [("adam", False), ("adamw", True), ("sgd", True), ("muon", False)]
)
def test_weight_decay_is_refused_where_it_would_do_nothing(optimizer, used):
    values = {"trainer.optimizer": optimizer, "trainer.weight_decay": 0.1}
    with (
        contextlib.nullcontext() if used else pytest.raises(ConfigError, match=r"trainer\.weight_decay=null")
    ):
        loading.load(values=values)
    loading.load(values={**values, "trainer.weight_decay": None})
