import json

import pytest
import yaml

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


def test_the_steps_of_kubeflow_start_where_missing_types_are_filled_in(compiled):
    commands = {
        target: {tuple(_container(compiled(target), step)["command"]) for step in STEPS}
        for target in ("vertex", "kfp")
    }
    tfx = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"
    assert commands == {
        "vertex": {("python", "-m", tfx)},
        "kfp": {("python", "-m", "pipeline.container_entrypoint")},
    }


def test_the_steps_read_the_data_where_they_find_it_and_nothing_tells_of_this_machine(compiled, tiny_dataset):
    made = compiled("vertex", "kubeflow.data_uri=gs://bucket/data")
    parameters = _spec(made)["root"]["dag"]["tasks"]["ImportSchemaGen"]["inputs"]["parameters"]
    assert parameters["schema_file"]["runtimeValue"]["constantValue"]["stringValue"] == (
        "gs://bucket/data/schema.pbtxt"
    )
    assert str(tiny_dataset.path) not in json.dumps(made)


def test_a_trainer_with_workers_is_a_custom_job_with_a_chief_and_the_others(compiled):
    made = compiled(
        "vertex",
        "kubeflow.vertex={project: p, region: europe-west4, service_account: me@p, network: n}",
        "kubeflow.vertex.encryption_key=key",
        "kubeflow.steps.Trainer={machine_type: n1-standard-8, workers: 4, accelerator: NVIDIA_TESLA_T4, "
        "accelerator_count: 2, image: gpu:2}",
    )
    container = _container(made, "Trainer")
    assert "resources" not in container  # of what only waits
    assert container["image"] == IMAGE
    assert "tfx.extensions.google_cloud_ai_platform.trainer.executor.GenericExecutor" in container["args"]
    parameters = _spec(made)["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
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


def test_a_trainer_with_a_machine_type_alone_is_a_custom_job_of_one(compiled):
    made = compiled(
        "vertex",
        "kubeflow.vertex={project: p, region: r}",
        "kubeflow.steps.Trainer.machine_type=n1-standard-8",
    )
    parameters = _spec(made)["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
    found = json.loads(parameters["custom_config"]["runtimeValue"]["constantValue"]["stringValue"])
    assert found["ai_platform_training_args"]["job_spec"]["worker_pool_specs"] == [
        {
            "machine_spec": {"machine_type": "n1-standard-8"},
            "replica_count": 1,
            "container_spec": {"image_uri": IMAGE},
        }
    ]
