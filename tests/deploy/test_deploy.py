"""The files of deploy/ are valid, and agree with each other and with what the Pusher writes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from settings import loading
from settings.base import ConfigError

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUBERNETES = "1.34"

# Fields of an InferenceService that are not those of a pod, from the documentation of KServe's API:
# https://kserve.github.io/website/docs/reference/crd-api#predictorspec
PREDICTOR = {
    "canaryTrafficPercent": {"type": "integer", "minimum": 0, "maximum": 100},
    "minReplicas": {"type": "integer", "minimum": 0},
    "maxReplicas": {"type": "integer", "minimum": 1},
}
SERVICE = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "serving.kserve.io/v1beta1"},
        "kind": {"const": "InferenceService"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["predictor"],
            "additionalProperties": False,
            "properties": {
                "predictor": {"type": "object", "required": ["containers"], "properties": PREDICTOR}
            },
        },
    },
}


def _documents(path):
    return list(yaml.safe_load_all((DEPLOY / path).read_text()))


def _container(service):
    (container,) = service["spec"]["predictor"]["containers"]
    return container


def _variables(container):
    return {entry["name"]: entry["value"] for entry in container["env"]}


@pytest.fixture
def services():
    return [_documents(f"kserve/{name}.yaml")[0] for name in ("inference_service", "canary")]


def test_kubernetes_takes_the_secret_and_the_account():
    secret, account = _documents("kserve/s3.yaml")
    for document in (secret, account):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    assert account["secrets"] == [{"name": secret["metadata"]["name"]}]


def test_kserve_takes_the_services(services):
    """Checks KServe's own fields by its documentation, and the others as those of a pod."""
    for service in services:
        jsonschema.validate(service, SERVICE)
        pod = {key: value for key, value in service["spec"]["predictor"].items() if key not in PREDICTOR}
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": service["metadata"], "spec": pod},
            KUBERNETES,
            strict=True,
        )


def test_the_canary_differs_in_its_version_and_share_only(services):
    stable, canary = services
    assert canary["spec"]["predictor"].pop("canaryTrafficPercent") == 10
    versions = [_variables(_container(service))["VERSION"] for service in services]
    assert int(versions[0]) < int(versions[1])
    for service, version in zip(services, versions, strict=True):
        assert _variables(_container(service))["STORAGE_URI"].endswith(f"/cifar10/{version}")
    assert yaml.safe_dump(stable).replace(versions[0], versions[1]) == yaml.safe_dump(canary)
    _, account = _documents("kserve/s3.yaml")
    assert stable["spec"]["predictor"]["serviceAccountName"] == account["metadata"]["name"]


def test_the_container_starts_tf_serving_with_a_folder_of_the_version(services, tmp_path):
    """Runs the command of the container, with another program in the place of TF Serving."""
    container = _container(services[0])
    program = tmp_path / "tensorflow_model_server"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/saved_model.pb").touch()
    (script,) = container["args"]
    script = script.replace("/mnt/models", f"{tmp_path}/model").replace("/tmp/cifar10", f"{tmp_path}/cifar10")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **_variables(container)}
    started = subprocess.run(
        [*container["command"], script], env=environment, capture_output=True, text=True, check=True
    )
    flags = dict(flag.removeprefix("--").split("=") for flag in started.stdout.split())
    assert flags["rest_api_port"] == str(container["ports"][0]["containerPort"])
    assert flags["model_name"] == "cifar10"
    (version,) = Path(flags["model_base_path"]).iterdir()
    assert version.name == environment["VERSION"]
    assert (version / "saved_model.pb").is_file()


def test_compose_takes_its_file():
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
            str(DEPLOY / "tf_serving/compose.yaml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", ["models.config", "pinned.config"])
def test_tf_serving_takes_its_configurations(name):
    text = (DEPLOY / "tf_serving" / name).read_text()
    (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert model.base_path == f"/models/{model.name}"
    if name == "pinned.config":
        assert set(model.version_labels) == {"stable", "canary"}
        assert set(model.version_labels.values()) == set(model.model_version_policy.specific.versions)


def test_the_files_of_compose_are_where_it_mounts_them():
    (service,) = _documents("tf_serving/compose.yaml")[0]["services"].values()
    flags = dict(flag.removeprefix("--").split("=") for flag in service["command"])
    folder = DEPLOY / "tf_serving"
    models, config = (volume.rpartition(":")[0].rpartition(":") for volume in service["volumes"])
    assert (folder / config[0] / Path(flags["model_config_file"]).relative_to(config[2])).is_file()
    default = re.fullmatch(r"\$\{MODELS:-(.*)\}", models[0])[1]
    assert (folder / default).resolve() == DEPLOY.parent / "runs/serving"
    assert models[2] == "/models"


def test_images_have_a_version(services):
    compose = _documents("tf_serving/compose.yaml")[0]["services"].values()
    images = [service["image"] for service in compose] + [_container(s)["image"] for s in services]
    assert len(set(images)) == 1
    assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", images[0])


def test_the_preset_of_the_endpoint_is_valid():
    with pytest.raises(
        ConfigError, match="expected the id of a project, such as `my-project`; found 'PROJECT'"
    ):
        loading.load([DEPLOY / "vertex/endpoint.yaml"])
    settings = loading.load([DEPLOY / "vertex/endpoint.yaml"], ["kubeflow.vertex.project=my-project"])
    settings.pusher.check_target("vertex", settings.kubeflow.vertex)
    assert settings.pusher.target == "vertex_endpoint"
