"""Requests of the Open Inference Protocol (V2), with JSON and with binary tensors."""

import json
import struct

import numpy as np
import pytest

from tests.serving import samples

DARK, BRIGHT = samples.picture(0), samples.picture(255)
IMAGES = np.stack([np.zeros((2, 3, 3), np.uint8), np.full((2, 3, 3), 255, np.uint8)])
LENGTH = "Inference-Header-Content-Length"


def tensor(**other):
    return {"name": "images", "shape": list(IMAGES.shape), "datatype": "UINT8", **other}


def infer(served, request, blobs=b"", path="m", headers=None):
    header = json.dumps(request).encode()
    return served.http.post(
        f"/v2/models/{path}/infer",
        content=header + blobs,
        headers={LENGTH: str(len(header))} if headers is None and blobs else headers or {},
    )


def outputs(answer):
    """Returns name -> (datatype, shape, values) of an answer, from its JSON and its binary tensors."""
    assert answer.status_code == 200, answer.text
    body = answer.content
    end = int(answer.headers.get(LENGTH, len(body)))
    head, rest, found = json.loads(body[:end]), body[end:], {}
    for each in head["outputs"]:
        values = each.get("data")
        if values is None:
            size = each["parameters"]["binary_data_size"]
            blob, rest = rest[:size], rest[size:]
            if each["datatype"] == "BYTES":
                values = []
                while blob:
                    (length,) = struct.unpack_from("<I", blob)
                    values.append(blob[4 : 4 + length].decode())
                    blob = blob[4 + length :]
            else:
                kinds = {"FP32": "<f4", "INT64": "<i8"}
                values = np.frombuffer(blob, kinds[each["datatype"]]).tolist()
        found[each["name"]] = (each["datatype"], each["shape"], values)
    assert not rest
    return found


EXPECTED = {
    "probabilities": ("FP32", [2, 2], [1, 0, 0, 1]),
    "class_id": ("INT64", [2], [0, 1]),
    "class_name": ("BYTES", [2], ["dark", "bright"]),
    "tag": ("INT64", [2], [1, 1]),
}


@pytest.mark.parametrize("path", ["m", "m/versions/1"])
@pytest.mark.parametrize("flat", [True, False])
def test_json(served, path, flat):
    data = IMAGES.ravel().tolist() if flat else IMAGES.tolist()
    answer = infer(served, {"id": "7", "inputs": [tensor(data=data)]}, path=path)
    assert outputs(answer) == EXPECTED
    head = answer.json()
    assert (head["id"], head["model_name"], head["model_version"]) == ("7", "m", "1")
    assert answer.headers["content-type"] == "application/json"


def test_binary_tensors_both_ways(served):
    blob = IMAGES.tobytes()
    sent = tensor(parameters={"binary_data_size": len(blob)})
    answer = infer(served, {"inputs": [sent], "parameters": {"binary_data_output": True}}, blob)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert outputs(answer) == EXPECTED
    # Asked for output by output.
    wanted = [{"name": "class_id"}, {"name": "class_name", "parameters": {"binary_data": True}}]
    answer = infer(served, {"inputs": [sent], "outputs": wanted}, blob)
    assert outputs(answer) == {name: EXPECTED[name] for name in ("class_id", "class_name")}
    assert json.loads(answer.content[: int(answer.headers[LENGTH])])["outputs"][0]["data"] == [0, 1]
    wanted[1]["parameters"]["binary_data"] = False
    body = {"inputs": [sent], "outputs": wanted, "parameters": {"binary_data_output": True}}
    answer = infer(served, body, blob)
    assert outputs(answer) == {name: EXPECTED[name] for name in ("class_id", "class_name")}


def test_binary_images(served):
    blob = b"".join(struct.pack("<I", len(image)) + image for image in (DARK, BRIGHT))
    sent = {"name": "image_bytes", "shape": [2], "datatype": "BYTES"}
    answer = infer(served, {"inputs": [sent | {"parameters": {"binary_data_size": len(blob)}}]}, blob)
    assert outputs(answer) == EXPECTED


def test_the_signature_can_be_named(served):
    request = {
        "inputs": [tensor(data=IMAGES.ravel().tolist())],
        "parameters": {"signature_name": "serve_images"},
    }
    assert outputs(infer(served, request)) == EXPECTED
    request["parameters"]["signature_name"] = "serve_image_bytes"
    answer = infer(served, request)
    assert answer.status_code == 400
    assert "expected image_bytes for serve_image_bytes" in answer.json()["error"]


def test_questions(served):
    http = served.http
    assert http.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    for path in ("m", "m/versions/1"):
        assert http.get(f"/v2/models/{path}/ready").json() == {"name": "m", "version": "1", "ready": True}
        found = http.get(f"/v2/models/{path}").json()
        assert (found["name"], found["versions"]) == ("m", ["1"])
        assert found["inputs"] == [{"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}]
        shapes = {each["name"]: (each["datatype"], each["shape"]) for each in found["outputs"]}
        assert shapes["probabilities"] == ("FP32", [-1, 2])
    for path in ("no", "m/versions/9", "m/versions/x"):
        for end in ("", "/ready"):
            answer = http.get(f"/v2/models/{path}{end}")
            assert (answer.status_code, list(answer.json())) == (404, ["error"])


PIXELS = IMAGES.ravel().tolist()
BLOB = IMAGES.tobytes()


@pytest.mark.parametrize(
    ("request_", "blobs", "message"),
    [
        ([], b"", "a list of `inputs`"),
        ({}, b"", "a list of `inputs`"),
        ({"inputs": [1]}, b"", "a list of objects"),
        ({"inputs": [{}]}, b"", "different names"),
        ({"inputs": [tensor(data=PIXELS), tensor(data=PIXELS)]}, b"", "different names"),
        ({"inputs": [tensor(name="x", data=PIXELS)]}, b"", "found x; expected"),
        ({"inputs": [tensor(datatype="FP32", data=PIXELS)]}, b"", "the datatype UINT8"),
        ({"inputs": [tensor(datatype=[], data=PIXELS)]}, b"", "the datatype UINT8"),
        ({"inputs": [tensor(shape="x", data=PIXELS)]}, b"", "expected 4 sizes"),
        ({"inputs": [tensor(shape=[1] * 100, data=[1])]}, b"", "expected 4 sizes"),
        ({"inputs": [tensor(shape=[2, 2, 3, -3], data=PIXELS)]}, b"", "expected 4 sizes"),
        ({"inputs": [tensor(shape=[2, 2, 3, 4], data=PIXELS)]}, b"", "do not have the shape"),
        ({"inputs": [tensor(shape=[2**30] * 4, data=PIXELS)]}, b"", "do not have the shape"),
        ({"inputs": [tensor(shape=[2, 3, 6, 1], data=PIXELS)]}, b"", "the shape [any, any, any, 3]"),
        ({"inputs": [tensor(shape=[0, 2, 3, 3], data=[])]}, b"", "at least one element"),
        ({"inputs": [tensor(data=[256] * 36)]}, b"", "uint8"),
        ({"inputs": [tensor()]}, b"", "expected a list"),
        ({"inputs": [tensor(data=json.loads("[" * 900 + "]" * 900))]}, b"", ""),
        ({"inputs": [tensor(data=PIXELS)]}, b"x", "1 bytes behind"),
        ({"inputs": [tensor(parameters={"binary_data_size": 99})]}, BLOB, "99 binary bytes, found 36"),
        ({"inputs": [tensor(parameters={"binary_data_size": "x"})]}, BLOB, "binary bytes"),
        ({"inputs": [tensor(data=PIXELS)], "outputs": [{"name": "x"}]}, b"", "unknown output 'x'"),
        ({"inputs": [tensor(data=PIXELS)], "outputs": [{"name": ["x"]}]}, b"", "unknown output"),
        ({"inputs": [tensor(data=PIXELS)], "outputs": 5}, b"", "a list of objects"),
        ({"inputs": [tensor(data=PIXELS)], "parameters": {"signature_name": 5}}, b"", "expected a text"),
    ],
)
def test_errors(served, request_, blobs, message):
    answer = infer(served, request_, blobs)
    assert (answer.status_code, list(answer.json())) == (400, ["error"]), answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "99999", "5"])
def test_errors_of_the_length(served, length):
    answer = infer(served, {"inputs": [tensor(data=PIXELS)]}, headers={LENGTH: length})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_binary_text_that_ends_too_early(served):
    for blob in (b"\x05\0\0\0abc", b"\x05\0"):
        sent = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
        answer = infer(served, {"inputs": [sent | {"parameters": {"binary_data_size": len(blob)}}]}, blob)
        assert answer.status_code == 400
        assert "ends in the middle" in answer.json()["error"]
