"""Deploys models with TFX's Pusher for Google Cloud, as it is compiled, to an imitation of Vertex's API."""

import json

import pytest
import yaml
from tfx.extensions.google_cloud_ai_platform.pusher import executor
from tfx.types import standard_artifacts
from tfx.utils import io_utils, json_utils, path_utils

from datasets import digest
from pipeline import vertex_endpoint
from pipeline.kubeflow import compiling, submission, vertex_runs
from settings import loading
from settings.base import ConfigError
from tests import vertex_endpoints

SETTINGS = (
    *("name=tiny", "root=gs://bucket/runs", "kubeflow.data_uri=gs://bucket/data", "kubeflow.image=image:1"),
    *("tuner.enabled=false", "kubeflow.vertex={project: p, region: europe-west4}"),
    "pusher.target=vertex_endpoint",
)
PLACE = "projects/p/locations/europe-west4"


@pytest.fixture(scope="module")
def file(tiny_dataset, tmp_path_factory):
    """The pipeline, compiled for Vertex."""
    data_digest = digest.of_directory(tiny_dataset.path)
    compiled = compiling.compile_pipeline(
        loading.load(overrides=SETTINGS), "tiny", tiny_dataset, data_digest, "vertex"
    )
    path = tmp_path_factory.mktemp("compiled") / "pipeline.json"
    path.write_text(compiling.serialize(compiled, "vertex"))
    return path


@pytest.fixture
def push(file, tmp_path, monkeypatch):
    """Runs the executor of the compiled Pusher, with changed settings; returns the PushedModel."""
    copies = []
    # Vertex reads models from gs:// only, where this test cannot write.
    monkeypatch.setattr(io_utils, "copy_dir", lambda src, dst: copies.append((src, dst)))

    def push_(*overrides, blessed=True):
        spec = yaml.safe_load(file.read_text())["pipelineSpec"]
        arguments = spec["deploymentSpec"]["executors"]["Pusher_executor"]["container"]["args"]
        assert arguments[1] == f"{executor.__name__}.Executor"
        given = spec["root"]["dag"]["tasks"]["Pusher"]["inputs"]["parameters"]
        properties = {
            key: value["runtimeValue"]["constantValue"]["stringValue"] for key, value in given.items()
        }
        settings = loading.load(overrides=[*SETTINGS, *overrides])
        custom_config = vertex_endpoint.custom_config(settings.pusher, settings.kubeflow.vertex, "tiny")
        assert overrides or json.loads(properties["custom_config"]) == custom_config
        properties["custom_config"] = json_utils.dumps(custom_config)
        copies.clear()
        inputs = {
            "model_blessing": [standard_artifacts.ModelBlessing()],
            "infra_blessing": [standard_artifacts.InfraBlessing()],
        }
        inputs["model_blessing"][0].set_int_custom_property("blessed", int(blessed))
        # ServingCheck's blessing holds the model.
        inputs["infra_blessing"][0].uri = str(tmp_path)
        inputs["infra_blessing"][0].set_int_custom_property("blessed", 1)
        inputs["infra_blessing"][0].set_int_custom_property("has_model", 1)
        pushed = standard_artifacts.PushedModel()
        pushed.uri = "gs://bucket/runs/pushed/1"
        executor.Executor().Do(inputs, {"pushed_model": [pushed]}, properties)
        model = path_utils.stamped_model_path(str(tmp_path))
        assert copies == ([(model, pushed.uri)] if blessed else [])
        return pushed

    return push_


def test_models_are_deployed_to_one_endpoint_and_the_newest_answers(push):
    with vertex_endpoints.serve() as vertex:
        pushed = push()
        (endpoint,) = vertex.endpoints.values()
        ((name, model),) = vertex.models.items()
        assert vertex.parents == {PLACE}
        assert endpoint.display_name == "tiny"
        assert pushed.get_string_custom_property("pushed_destination") == name
        assert model.artifact_uri == pushed.uri
        assert model.container_spec.image_uri == loading.load().pusher.vertex_endpoint.image
        (deployed,) = endpoint.deployed_models
        resources = deployed.dedicated_resources
        assert (deployed.model, deployed.service_account) == (name, "")
        assert resources.machine_spec.machine_type == "n1-standard-2"
        assert (resources.min_replica_count, resources.max_replica_count) == (1, 1)
        assert endpoint.traffic_split == {"300": 100}

        push()
        assert list(vertex.endpoints.values()) == [endpoint]
        assert endpoint.traffic_split == {"301": 100}
        assert len(endpoint.deployed_models) == len(vertex.models) == 2


def test_settings_of_the_endpoint(push):
    with vertex_endpoints.serve() as vertex:
        push(
            "pusher.vertex_endpoint={name: Photo sorter, image: 'registry/server:1'}",
            "pusher.vertex_endpoint.machine_type=n2-highcpu-8",
            "pusher.vertex_endpoint.min_replicas=2",
            "pusher.vertex_endpoint.max_replicas=5",
            "kubeflow.vertex.service_account=s@p.iam.gserviceaccount.com",
        )
        (endpoint,) = vertex.endpoints.values()
        (model,) = vertex.models.values()
        (deployed,) = endpoint.deployed_models
        assert endpoint.display_name == "Photo sorter"
        assert model.container_spec.image_uri == "registry/server:1"
        resources = deployed.dedicated_resources
        assert resources.machine_spec.machine_type == "n2-highcpu-8"
        assert (resources.min_replica_count, resources.max_replica_count) == (2, 5)
        assert deployed.service_account == "s@p.iam.gserviceaccount.com"


def test_a_model_that_waits_gets_no_traffic_unless_it_is_the_first(push):
    with vertex_endpoints.serve() as vertex:
        push("pusher.promote=manual")
        push("pusher.promote=manual")
        (endpoint,) = vertex.endpoints.values()
        assert endpoint.traffic_split == {"300": 100, "301": 0}


def test_a_model_that_is_not_blessed_is_not_deployed(push):
    with vertex_endpoints.serve() as vertex:
        pushed = push(blessed=False)
        assert pushed.get_int_custom_property("pushed") == 0
        assert not vertex.models


def test_a_run_has_to_be_where_its_endpoint_is(file):
    for override in ("kubeflow.vertex.project=q", "kubeflow.vertex.region=us-central1"):
        key, _, found = override.partition("=")
        settings = loading.load(overrides=["kubeflow.vertex={project: p, region: europe-west4}", override])
        request = submission.read(file, "vertex", settings)
        with pytest.raises(ConfigError, match=rf"{key}: expected .* endpoint was compiled, found {found}"):
            vertex_runs.submit(request, settings.kubeflow.vertex)


def test_another_root_changes_nothing_of_the_pusher(file):
    settings = loading.load(overrides=["root=gs://other/runs"])
    assert "serving_uri" not in submission.read(file, "vertex", settings).parameters
    assert "serving_uri" not in json.dumps(yaml.safe_load(file.read_text()))
