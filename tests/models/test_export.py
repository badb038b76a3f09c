import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from datasets import decoding
from models import export, views
from models.calibration import Calibration
from models.training import loop, losses, optimizers
from settings.export import ExportConfig
from tests.datasets import image_files
from tests.models import samples

CLIENT = """
import json, sys
import numpy as np, tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures
requests = np.load(sys.argv[2], allow_pickle=True)

def values(tensor):
    array = tensor.numpy()
    return np.vectorize(bytes.decode)(array).tolist() if array.dtype == object else array.tolist()

answers = {}
for name, signature in served.items():
    (argument,) = signature.structured_input_signature[1]
    answer = signature(**{argument: tf.constant(requests[argument])})
    answers[name] = {
        "argument": argument,
        "dtypes": {k: v.dtype.name for k, v in answer.items()},
        **{k: values(v) for k, v in answer.items()},
    }
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    settings = samples.small_settings()
    network = loop.build(settings, samples.colored(6, samples.SIDE), 3)
    # A trained network has an optimizer, which must not be exported.
    network.compile(
        optimizer=optimizers.create(settings.trainer, network, 0.1), loss=losses.CrossEntropy(0.0)
    )
    network.optimizer.build(network.trainable_variables)
    return network


@pytest.fixture(scope="module")
def exported(model, transform_output, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model") / "Format-Serving"
    write(model, transform_output, directory)
    return directory


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported))


def write(model, transform, directory, class_names=samples.CLASS_NAMES, calibrated=None, **config):
    export.export(
        model,
        transform,
        class_names,
        str(directory),
        resize_method=samples.RESIZE,
        background=samples.BACKGROUND,
        config=ExportConfig(**config),
        calibrated=calibrated,
    )


def test_the_class_names_are_written_to_the_labels_file(exported):
    assert (exported / export.LABELS_FILE).read_text().splitlines() == list(samples.CLASS_NAMES)


def test_every_signature_agrees_with_the_network_in_a_process_without_the_project(exported, model, tmp_path):
    images = samples.colored(5, samples.SIDE)
    encoded = [samples.png(pixels) for pixels in images.pixels]
    np.savez(
        tmp_path / "requests.npz",
        images=images.pixels,
        image_bytes=np.array(encoded, object),
        examples=np.array([samples.example(e).SerializeToString() for e in encoded], object),
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", CLIENT, str(exported), str(tmp_path / "requests.npz")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    answers = json.loads(result.stdout.splitlines()[-1])
    logits = model(images.pixels.astype(np.float32) / np.float32(255), training=False)
    expected = tf.nn.softmax(logits).numpy()
    assert {name: answer["argument"] for name, answer in answers.items()} == export.SIGNATURES
    for name in (*export.PREDICTING, *export.DESCRIBING):
        answer = answers[name]
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
        assert answer["class_id"] == expected.argmax(axis=1).tolist()
        assert answer["class_name"] == [samples.CLASS_NAMES[i] for i in answer["class_id"]]
    best = np.argsort(-expected, axis=1)
    for name in export.PREDICTING:
        answer = answers[name]
        assert answer["top_k_names"] == np.array(samples.CLASS_NAMES)[best].tolist()
        np.testing.assert_allclose(
            answer["top_k_probabilities"], np.take_along_axis(expected, best, axis=1), atol=1e-6
        )
        assert answer["dtypes"] == {
            "probabilities": "float32",
            "class_id": "int64",
            "class_name": "string",
            "top_k_names": "string",
            "top_k_probabilities": "float32",
        }
    for name in export.DESCRIBING:
        luma = images.pixels / 255 @ (0.299, 0.587, 0.114)
        np.testing.assert_allclose(answers[name]["brightness"], luma.mean(axis=(1, 2)), atol=1e-6)
        np.testing.assert_allclose(answers[name]["contrast"], luma.std(axis=(1, 2)), atol=1e-6)
        sharpness = [ndimage.laplace(each, mode="reflect").std() for each in luma]
        np.testing.assert_allclose(answers[name]["sharpness"], sharpness, atol=1e-5)
        # The last layer computes the logits from the features.
        kernel, bias = model.layers[-1].get_weights()
        np.testing.assert_allclose(np.array(answers[name]["features"]) @ kernel + bias, logits, atol=1e-5)
    np.testing.assert_array_equal(answers["explain_image_bytes"]["image"], images.pixels)
    heat = np.array(answers["explain_image_bytes"]["heat"])
    assert heat.shape == images.pixels.shape[:3]
    assert heat.min() >= 0
    np.testing.assert_allclose(heat.max(axis=(1, 2)), 1)


def test_the_exported_model_says_what_the_network_sees(exported):
    images = samples.colored(2, samples.SIDE).pixels
    encoded = tf.constant([samples.png(pixels) for pixels in images])
    seen = tf.saved_model.load(str(exported)).pixels(encoded)
    assert seen.dtype == tf.uint8
    np.testing.assert_array_equal(seen, images)


@pytest.mark.parametrize("width", [23, 9])
def test_all_signatures_resize_images_of_other_sizes_in_the_same_way(loaded, width):
    served = loaded.signatures
    pixels = samples.colored(2, 23).pixels[:, :, :width]
    encoded = tf.constant([samples.png(p) for p in pixels])
    by_pixels = served["serve_images"](images=tf.constant(pixels))["probabilities"]
    by_bytes = served["serve_image_bytes"](image_bytes=encoded)["probabilities"]
    np.testing.assert_allclose(by_pixels, by_bytes, atol=1e-6)


def test_encoded_images_are_served_upright_and_composed_on_the_background(loaded):
    served = loaded.signatures
    stored = image_files.encode(samples.colored(1, 24).pixels[0, :, :16], "JPEG", quality=95)
    sideways = image_files.with_exif(stored, image_files.orientation_tiff(6))
    transparent = image_files.encode(np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8))
    by_bytes = served["serve_image_bytes"](image_bytes=tf.constant([sideways, transparent]))
    upright = np.rot90(tf.io.decode_jpeg(stored), -1)
    composed = np.asarray(decoding.decode(transparent, samples.BACKGROUND))
    for pixels, probabilities in zip((upright, composed), by_bytes["probabilities"], strict=True):
        expected = served["serve_images"](images=tf.constant(pixels[np.newaxis]))["probabilities"][0]
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_loaded_logits_agree_with_the_signatures_and_have_a_gradient(loaded):
    pixels = samples.colored(4, samples.SIDE).pixels
    images = tf.constant(pixels.astype(np.float32) / np.float32(255))
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = loaded.logits(images)
        class_logits = logits[:, 1]
    served = loaded.signatures["serve_images"](images=tf.constant(pixels))["probabilities"]
    np.testing.assert_allclose(tf.nn.softmax(logits), served, atol=1e-6)
    gradient = tape.gradient(class_logits, images).numpy()
    assert gradient.shape == images.shape
    assert np.isfinite(gradient).all()
    # Every image has pixels with a gradient, though pooling may leave some pixels without one.
    assert np.any(gradient != 0, axis=(1, 2, 3)).all()


@pytest.mark.parametrize("broken", ["empty", "text", "truncated"])
def test_an_image_that_cannot_be_decoded_is_named_by_its_position(loaded, broken):
    served = loaded.signatures
    good = [samples.png(pixels) for pixels in samples.colored(2, samples.SIDE).pixels]
    gif = image_files.encode(samples.colored(1, samples.SIDE).pixels[0], "GIF")
    broken = {"empty": b"", "text": b"not an image", "truncated": good[0][:-30]}[broken]
    images = [good[0], gif, good[1], broken, b"also broken"]
    requests = {
        "serve_image_bytes": {"image_bytes": tf.constant(images)},
        "serving_default": {
            "examples": tf.constant([samples.example(e).SerializeToString() for e in images])
        },
    }
    for name, inputs in requests.items():
        with pytest.raises(tf.errors.InvalidArgumentError, match="image 4 of 5 cannot be decoded"):
            served[name](**inputs)
    assert served["serve_image_bytes"](image_bytes=tf.constant([good[0], gif]))["class_id"].shape == 2


def test_all_signatures_serve_the_average_of_the_views(model, transform_output, tmp_path):
    limit = 0.45
    write(model, transform_output, tmp_path, views=6, extra_views_below=limit)
    served = tf.saved_model.load(str(tmp_path)).signatures
    pixels = samples.colored(7, samples.SIDE).pixels
    images = tf.constant(pixels, tf.float32) / 255
    first = model(images, training=False)
    expected = tf.nn.softmax(views.average(model, images, first, 6, limit)).numpy()
    assert not np.allclose(expected, tf.nn.softmax(first), atol=1e-4)
    for name in ("serve_images", "describe_images"):
        answer = served[name](images=tf.constant(pixels))["probabilities"]
        np.testing.assert_allclose(answer, expected, atol=1e-6)


def test_a_calibrated_model_abstains_and_returns_sets_and_its_most_probable_classes_are_the_same(
    model, loaded, transform_output, tmp_path
):
    pixels = tf.constant(samples.colored(60, samples.SIDE).pixels)
    encoded = tf.constant([samples.png(each) for each in pixels.numpy()])
    plain = {
        name: answer.numpy() for name, answer in loaded.signatures["serve_images"](images=pixels).items()
    }
    temperature = 0.3
    expected = tf.nn.softmax(loaded.logits(tf.cast(pixels, tf.float32) / 255) / temperature).numpy()
    highest = expected.max(axis=1)
    limit, least = float(np.median(highest)), float(np.quantile(expected, 0.6))
    write(
        model,
        transform_output,
        tmp_path,
        calibrated=Calibration(temperature, least),
        abstain_below=limit,
        prediction_set=0.95,
    )
    served = tf.saved_model.load(str(tmp_path))
    requests = {"serve_images": {"images": pixels}, "serve_image_bytes": {"image_bytes": encoded}}
    for name, inputs in requests.items():
        answer = {key: value.numpy() for key, value in served.signatures[name](**inputs).items()}
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
        np.testing.assert_array_equal(answer["class_id"], plain["class_id"])
        np.testing.assert_array_equal(answer["top_k_names"], plain["top_k_names"])
        abstained = answer["probabilities"].max(axis=1) < np.float32(limit)
        np.testing.assert_array_equal(answer["abstained"], abstained)
        assert 0 < abstained.sum() < 60
        np.testing.assert_array_equal(answer["class_name"], np.where(abstained, b"", plain["class_name"]))
        most_probable = np.eye(3, dtype=bool)[answer["class_id"]]
        held = (answer["probabilities"] >= np.float32(least)) | most_probable
        np.testing.assert_array_equal(answer["prediction_set"], held)
    # Other formats are converted from this function. Descriptions always name a class.
    np.testing.assert_allclose(
        tf.nn.softmax(served.logits(tf.cast(pixels, tf.float32) / 255)), expected, atol=1e-5
    )
    described = served.signatures["describe_images"](images=pixels)
    assert "abstained" not in described
    np.testing.assert_array_equal(described["class_name"], plain["class_name"])
    np.testing.assert_allclose(described["probabilities"], expected, atol=1e-5)


def test_the_optimizer_is_not_exported(exported, model):
    variables = tf.train.list_variables(str(exported / "variables" / "variables"))
    exported_values = sum(int(np.prod(shape)) for name, shape in variables if "VARIABLE_VALUE" in name)
    # Transform's layer and the seeds of dropout add a few values. The optimizer would double their number.
    assert model.count_params() <= exported_values < model.count_params() + 50


def test_a_failed_export_removes_the_folder(exported, model, transform_output, tmp_path, monkeypatch):
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "earlier").touch()

    def save(_, path, **__):
        assert not directory.exists()
        tf.io.gfile.makedirs(path)
        (directory / "saved_model.pb").touch()
        raise OSError("no space left")

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(OSError, match="no space left"):
        write(model, transform_output, directory)
    assert not any(tmp_path.iterdir())


def test_the_number_of_class_names_must_be_that_of_the_logits(model, transform_output, tmp_path):
    with pytest.raises(ValueError, match="expected 3 class names, found 2"):
        write(model, transform_output, tmp_path / "model", ["a", "b"])
    assert not (tmp_path / "model").exists()
