import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tfx.utils import path_utils

from components.serving_check.formats import agreement, program, writing
from components.serving_check.formats import files as format_files
from settings.export import ExportConfig
from tests.models import samples

pytestmark = pytest.mark.slow

CLASSES = len(samples.CLASS_NAMES)
CLIENT = """
import json, sys
import numpy as np, onnxruntime, tensorflow as tf
directory, images = sys.argv[1], np.load(sys.argv[2])
answers = {}
for name in ("model.tflite", "model_int8.tflite"):
    interpreter = tf.lite.Interpreter(f"{directory}/{name}")
    predict = interpreter.get_signature_runner()
    answers[name] = [predict(images=image[None])["probabilities"][0].tolist() for image in images]
session = onnxruntime.InferenceSession(f"{directory}/model.onnx", providers=["CPUExecutionProvider"])
answers["model.onnx"] = session.run(["probabilities"], {"images": images})[0].tolist()
print(json.dumps(answers))
"""


class _Colors(tf.Module):
    """Has the functions and the signature of an exported model that the formats are made from.

    It classifies images by the mean of their channels.
    """

    def __init__(self, views=1, sharpness=40.0):
        super().__init__()
        self._views = views
        self._weights = tf.Variable(sharpness * np.eye(CLASSES, dtype=np.float32)[::-1])

    def compute(self, images):
        return tf.matmul(tf.reduce_mean(images, [1, 2]), self._weights)

    @tf.function(input_signature=[tf.TensorSpec([None, samples.SIDE, samples.SIDE, 3], tf.float32)])
    def logits(self, images):
        return self.compute(images)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def pixels(self, image_bytes):
        images = tf.map_fn(lambda each: tf.io.decode_png(each, 3), image_bytes, tf.uint8)
        return tf.ensure_shape(images, [None, samples.SIDE, samples.SIDE, 3])

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def serve_images(self, images):
        logits = self.compute(tf.cast(images, tf.float32) / 255.0)
        # Stands in for the average of several views, which may have another most probable class.
        return {"probabilities": tf.nn.softmax(logits if self._views == 1 else -logits)}


class _NearlyUndecided(_Colors):
    """Has probabilities that differ by less than an integer of 8 bits can tell."""

    def __init__(self):
        super().__init__(sharpness=0.001)


class _Unconvertible(_Colors):
    @tf.function(input_signature=[tf.TensorSpec([None, samples.SIDE, samples.SIDE, 3], tf.float32)])
    def logits(self, images):
        logits = self.compute(images)
        return logits + tf.math.igamma(tf.abs(logits) + 1.0, 1.0)


def _save(module, directory):
    tf.saved_model.save(module, str(directory), signatures={"serve_images": module.serve_images})
    return str(directory)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """TFRecord files of the splits `train` and `test`."""
    folder = tmp_path_factory.mktemp("records")
    for split, count in (("train", 20), ("test", 70)):
        images = samples.colored(count, samples.SIDE, seed=count)
        with tf.io.TFRecordWriter(str(folder / f"{split}.gz"), "GZIP") as writer:
            for pixels, label in zip(images.pixels, images.labels, strict=True):
                writer.write(samples.example(samples.png(pixels), int(label)).SerializeToString())
    return {split: [str(folder / f"{split}.gz")] for split in ("train", "test")}


def _write(model, directory, files, **settings):
    config = ExportConfig(**settings)
    return writing.write(model, str(directory), config, samples.CLASS_NAMES, files["test"], files["train"])


@pytest.fixture(scope="module")
def written(tmp_path_factory, files):
    """A folder with a SavedModel and all formats, and the description of them."""
    directory = Path(path_utils.stamped_model_path(str(tmp_path_factory.mktemp("blessing"))))
    model = _save(_Colors(), directory)
    return directory, _write(model, directory, files, formats=("tflite", "tflite_int8", "onnx"))


@pytest.fixture
def in_this_process(monkeypatch):
    """Converts in this process, which has loaded TensorFlow already."""
    monkeypatch.setattr(writing, "_run", program.answer)


def test_formats_that_agree_are_written_beside_the_saved_model(written):
    directory, description = written
    names = ["model.onnx", "model.tflite", "model_int8.tflite"]
    assert sorted(file.name for file in (directory / "formats").iterdir()) == sorted(
        ["formats.json", "labels.txt", *names]
    )
    assert (directory / format_files.LABELS).read_text().splitlines() == samples.CLASS_NAMES
    # A blessing of ServingCheck holds the model.
    assert format_files.read(str(directory.parent)) == description
    assert format_files.read(str(directory)) is None
    assert description["left_out"] == []
    models = {model["name"]: model for model in description["models"]}
    assert list(models) == ["saved_model", "tflite", "tflite_int8", "onnx"]
    for name, model in models.items():
        assert model["accuracy"] == model["agreement"] == 1.0
        assert model["milliseconds"] > 0
        if name != "saved_model":
            assert model["bytes"] == (directory / model["file"]).stat().st_size
    assert description["images"] == description["available"] == 70
    assert description["input"]["shape"] == [None, samples.SIDE, samples.SIDE, 3]


def test_formats_answer_like_the_saved_model_in_a_process_without_the_project(written, tmp_path):
    directory, _ = written
    images = samples.colored(5, samples.SIDE).pixels
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-I", "-c", CLIENT, str(directory / "formats"), str(tmp_path / "images.npy")]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    answers = json.loads(process.stdout.splitlines()[-1])
    signature = tf.saved_model.load(str(directory)).signatures["serve_images"]
    expected = signature(images=tf.constant(images))["probabilities"].numpy()
    np.testing.assert_allclose(answers["model.tflite"], expected, atol=1e-5)
    np.testing.assert_allclose(answers["model.onnx"], expected, atol=1e-5)
    int8 = np.array(answers["model_int8.tflite"])
    assert int8.dtype == np.int64
    np.testing.assert_allclose(int8 / 256, expected, atol=0.02)


def test_a_format_that_disagrees_is_left_out_with_its_figure(in_this_process, files, tmp_path):
    model = _save(_NearlyUndecided(), tmp_path / "model")
    description = _write(model, tmp_path, files, formats=("tflite", "tflite_int8"))
    (sentence,) = description["left_out"]
    agreed = description["models"][2]["agreement"]
    assert agreed < 0.9
    assert sentence == (
        f"tflite_int8 is left out: it answers the same class as the SavedModel for {agreed:.2%} of 70 test "
        "images, less than export.min_agreement_int8=98.50%"
    )
    assert (tmp_path / "formats/model.tflite").exists()
    assert not (tmp_path / "formats/model_int8.tflite").exists()
    # The limit can be set.
    described = _write(model, tmp_path, files, formats=("tflite_int8",), min_agreement_int8=agreed)
    assert described["left_out"] == []
    assert (tmp_path / "formats/model_int8.tflite").exists()


def test_a_network_that_cannot_be_converted_is_left_out_with_the_reason(in_this_process, files, tmp_path):
    description = _write(
        _save(_Unconvertible(), tmp_path / "model"), tmp_path, files, formats=("tflite", "onnx")
    )
    sentences = description["left_out"]
    assert len(sentences) == 2
    for sentence in sentences:
        assert "Igamma" in sentence
    assert {file.name for file in (tmp_path / "formats").iterdir()} == {"formats.json", "labels.txt"}
    assert description["models"][0]["accuracy"] == 1.0


def test_formats_are_compared_with_one_view(in_this_process, files, tmp_path):
    model = _save(_Colors(views=6), tmp_path / "model")
    description = _write(model, tmp_path, files, formats=("tflite",), views=6)
    models = {model["name"]: model for model in description["models"]}
    assert list(models) == ["saved_model", "saved_model_one_view", "tflite"]
    assert models["saved_model"]["accuracy"] < 0.5
    assert models["saved_model_one_view"]["accuracy"] == models["tflite"]["accuracy"] == 1.0
    assert models["tflite"]["file"] == "formats/model.tflite"


def test_of_many_images_every_nth_is_compared(in_this_process, files, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "_MOST_IMAGES", 30)
    description = _write(_save(_Colors(), tmp_path / "model"), tmp_path, files, formats=("tflite",))
    assert (description["images"], description["available"]) == (24, 70)


def test_a_crash_of_the_program_leaves_all_formats_out(files, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "false")
    description = _write("model", tmp_path, files, formats=("tflite", "onnx"))
    assert description["left_out"] == [
        f"{name} is left out: the program that converts the model exited with status 1: it printed no error "
        "message"
        for name in ("tflite", "onnx")
    ]
    assert description["models"][0]["accuracy"] is None


def test_answers_are_counted_and_timed():
    saved = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    other = np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
    images, labels = np.zeros((3, 1, 1, 3), np.uint8), np.array([0, 0, 1])
    total, scores = agreement.count(
        {"saved": lambda images: saved[: len(images)], "other": lambda images: other[: len(images)]},
        "saved",
        [(images, labels), (images[:1], labels[:1])],
    )
    assert total == 4
    assert scores == {
        "saved": agreement.Score(agreeing=4, correct=2),
        "other": agreement.Score(agreeing=3, correct=3),
    }
