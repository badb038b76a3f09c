"""What a server refuses, measures, and goes on answering meanwhile."""

import base64
import concurrent.futures
import io
import json
import re
import socket
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from serving import endpoints, saved_model
from serving.saved_model import Model
from tests.serving import samples

GREY = samples.picture(128)


@pytest.fixture(scope="module")
def small(saved, tmp_path_factory):
    """A server with small limits."""
    root = tmp_path_factory.mktemp("models")
    samples.push(saved[1], root / "m", 1)
    with samples.serve(root, max_batch=4, max_body=10_000, max_pixels=1000, max_concurrent=3) as running:
        yield running


def body(*images):
    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    return {"signature_name": "serve_image_bytes", "instances": instances}


def predict(served, *images, **options):
    return served.http.post("/v1/models/m:predict", json=body(*images), **options)


def error(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def test_bodies(small):
    assert "a body of at most 10,000 bytes" in error(
        small.http.post("/v1/models/m:predict", content=b" " * 10_001), 413
    )
    # Without a length in the headers.
    parts = (b" " * 1000 for _ in range(50))
    assert "a body of at most" in error(small.http.post("/v1/models/m:predict", content=parts), 413)
    parts = iter([json.dumps(body(GREY)).encode()])
    assert small.http.post("/v1/models/m:predict", content=parts).status_code == 200
    assert "a body of at most" in error(small.http.post("/v2/models/m/infer", content=b" " * 10_001), 413)


def test_a_request_of_more_images_than_a_batch_is_split(small, monkeypatch):
    run, sizes = Model.run, []

    def note(self, signature, inputs):
        sizes.append(len(inputs["image_bytes"]))
        return run(self, signature, inputs)

    monkeypatch.setattr(Model, "run", note)
    levels = [0, 40, 80, 120, 160, 200, 240, 0, 40, 80]
    images = [samples.picture(level) for level in levels]
    answer = predict(small, *images)
    assert answer.status_code == 200
    found = [row["probabilities"][1] for row in answer.json()["predictions"]]
    assert found == pytest.approx([level / 255 for level in levels], abs=1e-6)
    assert sizes == [4, 4, 2]
    message = error(predict(small, *images[:5], b"no image", GREY), 400)
    assert message.startswith("images 5 to 7 of 7: ")
    # All of them together have too many pixels.
    assert "image 28 of 30, of 6x6, goes beyond" in error(predict(small, *[GREY] * 30), 413)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_pixels_are_counted_before_an_image_is_decoded(small, kind):
    assert predict(small, samples.picture(9, 20, kind)).status_code == 200
    buffer = io.BytesIO()
    Image.new("1" if kind == "BMP" else "L", (250, 200)).save(buffer, kind)
    message = "image 2 of 2, of 250x200, goes beyond"
    assert message in error(predict(small, GREY, buffer.getvalue()), 413)
    # Each is small enough, but not all of them.
    assert "goes beyond" in error(predict(small, *[samples.picture(9, 20, kind)] * 3), 413)


def test_pixels_of_decompression_bombs(small):
    buffer = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(buffer, "PNG")
    bomb = buffer.getvalue()[:1000]  # the header is enough
    assert "of 20000x10000, goes beyond" in error(predict(small, bomb), 413)
    example = base64.b64encode(samples.example(bomb)).decode()
    answer = small.http.post("/v1/models/m:predict", json={"instances": [{"b64": example}]})
    assert "goes beyond" in error(answer, 413)
    answer = small.http.post(
        "/v1/models/m:classify",
        json={"examples": [{"image": body(bomb)["instances"][0]}]},
    )
    assert "goes beyond" in error(answer, 413)


def test_pixels_of_arrays(small):
    images = np.zeros((1, 34, 34, 3), np.uint8).tolist()
    answer = small.http.post(
        "/v1/models/m:predict", json={"signature_name": "serve_images", "instances": images}
    )
    assert "found 1,156" in error(answer, 413)


def test_too_many_requests_are_told_when_to_come_again(small, caplog):
    # Bodies that do not arrive take all three places.
    port = int(small.url.rpartition(":")[2])
    head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{"
    slow = []
    try:
        while predict(small, GREY).status_code != 429:
            assert len(slow) < 50
            slow.append(socket.create_connection(("127.0.0.1", port)))
            slow[-1].sendall(head)
            time.sleep(0.05)  # otherwise the next request may arrive first, and take the place
        answer = predict(small, GREY)
        assert "too many requests" in error(answer, 429)
        assert answer.headers["retry-after"] == "1"
        assert small.http.get("/healthz").status_code == 200
        assert small.http.get("/readyz").status_code == 200
    finally:
        for connection in slow:
            connection.close()
    small.wait_until(lambda: predict(small, GREY).status_code == 200)
    # Connections that end too early are no failure of the server.
    assert 'code="400",model="m"' in small.http.get("/metrics").text
    assert not caplog.records


@pytest.mark.parametrize(
    ("path", "status"),
    [("m:predict", 413), ("m:regress", 405), ("m/a/b/c", 404), ("none:predict", 404)],
)
def test_a_refused_body_is_sent_to_its_end(small, path, status):
    # The client does not look for an answer before it has sent everything; buffers hold only a part of it.
    port = int(small.url.rpartition(":")[2])
    size = 20 * 2**20
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"POST /v1/models/%b HTTP/1.1\r\n" % path.encode())
        # As urllib does; uvicorn takes the rest by itself if the connection stays open.
        connection.sendall(b"Host: m\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        connection.sendall(b" " * size)
        assert connection.recv(100).startswith(b"HTTP/1.1 %d " % status)


def test_answers_do_not_wait_for_a_body_that_was_read(small):
    start = time.monotonic()
    for content in (b"{", json.dumps(body(b"no image"))):
        error(small.http.post("/v1/models/m:predict", content=content), 400)
    assert time.monotonic() - start < 5


def test_a_body_that_does_not_arrive_in_time(small, monkeypatch):
    monkeypatch.setattr(endpoints, "_BODY_SECONDS", 0.05)

    def parts():
        yield b"{"
        time.sleep(0.3)
        yield b"}"

    assert "expected the body within" in error(small.http.post("/v1/models/m:predict", content=parts()), 408)


def test_concurrent_requests_are_one_batch_and_a_bad_image_fails_alone(served, monkeypatch):
    run, sizes = Model.run, []

    def slow(self, signature, inputs):
        sizes.append(len(inputs["image_bytes"]))
        time.sleep(0.1)
        return run(self, signature, inputs)

    monkeypatch.setattr(Model, "run", slow)
    images = [samples.picture(value) for value in range(0, 240, 20)]
    images[5] = b"no image"
    with concurrent.futures.ThreadPoolExecutor(len(images)) as pool:
        answers = list(pool.map(lambda image: predict(served, image), images))
    for value, answer in zip(range(0, 240, 20), answers, strict=True):
        if value == 100:
            assert answer.status_code == 400
        else:
            bright = answer.json()["predictions"][0]["probabilities"][1]
            assert bright == pytest.approx(value / 255, abs=1e-6)
    assert max(sizes) >= 6


def test_a_failure_of_the_model_is_no_fault_of_the_request(served, monkeypatch, caplog):
    def fail(self, signature, inputs):
        raise MemoryError("7 GB")

    with monkeypatch.context() as patch:
        patch.setattr(Model, "run", fail)
        # The reason is in the log, not in the answer.
        assert error(predict(served, GREY), 500) == "the server failed; its log has the reason"
    assert "MemoryError: 7 GB" in caplog.text
    assert 'code="500",model="m",version="1"' in served.http.get("/metrics").text
    assert predict(served, GREY).status_code == 200


def test_measurements(saved, tmp_path):
    samples.push(saved[1], tmp_path / "m", 1)
    with samples.serve(tmp_path) as served:
        assert predict(served, GREY, GREY, GREY).status_code == 200
        assert predict(served, b"no image").status_code == 400
        assert served.http.post("/v1/models/made-up:predict", json={}).status_code == 404
        answer = served.http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        found = dict(re.findall(r"^(serving_\w+(?:\{.*\})?) (\S+)$", answer.text, re.MULTILINE))
        assert found['serving_requests_total{code="200",model="m",version="1"}'] == "1.0"
        assert found['serving_requests_total{code="400",model="m",version="1"}'] == "1.0"
        assert found['serving_requests_total{code="404",model="",version=""}'] == "1.0"
        assert found['serving_request_seconds_count{model="m",version="1"}'] == "2.0"
        assert found['serving_batch_images_sum{model="m",version="1"}'] == "3.0"
        assert found['serving_batch_images_bucket{le="2.0",model="m",version="1"}'] == "0.0"
        assert found['serving_answering_version{model="m"}'] == "1.0"
        assert "made-up" not in answer.text


@pytest.mark.parametrize(
    "raised",
    [
        "assertion failed: [{}]",
        "StringToNumberOp could not correctly convert string: {}\n\t [[{{{{node x}}}}]]",
    ],
)
def test_a_refusal_of_the_model_is_told_in_its_own_words(raised):
    told = "image 2 of 2 has more than 71 pixels"
    error = tf.errors.InvalidArgumentError(None, None, raised.format(told))
    assert saved_model._reason(error) == told
