import json
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow import compiling, local_copies
from settings import loading
from settings.base import ConfigError
from settings.steps import WITHOUT_CONTAINER

IMAGE = "registry/pipeline:1"


@pytest.fixture
def compiled(tiny_dataset):
    def compile_pipeline(target, *overrides, preset=None):
        overrides = ["root=gs://bucket/runs", f"kubeflow.image={IMAGE}", *overrides]
        settings = loading.load([preset] if preset else [], overrides)
        return compiling.compile_pipeline(settings, "tiny", tiny_dataset, DIGEST, target)

    return compile_pipeline


def _spec(job):
    return job.get("pipelineSpec", job)


def _tasks(job):
    return set(_spec(job)["root"]["dag"]["tasks"])


STEPS = set(loading.load().steps()) - {"Baseline"}
CONTAINERS = STEPS - set(WITHOUT_CONTAINER)
DIGEST = "0" * 64


def test_each_target_has_its_schema_and_its_root(compiled):
    vertex, kfp = compiled("vertex"), compiled("kfp")
    assert vertex["pipelineSpec"]["schemaVersion"] == "2.0.0"
    assert vertex["runtimeConfig"]["gcsOutputDirectory"] == "gs://bucket/runs/pipelines/tiny"
    assert kfp["schemaVersion"] == "2.1.0"
    assert kfp["defaultPipelineRoot"] == "gs://bucket/runs/pipelines/tiny"
    assert json.loads(compiling.serialize(vertex, "vertex")) == vertex
    assert yaml.safe_load(compiling.serialize(kfp, "kfp")) == kfp


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_a_compiled_file_has_no_path_of_the_machine_that_compiled_it(compiled, tiny_dataset, target):
    text = json.dumps(compiled(target, "data=/home/someone/data", "kubeflow.data_uri=gs://bucket/data"))
    assert "gs://bucket/data" in text
    for path in ("/home/someone", str(tiny_dataset.path), str(Path(__file__).resolve().parents[3])):
        assert path not in text


def test_vertex_searches_for_the_baseline_and_kubeflow_needs_a_given_one(compiled):
    resolvers = {"Baseline-model-blessing-resolver", "Baseline-model-resolver"}
    assert _tasks(compiled("vertex")) == STEPS | resolvers
    assert _tasks(compiled("kfp")) == STEPS
    for target in ("vertex", "kfp"):
        job = compiled(target, "kubeflow.baseline_model=gs://bucket/model")
        assert _tasks(job) == STEPS | {"Baseline"}
        executor = _spec(job)["deploymentSpec"]["executors"]["Baseline_executor"]
        assert "gs://bucket/model" in json.dumps(executor["importer"]["artifactUri"])


# Step -> its executor, and whether the executor uses Beam.
EXECUTORS = {
    "ImportExampleGen": ("components.example_gen.component.ImportExampleGen_Executor", False),
    "StatisticsGen": ("tfx.components.statistics_gen.executor.Executor", True),
    "ExampleValidator": ("tfx.components.example_validator.executor.Executor", False),
    "DataGate": ("components.data_gate.component.DataGate_Executor", True),
    "Transform": ("tfx.components.transform.executor.Executor", True),
    "Tuner": ("components.tuner.executor.Executor", False),
    "Trainer": ("tfx.components.trainer.executor.GenericExecutor", False),
    "Evaluator": ("components.evaluator.executor.Executor", True),
    "ModelReport": ("components.model_report.component.ModelReport_Executor", False),
    "ServingCheck": ("components.serving_check.component.ServingCheck_Executor", False),
    "Pusher": ("components.pusher.executor.Executor", False),
}
ON_FLINK = ("beam.runner=flink", "beam.flink.job_endpoint=flink:8099")


def _containers(job):
    return {
        name.removesuffix("_executor"): executor["container"]
        for name, executor in _spec(job)["deploymentSpec"]["executors"].items()
        if "container" in executor
    }


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_every_step_gets_exactly_its_settings(compiled, target, tmp_path):
    """Checks image, CPU, memory, accelerators and command, with different values for every step."""
    # Some steps leave out some settings, which must not come from another step.
    given = {
        step: {
            "image": f"registry/{step.lower()}:{place}",
            "cpu": place + 0.5,
            "memory_gb": 2.0 * place + 1,
            "accelerator": f"ACCELERATOR_{place}",
            "accelerator_count": place + 1,
        }
        for place, step in enumerate(sorted(CONTAINERS), start=1)
    }
    del given["Pusher"]
    given["DataGate"] = {"memory_gb": 99.0}
    given["ModelReport"] = {"cpu": 77.0}
    given["StatisticsGen"] = {"image": "registry/other:1"}
    del given["Evaluator"]["accelerator_count"]
    preset = tmp_path / "preset.yaml"
    preset.write_text(yaml.safe_dump({"kubeflow": {"steps": given}}))
    found = _containers(compiled(target, *ON_FLINK, preset=preset))

    assert found.keys() == CONTAINERS
    for step, container in found.items():
        expected = given.get(step, {})
        assert container["image"] == expected.get("image", IMAGE)
        resources = {}
        if "cpu" in expected:
            resources["cpuLimit"] = expected["cpu"]
        if "memory_gb" in expected:
            resources["memoryLimit"] = expected["memory_gb"]
        if "accelerator" in expected:
            count = str(expected.get("accelerator_count", 1))
            resources["accelerator"] = {"type": expected["accelerator"], "count": count}
        assert container.get("resources", {}) == resources
        assert container["command"] == ["python", "-m", "pipeline.kubeflow.container_entrypoint"]
        executor, uses_beam = EXECUTORS[step]
        arguments = dict(zip(container["args"][0:6:2], container["args"][1:6:2], strict=False))
        assert arguments["--executor_class_path"] == executor
        assert arguments["--json_serialized_invocation_args"] == "{{$}}"
        assert [a for a in container["args"] if a.startswith(("--runner", "--environment_config"))] == (
            ["--runner=FlinkRunner", f"--environment_config={IMAGE}"] if uses_beam else []
        )


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_steps_without_settings_have_no_resources(compiled, target):
    for container in _containers(compiled(target)).values():
        assert container["image"] == IMAGE
        assert "resources" not in container
        assert not [a for a in container["args"] if a.startswith("--runner")]


def _parameters(job):
    """Returns runtime parameter -> (type, default, steps that receive it)."""
    spec = _spec(job)
    declared = spec["root"]["inputDefinitions"]["parameters"]
    values = job.get("runtimeConfig", {}).get("parameters", {})
    found = {}
    for name, definition in declared.items():
        steps = set()
        for step, task in spec["root"]["dag"]["tasks"].items():
            for key, value in task.get("inputs", {}).get("parameters", {}).items():
                if value == {"componentInputParameter": name}:
                    steps.add(step)
                    type_ = spec["components"][step]["inputDefinitions"]["parameters"][key]
                    assert type_.items() <= definition.items()
        type_ = definition.get("type") or definition["parameterType"]
        default = definition.get("defaultValue", next(iter(values.get(name, {"": None}).values())))
        found[name] = (type_, default, steps)
    return found


@pytest.mark.parametrize(
    ("target", "types"),
    [("vertex", ("STRING", "INT", "DOUBLE")), ("kfp", ("STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE"))],
)
def test_runtime_parameters_have_the_compiled_settings_as_their_defaults(compiled, target, types):
    string, integer, double = types
    overrides = ("kubeflow.data_uri=gs://bucket/data", "trainer.epochs=3")
    rate = "trainer.learning_rate=2e-3"
    tuned = {
        "data_uri": (string, "gs://bucket/data", {"Dataset"}),
        "data_digest": (string, DIGEST, {"ImportExampleGen"}),
        "serving_uri": (string, "gs://bucket/runs/serving/tiny", {"Pusher"}),
        "epochs": (integer, 3, {"Trainer", "ModelReport"}),
    }
    assert _parameters(compiled(target, *overrides)) == tuned
    # A run can set only values that the Tuner does not choose.
    assert _parameters(compiled(target, *overrides, rate, "tuner.enabled=false")) == {
        **tuned,
        "learning_rate": (double, 2e-3, {"Trainer", "ModelReport"}),
        "batch_size": (integer, 128, {"Trainer", "ModelReport"}),
    }
    # The Tuner trains with a value that it does not choose.
    others = "tuner.space={trainer.batch_size: [8, 16], model.cnn.dropout: {min: 0, max: 0.5}}"
    assert _parameters(compiled(target, *overrides, rate, others)) == {
        **tuned,
        "learning_rate": (double, 2e-3, {"Tuner", "Trainer", "ModelReport"}),
    }


def test_compiled_pipelines_are_valid_messages(compiled):
    for target, message in (
        ("vertex", pipeline_spec_pb2.PipelineJob()),
        ("kfp", pipeline_spec_pb2.PipelineSpec()),
    ):
        job = compiled(target)
        json_format.ParseDict(job, message)
        json_format.ParseDict(_spec(job), pipeline_spec_pb2.PipelineSpec())


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_the_cache_can_be_disabled(compiled, target):
    for cache in (True, False):
        tasks = _spec(compiled(target, f"kubeflow.cache={json.dumps(cache)}"))["root"]["dag"]["tasks"]
        enabled = {
            task.get("cachingOptions", {}).get("enableCache", False)
            for n, task in tasks.items()
            if n in STEPS
        }
        assert enabled == {cache}


def test_the_steps_read_data_uri_and_no_path_of_this_machine_is_compiled_in(compiled, tiny_dataset):
    job = compiled("vertex", "kubeflow.data_uri=gs://bucket/data")
    assert _parameters(job)["data_uri"][1:] == ("gs://bucket/data", {"Dataset"})
    importer = _spec(job)["deploymentSpec"]["executors"]["Dataset_executor"]["importer"]
    assert importer["artifactUri"] == {"runtimeParameter": "artifact_uri"}
    parameters = _spec(job)["root"]["dag"]["tasks"]["Dataset"]["inputs"]["parameters"]
    assert parameters["artifact_uri"] == {"componentInputParameter": "data_uri"}
    assert str(tiny_dataset.path) not in json.dumps(job)


def test_a_trainer_with_workers_is_a_custom_job_with_a_chief_and_workers(compiled):
    job = compiled(
        "vertex",
        "kubeflow.vertex={project: p, region: europe-west4, service_account: me@p, network: n}",
        "kubeflow.vertex.encryption_key=key",
        "kubeflow.steps.Trainer={machine_type: n1-standard-8, workers: 4, accelerator: NVIDIA_TESLA_T4, "
        "accelerator_count: 2, image: gpu:2}",
    )
    container = _containers(job)["Trainer"]
    assert "resources" not in container  # The container only waits for the job.
    assert container["image"] == IMAGE
    assert "tfx.extensions.google_cloud_ai_platform.trainer.executor.GenericExecutor" in container["args"]
    parameters = _spec(job)["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
    found = json.loads(parameters["custom_config"]["runtimeValue"]["constantValue"]["stringValue"])
    machine = {
        "machine_spec": {
            "machine_type": "n1-standard-8",
            "accelerator_type": "NVIDIA_TESLA_T4",
            "accelerator_count": 2,
        },
        "container_spec": {"image_uri": "gpu:2"},
    }
    assert found["ai_platform_enable_vertex"] is True
    assert found["ai_platform_vertex_region"] == "europe-west4"
    assert found["ai_platform_training_args"] == {
        "project": "p",
        "job_spec": {
            "worker_pool_specs": [{**machine, "replica_count": 1}, {**machine, "replica_count": 3}],
            "service_account": "me@p",
            "network": "n",
        },
        "encryption_spec": {"kms_key_name": "key"},
    }


def test_a_trainer_with_only_a_machine_type_is_a_custom_job_with_one_replica(compiled):
    job = compiled(
        "vertex",
        "kubeflow.vertex={project: p, region: r}",
        "kubeflow.steps.Trainer.machine_type=n1-standard-8",
    )
    parameters = _spec(job)["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
    found = json.loads(parameters["custom_config"]["runtimeValue"]["constantValue"]["stringValue"])
    assert found["ai_platform_training_args"]["job_spec"]["worker_pool_specs"] == [
        {
            "machine_spec": {"machine_type": "n1-standard-8"},
            "replica_count": 1,
            "container_spec": {"image_uri": IMAGE},
        }
    ]


def test_steps_use_local_copies_on_kubeflow_unless_workers_of_beam_need_the_uris(compiled):
    def uses_copies(*arguments):
        commands = {tuple(c["command"][3:]) for c in _containers(compiled(*arguments)).values()}
        assert len(commands) == 1
        return commands == {(local_copies.FLAG,)}

    assert uses_copies("kfp")
    assert not uses_copies("vertex")
    assert not uses_copies("kfp", *ON_FLINK)


@pytest.mark.parametrize(
    ("scheme", "endpoint", "expected"),
    [
        ("minio", "null", ["http://seaweedfs.kubeflow:9000", "http://minio-service.kubeflow:9000"]),
        ("minio", "http://store:9000", ["http://store:9000"]),
        ("s3", "null", []),  # Amazon's own
        ("s3", "http://seaweed:8333", ["http://seaweed:8333"]),
        ("gs", "null", []),
    ],
)
def test_the_pusher_knows_the_address_of_its_store(compiled, scheme, endpoint, expected):
    job = compiled("kfp", f"root={scheme}://bucket/runs", f"kubeflow.kfp.store.endpoint={endpoint}")
    inputs = job["root"]["dag"]["tasks"]["Pusher"]["inputs"]["parameters"]
    assert json.loads(inputs["custom_config"]["runtimeValue"]["constant"])["store"] == {"endpoints": expected}


def test_models_are_pushed_to_a_place_of_their_own_if_one_is_set(compiled):
    job = compiled("kfp", "kubeflow.serving=s3://models", "kubeflow.kfp.store.secret=models")
    container = _containers(job)["Pusher"]
    assert "serving_uri" not in job["root"]["inputDefinitions"]["parameters"]
    inputs = job["root"]["dag"]["tasks"]["Pusher"]["inputs"]["parameters"]
    assert "s3://models/tiny" in json.dumps(inputs["push_destination"])
    assert container["image"] == IMAGE
    executors = job["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert list(executors) == ["Pusher_executor"]
    assert "platforms" not in compiled("kfp")  # gs:// needs no secret
    with pytest.raises(ConfigError, match=r"found AWS_ACCESS_KEY_ID twice.* gets the secret models"):
        compiled(
            *("kfp", "kubeflow.serving=s3://models", "kubeflow.kfp.store.secret=models"),
            "kubeflow.kfp.secrets=[{name: mine, env: {key: AWS_ACCESS_KEY_ID}}]",
        )
