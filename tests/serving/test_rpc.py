"""TensorFlow Serving's gRPC API, by a client that uses its published messages."""

import contextlib
import re
import socket
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from typer.testing import CliRunner

from serving import server
from tests.serving import samples

MAX_BODY = 100_000
DARK, BRIGHT = samples.picture(0), samples.picture(255)


@pytest.fixture(scope="module")
def client(saved, tmp_path_factory):
    """Both services of a server of version 7 of model m, and a client of its HTTP interfaces."""
    root = tmp_path_factory.mktemp("models")
    samples.push(saved[1], root / "m", 7)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        samples.serve(root, grpc_address=address, max_body=MAX_BODY) as served,
        contextlib.closing(grpc.insecure_channel(address)) as channel,
    ):
        yield SimpleNamespace(
            address=address,
            http=served.http,
            models=model_service_pb2_grpc.ModelServiceStub(channel),
            predictions=prediction_service_pb2_grpc.PredictionServiceStub(channel),
        )


def request(signature="serve_image_bytes", name="m", **inputs):
    made = predict_pb2.PredictRequest()
    made.model_spec.name = name
    made.model_spec.signature_name = signature
    for key, value in inputs.items():
        made.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return made


def error_of(call, message):
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=10)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        ("serve_image_bytes", {"image_bytes": [DARK, BRIGHT]}),
        ("", {"examples": [samples.example(DARK), samples.example(BRIGHT)]}),
        ("serve_images", {"images": np.stack([np.full((2, 2, 3), value, np.uint8) for value in (0, 255)])}),
    ],
)
def test_predictions_of_each_signature(client, signature, inputs):
    answer = client.predictions.Predict(request(signature, **inputs), timeout=10)
    outputs = {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}
    assert outputs["class_name"].tolist() == [b"dark", b"bright"]
    assert outputs["class_id"].dtype == np.int64
    np.testing.assert_allclose(outputs["probabilities"], [[1, 0], [0, 1]], atol=1e-6)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("m", 7)
    assert answer.model_spec.signature_name == (signature or "serving_default")


def test_chosen_outputs_of_a_chosen_version(client):
    asked = request(image_bytes=[BRIGHT])
    asked.model_spec.version.value = 7
    asked.output_filter.append("class_id")
    answer = client.predictions.Predict(asked, timeout=10)
    assert {name: tf.make_ndarray(tensor).tolist() for name, tensor in answer.outputs.items()} == {
        "class_id": [1]
    }


def test_requests_are_measured(client):
    client.predictions.Predict(request(image_bytes=[BRIGHT]), timeout=10)
    error_of(client.predictions.Predict, request(image_bytes=[b"no image"]))
    metrics = client.http.get("/metrics").text
    for code in ("200", "400"):
        assert f'serving_requests_total{{code="{code}",model="m",version="7"}}' in metrics


def vast(count):
    """Returns a request whose message holds one value, for a tensor of `count` rows of 10x10 pixels."""
    made = request("serve_images", images=np.zeros((1, 1, 1, 3), np.uint8))
    tensor = made.inputs["images"]
    tensor.CopyFrom(tf.make_tensor_proto(7, tf.uint8))
    for size in (count, 10, 10, 3):
        tensor.tensor_shape.dim.add(size=size)
    return made


def versioned(number=None, label=None, **fields):
    made = request(image_bytes=[DARK], **fields)
    if number is not None:
        made.model_spec.version.value = number
    if label is not None:
        made.model_spec.version_label = label
    return made


def filtered(name):
    made = request(image_bytes=[DARK])
    made.output_filter.append(name)
    return made


INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        (request(name="other", image_bytes=[DARK]), NOT_FOUND, "other"),
        (versioned(8), NOT_FOUND, "Specific(m, 8)"),
        (versioned(label="canary"), NOT_FOUND, "canary"),
        (request("none", image_bytes=[DARK]), INVALID, "expected one of serve_image_bytes, serve_images"),
        (request(images=[DARK]), INVALID, "expected the inputs image_bytes, found images"),
        (request(image_bytes=[1.5]), INVALID, "expected the type string"),
        (request(image_bytes=[[DARK]]), INVALID, "expected the shape [any]"),
        (request(image_bytes=np.array([], object)), INVALID, "at least one element"),
        (request(image_bytes=[b"no image"]), INVALID, "Unknown image file format"),
        (request("", examples=[DARK]), INVALID, "use the signature serve_image_bytes"),
        (filtered("none"), INVALID, "unknown output 'none'"),
        (vast(10**9), INVALID, "expected at most 100,000 bytes"),
        (vast(-1), INVALID, "expected at most 100,000 bytes"),
        (request(image_bytes=[b"x" * MAX_BODY]), grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
    ],
)
def test_a_request_that_cannot_be_answered(client, asked, code, message):
    found = error_of(client.predictions.Predict, asked)
    assert found[0] == code
    assert message in found[1]


def test_one_value_stands_for_a_whole_tensor(client):
    answer = client.predictions.Predict(vast(2), timeout=10)
    np.testing.assert_allclose(
        tf.make_ndarray(answer.outputs["probabilities"])[:, 1], [7 / 255] * 2, atol=1e-6
    )


def test_the_signatures_of_a_model(client):
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "m"
    answer = client.predictions.GetModelMetadata(asked, timeout=10)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    tensor = signatures.signature_def["serve_image_bytes"].inputs["image_bytes"]
    assert tensor.dtype == tf.string.as_datatype_enum
    assert [dimension.size for dimension in tensor.tensor_shape.dim] == [-1]
    asked.metadata_field.append("other")
    assert error_of(client.predictions.GetModelMetadata, asked)[0] == INVALID


def test_the_state_of_the_versions(client):
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "m"
    for label in ("", "stable"):
        if label:
            asked.model_spec.version_label = label
        (status,) = client.models.GetModelStatus(asked, timeout=10).model_version_status
        assert (status.version, status.state) == (7, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    asked.model_spec.name = "other"
    assert error_of(client.models.GetModelStatus, asked)[0] == NOT_FOUND


def test_the_examples_of_the_documentation(client, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text(encoding="utf-8")
    examples = re.findall(
        r"```python\n(.*?)```", text.partition("### V2 and gRPC")[2].partition("\n### ")[0], re.S
    )
    monkeypatch.chdir(tmp_path)
    Path("frog.png").write_bytes(BRIGHT)
    places = {
        "http://localhost:8501": str(client.http.base_url),
        "localhost:8500": client.address,
        "cifar10": "m",
    }
    for written, used in places.items():
        examples = [example.replace(written, used) for example in examples]
    for example in examples:
        exec(example, {})
    assert capsys.readouterr().out == "['bright']\nbright\n"


def test_other_methods_are_not_implemented(client, caplog):
    for method, asked in (
        (client.predictions.Classify, classification_pb2.ClassificationRequest()),
        (client.models.HandleReloadConfigRequest, model_management_pb2.ReloadConfigRequest()),
    ):
        assert error_of(method, asked)[0] == grpc.StatusCode.UNIMPLEMENTED
    assert not caplog.records


def test_a_port_that_is_taken(client, tmp_path):
    port = client.address.rpartition(":")[2]
    result = CliRunner().invoke(server.app, ["--models", str(tmp_path), "--grpc-port", port])
    assert result.exit_code == 1
    assert f"gRPC cannot listen on 127.0.0.1:{port}: Address already in use" in result.output
