import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.serving_check import check

NAMES = ["dark", "bright"]
pytestmark = pytest.mark.slow


class _Brightness(tf.Module):
    """Classifies images by their mean; `broken` makes the two signatures return different probabilities."""

    def __init__(self, broken=False):
        super().__init__()
        self._broken = broken

    def _predict(self, images, offset=0.0):
        mean = tf.map_fn(
            lambda b: tf.reduce_mean(tf.cast(tf.io.decode_png(b, 3), tf.float32)) / 255, images, tf.float32
        )
        bright = tf.clip_by_value(mean + offset, 0, 1)
        probabilities = tf.stack([1 - bright, bright], 1)
        class_id = tf.argmax(probabilities, 1)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "class_name": tf.gather(NAMES, class_id),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def examples(self, examples):
        parsed = tf.io.parse_example(examples, {"image": tf.io.FixedLenFeature([], tf.string)})
        return self._predict(parsed["image"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(self, image_bytes):
        return self._predict(image_bytes, 0.2 if self._broken else 0.0)


@pytest.fixture(scope="module")
def request_content(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("records") / "records.gz")
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for brightness in (10, 60, 180, 250):
            buffer = io.BytesIO()
            Image.fromarray(np.full((4, 4, 3), brightness, np.uint8)).save(buffer, "PNG")
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[buffer.getvalue()]))
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(brightness > 127)]))
            example = tf.train.Example(features=tf.train.Features(feature={"image": image, "label": label}))
            writer.write(example.SerializeToString())
    return check.read_request([path], NAMES, 3)


def _save(module, directory):
    signatures = {"serving_default": module.examples, "serve_image_bytes": module.image_bytes}
    tf.saved_model.save(module, str(directory), signatures=signatures)
    return str(directory)


def test_a_request_has_no_labels(request_content):
    assert len(request_content["examples"]) == 3
    example = tf.train.Example.FromString(bytes.fromhex(request_content["examples"][0]))
    assert list(example.features.feature) == ["image"]


def test_a_correct_model_has_no_problems_and_a_latency(request_content, tmp_path):
    answer = check.ask(_save(_Brightness(), tmp_path), request_content)
    assert answer["problems"] == []
    assert answer["latency_ms"]["serve_image_bytes"] > 0


def test_signatures_with_different_predictions_are_a_problem(request_content, tmp_path):
    answer = check.ask(_save(_Brightness(broken=True), tmp_path), request_content)
    assert any("different probabilities from serving_default" in problem for problem in answer["problems"])


def test_a_directory_without_a_model_is_reported_as_a_problem(request_content, tmp_path):
    (problem,) = check.ask(str(tmp_path), request_content)["problems"]
    assert "SavedModel file does not exist" in problem
