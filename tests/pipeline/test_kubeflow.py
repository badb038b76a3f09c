import json

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline import config, kubeflow

IMAGE = "registry/pipeline:1"


@pytest.fixture
def compiled(tiny_dataset):
    def compile_pipeline(target, *overrides):
        settings = config.load(overrides=["root=gs://bucket/runs", f"kubeflow.image={IMAGE}", *overrides])
        return kubeflow.compile_pipeline(settings, "tiny", tiny_dataset, target)

    return compile_pipeline


def _spec(made):
    return made.get("pipelineSpec", made)


def _container(made, step):
    return _spec(made)["deploymentSpec"]["executors"][f"{step}_executor"]["container"]


def _tasks(made):
    return set(_spec(made)["root"]["dag"]["tasks"])


STEPS = set(config.components(config.load())) - {"Baseline"}


def test_each_target_gets_its_schema_and_its_root(compiled):
    vertex, kfp = compiled("vertex"), compiled("kfp")
    assert vertex["pipelineSpec"]["schemaVersion"] == "2.0.0"
    assert vertex["runtimeConfig"]["gcsOutputDirectory"] == "gs://bucket/runs/pipelines/tiny"
    assert kfp["schemaVersion"] == "2.1.0"
    assert kfp["defaultPipelineRoot"] == "gs://bucket/runs/pipelines/tiny"
    assert json.loads(kubeflow.serialize(vertex, "vertex")) == vertex
    assert yaml.safe_load(kubeflow.serialize(kfp, "kfp")) == kfp


def test_vertex_searches_the_baseline_and_kubeflow_has_none_unless_it_is_given(compiled):
    resolvers = {"Baseline-model-blessing-resolver", "Baseline-model-resolver"}
    assert _tasks(compiled("vertex")) == STEPS | resolvers
    assert _tasks(compiled("kfp")) == STEPS
    for target in ("vertex", "kfp"):
        made = compiled(target, "kubeflow.baseline_model=gs://bucket/model")
        assert _tasks(made) == STEPS | {"Baseline"}
        executor = _spec(made)["deploymentSpec"]["executors"]["Baseline_executor"]
        assert "gs://bucket/model" in json.dumps(executor["importer"]["artifactUri"])


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_every_step_gets_its_image_and_its_resources(compiled, target):
    made = compiled(
        target,
        "kubeflow.steps.Trainer={cpu: 8, memory_gb: 30.5, accelerator: NVIDIA_TESLA_T4, image: gpu:2}",
        "kubeflow.steps.ImportExampleGen.memory_gb=4",
    )
    for step in STEPS - {"Trainer", "ImportExampleGen"}:
        assert _container(made, step)["image"] == IMAGE
        assert "resources" not in _container(made, step)
    assert _container(made, "ImportExampleGen")["image"] == IMAGE
    assert _container(made, "ImportExampleGen")["resources"] == {"memoryLimit": 4.0}
    assert _container(made, "Trainer")["image"] == "gpu:2"
    assert _container(made, "Trainer")["resources"] == {
        "cpuLimit": 8.0,
        "memoryLimit": 30.5,
        "accelerator": {"type": "NVIDIA_TESLA_T4", "count": "1"},
    }


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_the_steps_start_where_what_tfx_cannot_do_is_done(compiled, target):
    made = compiled(target)
    commands = {tuple(_container(made, step)["command"]) for step in STEPS}
    assert commands == {("python", "-m", "pipeline.container_entrypoint")}


def _parameters(made):
    """The declared runtime parameters with type and default, and the steps that get each of them."""
    spec = _spec(made)
    declared = spec["root"]["inputDefinitions"]["parameters"]
    values = made.get("runtimeConfig", {}).get("parameters", {})
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
    overrides = ("kubeflow.data_uri=gs://bucket/data", "trainer.epochs=3", "trainer.learning_rate=2e-3")
    tuned = {
        "data_uri": (string, "gs://bucket/data", {"ImportExampleGen", "ImportSchemaGen"}),
        "serving_uri": (string, "gs://bucket/runs/serving/tiny", {"Pusher"}),
        "epochs": (integer, 3, {"Trainer", "ModelReport"}),
    }
    assert _parameters(compiled(target, *overrides)) == tuned
    # What the Tuner chooses cannot be set.
    assert _parameters(compiled(target, *overrides, "tuner.enabled=false")) == {
        **tuned,
        "learning_rate": (double, 2e-3, {"Trainer", "ModelReport"}),
        "batch_size": (integer, 128, {"Trainer", "ModelReport"}),
    }


def test_both_back_ends_can_read_what_is_declared(compiled):
    for target, message in (
        ("vertex", pipeline_spec_pb2.PipelineJob()),
        ("kfp", pipeline_spec_pb2.PipelineSpec()),
    ):
        made = compiled(target)
        json_format.ParseDict(made, message)
        json_format.ParseDict(_spec(made), pipeline_spec_pb2.PipelineSpec())


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_the_cache_can_be_switched_off(compiled, target):
    for cache in (True, False):
        tasks = _spec(compiled(target, f"kubeflow.cache={json.dumps(cache)}"))["root"]["dag"]["tasks"]
        enabled = {
            task.get("cachingOptions", {}).get("enableCache", False)
            for n, task in tasks.items()
            if n in STEPS
        }
        assert enabled == {cache}


def test_the_steps_read_the_data_where_they_find_it_and_nothing_tells_of_this_machine(compiled, tiny_dataset):
    made = compiled("vertex", "kubeflow.data_uri=gs://bucket/data")
    assert _parameters(made)["data_uri"][1:] == ("gs://bucket/data", {"ImportExampleGen", "ImportSchemaGen"})
    parameters = _spec(made)["root"]["dag"]["tasks"]["ImportSchemaGen"]["inputs"]["parameters"]
    assert parameters["schema_file"]["runtimeValue"]["constantValue"]["stringValue"] == (
        "gs://bucket/data/schema.pbtxt"
    )
    assert str(tiny_dataset.path) not in json.dumps(made)
