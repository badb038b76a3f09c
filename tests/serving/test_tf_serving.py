"""Requests as the page on TensorFlow Serving's REST API describes them, and the answers that it promises."""

import base64
import json
import shutil

import numpy as np
import pytest
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving import routing
from tests.serving import samples

DARK, BRIGHT = samples.picture(0), samples.picture(255)
BYTES = "serve_image_bytes"


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def post(served, path, body):
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return served.http.post(f"/v1/models/{path}", content=content)


def names(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return [row["class_name"] for row in answer.json()["predictions"]]


def test_rows_of_the_only_input_need_no_name(served):
    body = {"signature_name": BYTES, "instances": [b64(BRIGHT), b64(DARK), b64(BRIGHT)]}
    answer = post(served, "m:predict", body)
    assert names(answer) == ["bright", "dark", "bright"]
    first = answer.json()["predictions"][0]
    assert first == {"probabilities": [0, 1], "class_id": 1, "class_name": "bright", "tag": 1}


def test_rows_may_name_the_input(served):
    body = {"signature_name": BYTES, "instances": [{"image_bytes": b64(DARK)}, {"image_bytes": b64(BRIGHT)}]}
    assert names(post(served, "m:predict", body)) == ["dark", "bright"]


@pytest.mark.parametrize("named", [True, False])
def test_columns_are_answered_with_columns(served, named):
    values = [b64(DARK), b64(BRIGHT)]
    body = {"signature_name": BYTES, "inputs": {"image_bytes": values} if named else values}
    answer = post(served, "m:predict", body).json()
    assert answer == {
        "outputs": {
            "probabilities": [[1, 0], [0, 1]],
            "class_id": [0, 1],
            "class_name": ["dark", "bright"],
            "tag": [1, 1],
        }
    }


def test_numbers_are_nested_lists(served):
    images = np.stack([np.zeros((2, 3, 3), int), np.full((2, 3, 3), 255)]).tolist()
    body = {"signature_name": "serve_images", "instances": images}
    assert names(post(served, "m:predict", body)) == ["dark", "bright"]


def test_the_default_signature_takes_examples(served):
    body = {"instances": [b64(samples.example(BRIGHT))]}
    assert names(post(served, "m:predict", body)) == ["bright"]
    assert names(post(served, "m:predict", body | {"signature_name": ""})) == ["bright"]


@pytest.mark.parametrize("path", ["m", "m/versions/1", "m/labels/stable"])
def test_versions_and_labels(served, path):
    body = {"signature_name": BYTES, "instances": [b64(BRIGHT)]}
    assert names(post(served, f"{path}:predict", body)) == ["bright"]
    assert post(served, f"{path}:classify", {"examples": [{"image": b64(DARK)}]}).status_code == 200
    assert served.http.get(f"/v1/models/{path}/metadata").json()["model_spec"]["version"] == "1"
    assert served.states() == {1: "AVAILABLE"}


def test_classify_takes_features_and_a_context(served):
    expected = {"results": [[["dark", 1.0], ["bright", 0.0]], [["dark", 0.0], ["bright", 1.0]]]}
    examples = [{"image": b64(DARK), "caption": "night", "n": [1, 2]}, {"image": [b64(BRIGHT)], "x": 0.5}]
    assert post(served, "m:classify", {"examples": examples}).json() == expected
    shared = {"context": {"image": b64(DARK)}, "examples": [{"a": 1}]}
    assert post(served, "m:classify", shared).json() == {"results": expected["results"][:1]}


def test_status_is_a_message_of_tensorflow_serving(served):
    answer = served.http.get("/v1/models/m")
    assert answer.json() == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    message = json_format.Parse(answer.text, get_model_status_pb2.GetModelStatusResponse())
    assert message.model_version_status[0].version == 1
    assert served.http.get("/v1/models/m/versions/1").json() == answer.json()
    assert served.http.get("/v1/models/m/labels/stable").json() == answer.json()


def test_metadata_is_a_message_of_tensorflow_serving(served):
    answer = served.http.get("/v1/models/m/metadata").json()
    assert answer["model_spec"] == {"name": "m", "signature_name": "", "version": "1"}
    signatures = json_format.ParseDict(
        answer["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
    ).signature_def
    assert set(signatures) == {"serving_default", BYTES, "serve_images"}
    images = signatures["serve_images"].inputs["images"]
    assert images.dtype == 4  # DT_UINT8
    assert [dim.size for dim in images.tensor_shape.dim] == [-1, -1, -1, 3]
    assert [dim.size for dim in signatures[BYTES].outputs["probabilities"].tensor_shape.dim] == [-1, 2]
    assert signatures[BYTES].method_name == "tensorflow/serving/predict"


ROW = {"signature_name": BYTES, "instances": [b64(DARK)]}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("half:predict", ROW, 404, "Servable not found for request: Latest(half)"),
        ("m/versions/7:predict", ROW, 404, "Servable not found for request: Specific(m, 7)"),
        ("m/versions/x:predict", ROW, 404, "Could not find version"),
        ("m/labels/canary:predict", ROW, 404, "Unrecognized servable version label: canary"),
        ("m:predict", "{", 400, "JSON Parse error"),
        ("m:predict", "", 400, "JSON Parse error"),
        ("m:predict", b'{"instances": ["\xff"]}', 400, "JSON Parse error"),
        ("m:predict", "[" * 100_000, 400, "JSON Parse error"),
        ("m:predict", [], 400, "expected a JSON object"),
        ("m:predict", {}, 400, "either `instances` or `inputs`"),
        ("m:predict", {"instances": [1], "inputs": [1]}, 400, "either `instances` or `inputs`"),
        ("m:predict", ROW | {"signature_name": "no"}, 400, "'no' not found in signature def"),
        ("m:predict", ROW | {"signature_name": 3}, 400, "signature_name: expected a text"),
        ("m:predict", ROW | {"instances": []}, 400, "at least one element"),
        ("m:predict", ROW | {"instances": {}}, 400, "expected a list"),
        ("m:predict", ROW | {"instances": [{"b64": "?"}]}, 400, '"b64" is not base64'),
        ("m:predict", ROW | {"instances": [{"b64": "AAAA", "x": 1}]}, 400, "the keys image_bytes"),
        ("m:predict", ROW | {"instances": [7]}, 400, "expected texts"),
        ("m:predict", ROW | {"instances": [["a"], "b"]}, 400, "expected texts"),
        ("m:predict", ROW | {"instances": [b64(DARK), b64(b"no image")]}, 400, ""),
        ("m:predict", ROW | {"instances": json.loads("[" * 900 + "]" * 900)}, 400, "expected"),
        ("m:predict", {"signature_name": "serve_images", "instances": [[[[1, 2]]]]}, 400, "the shape"),
        ("m:predict", {"signature_name": "serve_images", "instances": [[[[1, 2, 256]]]]}, 400, "uint8"),
        ("m:predict", {"signature_name": "serve_images", "instances": [[[[1, 2, 0.5]]]]}, 400, "uint8"),
        ("m:predict", {"signature_name": "serve_images", "instances": [[[[1, 2, "3"]]]]}, 400, "uint8"),
        ("m:predict", {"signature_name": "serve_images", "instances": [[[[1, 2, 3]], []]]}, 400, "one shape"),
        ("m:predict", {"signature_name": "serve_images", "inputs": {"x": [1]}}, 400, "the keys images"),
        ("m:predict", {"inputs": json.loads("[" * 900 + "]" * 900)}, 400, "expected"),
        ("m:predict", {"instances": [b64(DARK)]}, 400, "use the signature serve_image_bytes"),
        (
            "m:predict",
            {"instances": [b64(samples.example(DARK)), b64(b"\x0c")]},
            400,
            "element 2 of 2: expected a serialized tf.train.Example",
        ),
        ("m:classify", {}, 400, "a list of `examples`"),
        ("m:classify", {"examples": [3]}, 400, "expected objects"),
        ("m:classify", {"examples": [{"image": []}]}, 400, ""),
        ("m:classify", {"examples": [{"image": None}]}, 400, "expected texts, integers or numbers"),
        ("m:classify", {"examples": [{"image": "a"}], "context": {"image": "b"}}, 400, "also in `context`"),
        ("m:classify", {"signature_name": BYTES, "examples": [{"image": "a"}]}, 400, "cannot classify"),
    ],
)
def test_errors(served, path, body, status, message):
    answer = post(served, path, body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("half", 404, "Could not find any versions of model half"),
        ("m/versions/7", 404, "Could not find version 7 of model m"),
        ("m/labels/x", 404, "Unrecognized servable version label: x"),
        ("m/versions/7/metadata", 404, "Specific(m, 7)"),
        ("m:predict", 405, "expected POST"),
        ("m/versions/1:classify", 405, "expected POST"),
    ],
)
def test_errors_of_questions(served, path, status, message):
    answer = served.http.get(f"/v1/models/{path}")
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert message in answer.json()["error"]


def test_image_files_are_no_examples(served):
    for kind in ("PNG", "JPEG", "GIF", "BMP"):
        for image in (samples.picture(9, kind=kind), samples.picture(200, 40, kind)):
            answer = post(served, "m:predict", {"instances": [b64(image)]})
            assert "expected a serialized tf.train.Example" in answer.json()["error"]


def test_head_is_answered_as_get(served):
    paths = (
        "/",
        "/page.js",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/models",
        "/v1/models/m",
        "/v2",
        "/openapi.json",
    )
    for path in paths:
        answer = served.http.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
    assert served.http.head("/v1/models/none").status_code == 404
    description = served.http.get("/openapi.json").json()
    assert all("head" not in methods for methods in description["paths"].values())
    # Its scripts would come from elsewhere.
    assert served.http.get("/docs").status_code == 404


def test_a_path_that_is_not_there(served):
    answer = served.http.post("/v1/models/m:regress", json={})
    assert (answer.status_code, list(answer.json())) == (405, ["error"])
    answer = served.http.get("/v3")
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


def test_a_model_without_names_cannot_classify(saved, tmp_path):
    shutil.rmtree(samples.push(saved[1], tmp_path / "m", 1) / "assets.extra")
    with samples.serve(tmp_path) as served:
        answer = post(served, "m:classify", {"examples": [{"image": b64(DARK)}]})
        assert answer.status_code == 400
        assert "no probabilities of named classes" in answer.json()["error"]
        assert names(post(served, "m:predict", ROW)) == ["dark"]


def test_the_canary_has_a_label(saved, tmp_path):
    for tag in (1, 2):
        samples.push(saved[tag], tmp_path / "m", tag)
    routing.write(tmp_path / "m", routing.Routes(stable=1, canary=2, percent=0))
    with samples.serve(tmp_path) as served:
        for label, tag in (("stable", 1), ("canary", 2)):
            answer = post(served, f"m/labels/{label}:predict", ROW).json()
            assert [row["tag"] for row in answer["predictions"]] == [tag]
