import numpy as np
import pytest
import tensorflow as tf

from components.evaluator import robustness
from models import durations
from models.corruptions import CELLS, corrupt
from tests.components.samples import corruptions
from tests.models import samples

SIDE = 8


class BrightnessModel(tf.Module):
    """A model of the classes dark and bright, whose probabilities are those of the mean pixel."""

    @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32, name="images")])
    def logits(self, images):
        mean = tf.reduce_mean(images, axis=[1, 2, 3])
        return tf.math.log(tf.stack([1 - mean, mean], axis=1) + 1e-6)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def serve_images(self, images):
        return {"probabilities": tf.nn.softmax(self.logits(tf.cast(images, tf.float32) / 255))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def pixels(self, image_bytes):
        spec = tf.TensorSpec([SIDE, SIDE, 3], tf.uint8)
        return tf.map_fn(lambda each: tf.io.decode_png(each, 3), image_bytes, fn_output_signature=spec)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("model"))
    brightness = BrightnessModel()
    tf.saved_model.save(brightness, directory, signatures={"serve_images": brightness.serve_images})
    return directory


def write(path, images, labels):
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for image, label in zip(images, labels, strict=True):
            writer.write(samples.example(samples.png(image), int(label)).SerializeToString())
    return str(path)


def test_the_figures_are_those_of_the_chosen_images_corrupted(model, tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 2
    noise = generator.integers(0, 60, (90, SIDE, SIDE, 3))
    images = (noise + 130 * labels[:, None, None, None] + 30).astype(np.uint8)
    files = [
        write(tmp_path / "b.gz", images[:50], labels[:50]),
        write(tmp_path / "a.gz", images[50:], labels[50:]),
    ]
    measured, example = robustness.measure(model, files, 40)
    chosen = robustness.choose(labels, 40)
    assert (measured["available"], measured["images"]) == (90, 40)
    assert measured["clean"]["accuracy"] == 1
    assert measured["clean"]["confidence"] == pytest.approx(
        np.mean([max(each.mean(), 255 - each.mean()) for each in images[chosen]]) / 255, abs=1e-3
    )
    for (name, strength), row in zip(CELLS, measured["measured"], strict=True):
        means = corrupt(images[chosen], name, strength).mean(axis=(1, 2, 3))
        assert (row["name"], row["strength"]) == (name, strength)
        assert row["accuracy"] == np.mean((means > 127.5) == labels[chosen])
        confidence = np.maximum(means, 255 - means).mean() / 255
        assert row["confidence"] == pytest.approx(confidence, abs=1e-3)
        low, high = row["intervals"]["accuracy"]
        assert low <= row["accuracy"] <= high
    darkest = next(row for row in measured["measured"] if row["description"] == "brightness x 0.2")
    assert darkest["accuracy"] == 0.5  # all are called dark
    mean = np.mean([row["accuracy"] for row in measured["measured"]])
    assert measured["accuracy"] == pytest.approx(mean)
    low, high = measured["intervals"]["accuracy"]
    assert mean - 0.1 < low < mean < high < mean + 0.1
    robustness.write(str(tmp_path), measured, example)
    read, read_example = robustness.read(str(tmp_path))
    assert read == measured
    np.testing.assert_array_equal(read_example, example)


def test_all_images_are_measured_if_there_are_fewer(model, tmp_path):
    images = np.stack([np.full((SIDE, SIDE, 3), 200 + index, np.uint8) for index in range(3)])
    measured, example = robustness.measure(model, [write(tmp_path / "a.gz", images, [0, 1, 1])], 500)
    assert (measured["available"], measured["images"]) == (3, 3)
    assert measured["clean"]["accuracy"] == pytest.approx(2 / 3)
    # The model is mostly right on the last two, but mostly wrong on the first.
    assert measured["example"]["label"] == 1
    np.testing.assert_array_equal(example, images[1])


def test_the_progress_is_logged(model, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(robustness, "_BATCH", 2)
    monkeypatch.setattr(durations.time, "monotonic", iter([0.0, 6.0, 7.0, 18.0]).__next__)
    images = np.full((6, SIDE, SIDE, 3), 200, np.uint8)
    with caplog.at_level("INFO", logger="components"):
        robustness.measure(model, [write(tmp_path / "a.gz", images, [1] * 6)], 6)
    assert caplog.messages[:2] == [
        "corrupted 2 of 6 images, 12 s left",
        "corrupted 6 of 6 images, 1 s left",
    ]


def test_the_example_has_about_as_many_right_answers_as_the_mean():
    right = np.arange(len(CELLS))[:, None] < [21, 9, 2, 0]
    probabilities = np.where(right[..., None], [0.1, 0.9], [0.9, 0.1]).astype(np.float32)
    example = robustness.summarize(np.ones(4, int), probabilities[0], probabilities)["example"]
    assert example == {"index": 1, "label": 1, "predicted": right[:, 1].astype(int).tolist()}


def test_the_interval_takes_an_image_with_all_of_its_corruptions():
    """Of 100 images, the model is always right on 50 and always wrong on the others."""
    labels, right = np.zeros(100, int), np.arange(100) < 50
    clean = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]).astype(np.float32)
    measured = robustness.summarize(labels, clean, np.stack([clean] * len(CELLS)))
    low, high = measured["intervals"]["accuracy"]
    # As for 100 images, not for 2,100: 1.96 x 0.05 to both sides.
    assert (low, measured["accuracy"], high) == pytest.approx((0.402, 0.5, 0.598), abs=0.02)


def test_the_corruption_with_the_lowest_accuracy_is_named():
    assert robustness.lowest(corruptions(0.9)) == ("noise", pytest.approx(0.1))


def test_images_are_chosen_evenly_over_the_classes():
    labels = np.repeat([0, 1, 2], [1000, 10, 200])
    chosen = robustness.choose(labels, 100)
    assert np.bincount(labels[chosen]).tolist() == [45, 10, 45]
    assert len(set(chosen)) == 100 and (np.diff(chosen) > 0).all()
    assert chosen[:45].max() > 500  # not the first ones
    np.testing.assert_array_equal(robustness.choose(labels, 100), chosen)
    np.testing.assert_array_equal(robustness.choose(labels, 5000), np.arange(1210))
