import pytest

from settings import loading
from settings.base import ConfigError, list_keys
from settings.evaluation import ModelCardConfig
from settings.pipeline import PipelineConfig

DATAFLOW = {"beam.runner": "dataflow", "beam.dataflow.project": "my-project", "beam.dataflow.region": "r"}
IN_BUCKETS = {"root": "gs://b/runs", "kubeflow.data_uri": "gs://b/data", "kubeflow.image": "image:1"}
SPARK = {"beam.runner": "spark", "beam.spark.job_endpoint": "spark:8099"}


def test_names_with_other_characters_are_refused(error_message):
    message = error_message("name=Not a name")
    assert "name: expected a name of at most 128 characters from a-z, 0-9 and -, such as `cats`" in message


@pytest.mark.parametrize(
    ("root", "found"), [("runs[2]", r"\[ and \]"), ("gs://b/run*", r"\*"), ("what?", r"\?"), ("a\\b", r"\\")]
)
def test_roots_that_are_patterns_of_paths_are_refused(root, found):
    with pytest.raises(ConfigError, match=f"root: expected a path without {found}, which TFX and Beam read"):
        loading.load(values={"root": root})


@pytest.mark.parametrize("network", ["model.architecture=mobilenetv2", "model.cnn.batch_normalization=false"])
def test_muon_is_refused_for_networks_without_batch_normalised_convolutions(network):
    loading.load(overrides=["trainer.optimizer=muon"])
    with pytest.raises(ConfigError, match=r"cannot be used:\n  trainer\.optimizer=muon needs .*any network$"):
        loading.load(overrides=["trainer.optimizer=muon", network])


def test_crop_scales_are_refused_for_a_pretrained_network():
    with pytest.raises(ConfigError, match=r"architecture=cnn.*image_size"):
        loading.load(overrides=["trainer.crop_scales=[0.5,1]", "model.architecture=mobilenetv2"])


def test_every_setting_is_described_with_its_origin(tmp_path, describe):
    preset = tmp_path / "preset.yaml"
    preset.write_text(
        "trainer:\n  epochs: 3\n  batch_size: 64\ntuner:\n  space: {trainer.batch_size: [8, 16]}\n"
    )
    rate = "tuner.space.trainer.learning_rate"
    described = describe(
        loading.load(
            [preset],
            ["trainer.batch_size=32", f"{rate}={{min: 0.002, max: 0.008}}", "seed = 7"],
            {"data": "shapes", "root": "elsewhere"},
        )
    )
    keys = [key for key, _, _ in list_keys(PipelineConfig)]
    left_out = (
        *("root", "serving_check.", "pusher.", "kubeflow.", "beam."),
        *("model.mobilenetv2.", "model.efficientnetv2b0."),
    )
    # The space has a row for each end of a range and for each list.
    spaces = [key for key in described if key.startswith("tuner.space.")]
    assert [key for key in described if key not in spaces] == [
        key for key in keys if not key.startswith((*left_out, "tuner.space"))
    ]
    changed = {key: row for key, row in described.items() if row[1] != "default"}
    assert changed == {
        "data": ("shapes", "flag"),
        "seed": (7, "--set"),
        "trainer.epochs": (3, "preset.yaml"),
        "trainer.batch_size": (32, "--set"),
        f"{rate}.min": (0.002, "--set"),
        f"{rate}.max": (0.008, "--set"),
        "tuner.space.trainer.batch_size": ([8, 16], "preset.yaml"),
    }
    assert described["model.cnn.filters"] == ([32, 64, 128, 256], "default")
    assert described["model.image_size"] == (None, "default")


def test_keys_set_on_the_command_line_are_listed(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("seed: 3\nkubeflow: {vertex: {labels: {a: b}}}\n")
    loaded = loading.load(
        [preset], ["trainer={epochs: 3}", "kubeflow.vertex.labels.c=d"], {"root": "elsewhere"}
    )
    assert loaded.keys_of_command_line() == ["trainer.epochs", "kubeflow.vertex.labels.c", "root"]
    assert loaded.kubeflow.vertex.labels == {"a": "b", "c": "d"}


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
def test_the_model_card_names_the_license_of_pretrained_weights_in_use(overrides, weights_license):
    overrides = [*overrides, "model_card.intended_use=Sorting parcels."]
    assert loading.load(overrides=overrides).describe_model() == {
        "intended_use": "Sorting parcels.",
        "limits": ModelCardConfig().limits,
        "weights_license": weights_license,
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({**DATAFLOW, **IN_BUCKETS, "root": "runs"}, "root: expected a gs:// URI, .* found 'runs'"),
        ({**DATAFLOW, **IN_BUCKETS, "kubeflow.data_uri": "/data"}, "kubeflow.data_uri: expected a gs:// URI"),
        ({**DATAFLOW, **IN_BUCKETS, "kubeflow.data_uri": None}, "kubeflow.data_uri: .* found None"),
        ({**DATAFLOW, **IN_BUCKETS, "kubeflow.image": None}, "sdk_container_image or kubeflow.image"),
        (
            {"beam.runner": "flink", "beam.flink.job_endpoint": "flink:8099"},
            "DOCKER needs a container image: set beam.flink.environment_config or kubeflow.image",
        ),
    ],
)
def test_beam_workers_without_an_image_or_access_to_the_data_are_refused(values, expected):
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
def test_beam_workers_with_an_image_and_access_to_the_data_are_accepted(values):
    loading.load(values=values).check_workers()


@pytest.mark.parametrize(
    ("target", "root", "data", "expected"),
    [
        ("vertex", "gs://b/runs", "gs://b", None),
        ("kfp", "gs://b/runs/", "gs://b/data", None),
        ("kfp", "minio://b/runs", "minio://b/data", None),
        ("kfp", "s3://b/runs", "minio://b/data", None),
        ("vertex", "runs", "gs://b/data", "root: expected gs://BUCKET/...; found runs"),
        ("vertex", "/mnt/runs", "gs://b/data", "root: expected gs://BUCKET/...; found /mnt/runs"),
        ("vertex", "gs://", "gs://b/data", "root: expected gs://BUCKET/..., whose bucket .*; found gs://"),
        ("vertex", "gs:///runs", "gs://b/data", "root: expected .* bucket is missing; found gs:///runs"),
        ("kfp", "minio://", "minio://b/data", "root: expected minio://BUCKET/..., whose bucket is missing"),
        ("kfp", "oci://b/runs", "minio://b/data", "root: expected minio://BUCKET/.*; found oci://b/runs"),
        ("kfp", "minio://b/a/../runs", "minio://b/data", "root: expected a place without empty folders"),
        ("kfp", "minio://b", "minio://b//data", "kubeflow.data_uri: expected a place without empty folders"),
        ("kfp", "minio://b", "minio://b", "kubeflow.data_uri: expected a folder .* such as minio://b/data"),
        ("vertex", "gs://b/runs", None, "kubeflow.data_uri: expected gs://BUCKET/...; found nothing"),
        ("vertex", "s3://b/runs", "gs://b/data", "root: expected gs://BUCKET/...; found s3://b/runs"),
        ("kfp", "runs", None, "root: expected minio://BUCKET/..., .* that Kubeflow copies .*; found runs"),
        ("kfp", "/mnt/runs", "s3://b/data", "root: expected minio://BUCKET/.*; found /mnt/runs"),
        ("kfp", "minio://b/runs", "/mnt/data", "kubeflow.data_uri: expected minio://.*; found /mnt/data"),
        ("kfp", "minio://b/runs", None, "kubeflow.data_uri: .*; found nothing"),
    ],
)
def test_places_that_the_steps_cannot_reach_are_refused(target, root, data, expected):
    settings = loading.load(values={"root": root, "kubeflow.data_uri": data})
    if expected is None:
        settings.check_places(target)
        return
    with pytest.raises(ConfigError, match=expected):
        settings.check_places(target)


def test_artifacts_for_which_kubeflow_uses_other_credentials_than_for_the_root_are_known():
    def others(root, data, **more):
        return loading.load(values={"root": root, "kubeflow.data_uri": data, **more}).other_buckets()

    assert others("minio://a/runs", "minio://a/data") == {}
    assert others("gs://a/runs", "gs://b/data") == {}  # one account has access to both
    assert others("s3://a/runs", "minio://a/data") == {"kubeflow.data_uri": "minio://a/data"}
    baseline = {"kubeflow.baseline_model": "minio://c/model"}
    assert others("minio://a/runs", "minio://a/data", **baseline) == baseline


def test_workers_of_beam_need_a_store_that_they_read_themselves():
    flink = ["beam.runner=flink", "beam.flink.job_endpoint=f:8099", "kubeflow.data_uri=gs://b/data"]
    loading.load(overrides=[*flink, "root=gs://b/runs"]).check_places("kfp")
    with pytest.raises(ConfigError, match=r"root: expected gs://.* workers of beam\.runner=flink .* minio"):
        loading.load(overrides=[*flink, "root=minio://b/runs"]).check_places("kfp")


def test_trainer_and_tuner_settings_contain_only_what_the_step_depends_on():
    base = loading.load()
    more_epochs = loading.load(overrides=["trainer.epochs=99"])
    assert base.tuner_settings() == more_epochs.tuner_settings()
    assert base.trainer_settings() != more_epochs.trainer_settings()
    other_network = loading.load(overrides=["model.mobilenetv2.alpha=0.35"])
    assert base.trainer_settings().to_json() == other_network.trainer_settings().to_json()
    gates = loading.load(overrides=["evaluation.min_accuracy=0.9", "tuner.trials=1"])
    assert base.trainer_settings() == gates.trainer_settings()


def test_the_tuner_does_not_search_hyperparameters_set_on_the_command_line(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("trainer: {learning_rate: 0.15, batch_size: 250}\n")
    searched = loading.load([preset], on_base=True)
    assert searched.has_tuner
    assert searched.tuner_settings().tuner == searched.tuner
    rate, sizes = searched.tuner.space["trainer.learning_rate"], searched.tuner.space["trainer.batch_size"]

    pinned = loading.load([preset], ["trainer.learning_rate=0.12"], on_base=True)
    assert pinned.has_tuner
    settings = pinned.tuner_settings()
    assert (settings.tuner.space, settings.trainer.learning_rate) == ({"trainer.batch_size": sizes}, 0.12)
    settings = loading.load([preset], ["trainer.batch_size=100"], on_base=True).tuner_settings()
    assert (settings.tuner.space, settings.trainer.batch_size) == ({"trainer.learning_rate": rate}, 100)

    both = loading.load([preset], ["trainer.learning_rate=0.12", "trainer.batch_size=100"], on_base=True)
    assert not both.has_tuner
    assert "Tuner" not in both.steps()
