"""The log of requests, with a SavedModel behind a server, and with a stand-in for a model."""

import base64
import datetime
import io
import logging

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from serving import request_log
from serving.metrics import Metrics
from serving.request_log import LogOptions, RequestLog
from tests.serving import samples
from tests.serving.samples import example, picture


class Describing(samples.Brightness):
    """Also describes images, as exported models do."""

    def _describe(self, answer):
        means = answer["probabilities"][:, 1]
        answer["features"] = tf.stack([means, 1 - means, means**2], 1)
        return {**answer, "brightness": means, "contrast": 2 * means, "sharpness": 3 * means}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def describe_image_bytes(self, image_bytes):
        return self._describe(self._decode(image_bytes))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def describe_images(self, images):
        return self._describe(self.images(images))


class Stub:
    """Stands for a model of version 3 that finds all images bright."""

    def __init__(self):
        self.version = 3
        self.inputs = {"describe_image_bytes": {"image_bytes": None}}
        outputs = (
            "brightness",
            "contrast",
            "sharpness",
            "features",
            "probabilities",
            "class_id",
            "class_name",
        )
        self.outputs = {"describe_image_bytes": dict.fromkeys(outputs)}
        self.batches = []

    def run(self, signature, inputs):
        images = inputs["image_bytes"]
        self.batches.append(len(images))
        if b"bad" in images:
            raise ValueError("a bad image")
        ones = np.ones(len(images), np.float32)
        return {
            **dict.fromkeys(("brightness", "contrast", "sharpness"), ones),
            "features": np.ones((len(images), 4), np.float32),
            "probabilities": np.tile(np.float32([0.25, 0.75]), (len(images), 1)),
            "class_id": np.ones(len(images), np.int64),
            "class_name": np.array([b"bright"] * len(images), object),
        }


def serve_and_log(root, log, requests):
    """Sends requests to a server that logs all of them; returns its measurements before it stopped."""
    with samples.serve(root, log=log) as served:
        for body in requests:
            answer = served.http.post("/v1/models/m:predict", json=body)
            assert answer.status_code == 200, answer.text
        return served.http.get("/metrics").text


def offer(log, model, *images):
    log.offer("m", model, "serve_image_bytes", {"image_bytes": np.array(images, dtype=object)})


def outcomes(metrics):
    """Returns outcome -> number of images."""
    found = {}
    for line in metrics.text().decode().splitlines():
        if line.startswith("serving_logged_images_total"):
            assert 'model="m",' in line and 'version="3"' in line
            found[line.split('outcome="')[1].split('"')[0]] = float(line.split()[-1])
    return found


def read(folder):
    """Returns the rows below a folder in the order of time, all files of which must be complete."""
    tables = [pq.ParquetFile(path).read() for path in folder.rglob("*.parquet")]
    return pa.concat_tables(tables).sort_by("time").to_pylist()


def test_rows_of_every_signature(tmp_path):
    module = Describing(1, list(samples.NAMES))
    signatures = {
        "serving_default": module.examples,
        "serve_image_bytes": module.image_bytes,
        "serve_images": module.images,
        "describe_image_bytes": module.describe_image_bytes,
        "describe_images": module.describe_images,
    }
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=signatures)
    samples.push(tmp_path / "saved", tmp_path / "models/m", 7)
    bright, dark = picture(204), picture(51)

    def encoded(value):
        return {"b64": base64.b64encode(value).decode()}

    requests = [
        {"signature_name": "serve_image_bytes", "instances": [encoded(bright), encoded(dark)]},
        {"signature_name": "serve_images", "instances": [[[[102, 102, 102]]]]},
        {"instances": [encoded(example(dark))]},
    ]
    before = datetime.datetime.now(datetime.timezone.utc)
    serve_and_log(tmp_path / "models", LogOptions(tmp_path / "log", 1, images=True), requests)

    rows = read(tmp_path / "log/m")
    assert [row["brightness"] for row in rows] == pytest.approx([0.8, 0.2, 0.4, 0.2])
    assert [row["sharpness"] for row in rows] == pytest.approx([2.4, 0.6, 1.2, 0.6])
    assert [row["confidence"] for row in rows] == pytest.approx([0.8, 0.8, 0.6, 0.8])
    assert [row["class_name"] for row in rows] == ["bright", "dark", "dark", "dark"]
    assert [row["class_id"] for row in rows] == [1, 0, 0, 0]
    assert rows[0]["features"] == pytest.approx([0.8, 0.2, 0.64])
    assert {(row["model"], row["version"]) for row in rows} == {("m", 7)}
    assert rows[0]["request"] == rows[1]["request"]
    assert len({row["request"] for row in rows}) == 3
    assert all(before <= row["time"] <= datetime.datetime.now(datetime.timezone.utc) for row in rows)
    assert [row["image"] for row in rows[:2]] == [bright, dark]
    assert rows[3]["image"] == dark
    assert PIL.Image.open(io.BytesIO(rows[2]["image"])).getpixel((0, 0)) == (102, 102, 102)
    days = {path.name for path in (tmp_path / "log/m").iterdir()}
    assert days == {f"date={row['time']:%Y-%m-%d}" for row in rows}


def test_a_model_that_cannot_describe_images_is_served_without_a_log(saved, tmp_path, caplog):
    samples.push(saved[1], tmp_path / "models/m", 1)
    body = {"signature_name": "serve_images", "instances": [[[[0, 0, 0]]]]}
    with caplog.at_level(logging.WARNING, "serving"):
        serve_and_log(tmp_path / "models", LogOptions(tmp_path / "log", 1), [body])
    assert "model m: requests to version 1 are not logged" in caplog.text
    assert not list((tmp_path / "log").iterdir())


def test_the_share_of_requests(tmp_path, monkeypatch):
    numbers = iter([0.1, 0.3, 0.2, 0.9])
    monkeypatch.setattr(request_log.random, "random", lambda: next(numbers))
    metrics = Metrics()
    log = RequestLog(LogOptions(tmp_path, 0.25), metrics)
    log.start()
    for _ in range(4):
        offer(log, Stub(), b"image")
    log.close()
    assert outcomes(metrics) == {"written": 2}
    assert "image" not in read(tmp_path)[0]


def test_the_limit_of_a_day_holds_across_restarts(tmp_path):
    written, later = Metrics(), Metrics()
    for metrics in (written, later):
        log = RequestLog(LogOptions(tmp_path, 1, limit=5), metrics)
        log.start()
        offer(log, Stub(), *[b"image"] * 3)
        offer(log, Stub(), *[b"image"] * 4)
        log.close()
    assert outcomes(written) == {"written": 5, "limit": 2}
    assert outcomes(later) == {"limit": 7}
    assert len(read(tmp_path)) == 5


def test_requests_wait_for_each_other_up_to_a_batch(tmp_path):
    model = Stub()
    log = RequestLog(LogOptions(tmp_path, 1), Metrics())
    for size in (40, 20, 5, 100):
        offer(log, model, *[b"image"] * size)
    log.start()
    log.close()
    # A larger request is described in parts.
    assert sorted(model.batches) == [5, 36, 60, 64]
    assert len(read(tmp_path)) == 165


def test_what_does_not_fit_the_queue_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(request_log, "_MOST_WAITING_IMAGES", 4)
    monkeypatch.setattr(request_log, "_MOST_WAITING_BYTES", 100)
    metrics = Metrics()
    log = RequestLog(LogOptions(tmp_path, 1), metrics)  # its thread does not take anything yet
    offer(log, Stub(), *[b"image"] * 3)
    offer(log, Stub(), *[b"image"] * 2)
    offer(log, Stub(), b"i" * 90)
    log.start()
    log.close()
    assert outcomes(metrics) == {"queue_full": 3, "written": 3}


def test_failures_are_counted_and_the_log_goes_on(tmp_path, monkeypatch, caplog):
    metrics, good = Metrics(), request_log.pq.write_table
    log = RequestLog(LogOptions(tmp_path, 1), metrics)
    monkeypatch.setattr(request_log, "_FILE_ROWS", 1)

    def wait(outcome, number):
        for _ in range(500):
            if outcomes(metrics).get(outcome) == number:
                return
            log._stopping.wait(0.01)
        raise AssertionError(outcomes(metrics))

    def full_disk(table, file, **options):
        file.write(b"PAR1")
        raise OSError(28, "No space left on device")

    log.start()
    offer(log, Stub(), b"bad", b"image")
    wait("failed", 2)
    monkeypatch.setattr(request_log.pq, "write_table", full_disk)
    offer(log, Stub(), b"image")
    wait("failed", 3)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "a broken file is left"
    monkeypatch.setattr(request_log.pq, "write_table", good)
    offer(log, Stub(), b"image")
    wait("written", 1)
    log.close()
    assert "a bad image" in caplog.text and "No space left" in caplog.text
    assert len(read(tmp_path)) == 1
