import hashlib

import numpy as np
import pytest
import tensorflow as tf

from components.model_report import inference
from datasets import features
from tests.models import samples


class NumberModel(tf.Module):
    """A model whose images are numbers: the number, in percent, is the probability of the first class."""

    def __init__(self):
        super().__init__()
        # A variable that the signature needs, like the weights of a network.
        self.scale = tf.Variable(100.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples):
        parsed = tf.io.parse_example(examples, {features.IMAGE: tf.io.FixedLenFeature([], tf.string)})
        first = tf.strings.to_number(parsed[features.IMAGE]) / self.scale
        return {"probabilities": tf.stack([first, 1 - first], axis=1), "class_id": tf.argmax([first])}

    @tf.function(input_signature=[tf.TensorSpec([None, 512, 256, 3], tf.float32, name="images")])
    def logits(self, images):
        return tf.reduce_mean(images, axis=[1, 2])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    number_model = NumberModel()
    tf.saved_model.save(number_model, str(directory), signatures={"serving_default": number_model.serve})
    return str(directory)


def write(path, numbers, ids=None):
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for number in numbers:
            example = samples.example(b"%d" % number, number % 2)
            if ids:
                example.features.feature[features.ID].bytes_list.value.append(ids[number])
            writer.write(example.SerializeToString())
    return str(path)


def test_predictions_are_in_the_order_of_files_and_records(model, tmp_path):
    numbers = [*range(100), *range(99, -1, -1), *range(0, 100, 3)]  # more than one batch
    files = [write(tmp_path / "b.gz", numbers[:290]), write(tmp_path / "a.gz", numbers[290:])]
    predicted = inference.predict(model, files)
    first = np.float32(numbers) / np.float32(100)
    np.testing.assert_array_equal(predicted.labels, np.array(numbers) % 2)
    assert (predicted.labels.dtype, predicted.probabilities.dtype) == (np.int64, np.float32)
    np.testing.assert_allclose(predicted.probabilities, np.stack([first, 1 - first], axis=1), atol=1e-6)
    assert len(predicted.ids) == len(numbers)


def test_ids_are_read_unchanged(model, tmp_path):
    ids = {7: b"test/7", 8: "Bäume".encode(), 9: b"\xff9"}
    assert inference.predict(model, [write(tmp_path / "a.gz", ids, ids)]).ids == [
        "test/7",
        "Bäume",
        "\ufffd9",
    ]


def test_without_an_id_the_image_identifies_an_example_in_any_order(model, tmp_path):
    files = [write(tmp_path / "a.gz", [1, 2, 3]), write(tmp_path / "b.gz", [3, 1, 2])]
    first, second = (inference.predict(model, [file]) for file in files)
    assert first.ids == [hashlib.sha256(b"%d" % number).hexdigest()[:20] for number in (1, 2, 3)]
    assert second.ids == [first.ids[i] for i in (2, 0, 1)]


def test_an_empty_id_counts_as_missing(model, tmp_path):
    predicted = inference.predict(model, [write(tmp_path / "a.gz", [5], {5: b""})])
    assert predicted.ids == inference.predict(model, [write(tmp_path / "b.gz", [5])]).ids
