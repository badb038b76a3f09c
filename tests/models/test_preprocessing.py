import numpy as np
import pytest
import tensorflow as tf

from models import preprocessing
from tests.models import samples


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def test_decode_keeps_the_pixels_of_images_that_already_have_the_right_size(pixels):
    decoded = preprocessing.decode(tf.constant([samples.png(pixels)] * 2), (12, 10))
    assert decoded.dtype == tf.uint8
    np.testing.assert_array_equal(decoded, [pixels, pixels])


def test_decode_reads_jpeg(pixels):
    encoded = tf.io.encode_jpeg(pixels)
    np.testing.assert_array_equal(
        preprocessing.decode(encoded[tf.newaxis], (12, 10))[0], tf.io.decode_jpeg(encoded)
    )


def test_decode_repeats_grey_and_drops_alpha(pixels):
    grey, alpha = pixels[:, :, :1], np.full((12, 10, 1), 7, np.uint8)
    encoded = [samples.png(grey), samples.png(np.concatenate([pixels, alpha], axis=2))]
    decoded = preprocessing.decode(tf.constant(encoded), (12, 10))
    np.testing.assert_array_equal(decoded, [np.repeat(grey, 3, axis=2), pixels])


def test_decode_resizes_images_of_any_size_in_one_batch():
    flat = [np.full((side, side + 3, 3), 10 * side, np.uint8) for side in (4, 9, 20)]
    decoded = preprocessing.decode(tf.constant([samples.png(image) for image in flat]), (9, 12))
    np.testing.assert_array_equal(decoded[:, 4, 4, 0], [40, 90, 200])


def test_halving_the_size_averages_the_merged_pixels():
    checkerboard = np.indices((16, 16)).sum(axis=0)[..., np.newaxis].repeat(3, axis=2) % 2 * 200
    resized = preprocessing.resize(tf.constant(checkerboard[np.newaxis], tf.uint8), (8, 8))
    # Without antialiasing some of these would be 0 or 200.
    np.testing.assert_allclose(resized[0, 2:-2, 2:-2], 100, atol=1)


def test_bytes_that_are_not_an_image_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        preprocessing.decode(tf.constant([b"not an image"]), (8, 8))


def test_an_empty_batch_stays_empty():
    assert preprocessing.decode(tf.constant([], tf.string), (8, 9)).shape == (0, 8, 9, 3)


def test_uint8_and_scaled_are_exact_inverses():
    every_value = tf.range(256, dtype=tf.int32)
    scaled = preprocessing.scale(tf.cast(every_value, tf.uint8))
    assert (float(scaled[0]), float(scaled[255])) == (0.0, 1.0)
    np.testing.assert_array_equal(preprocessing.to_uint8(scaled), every_value)


def test_preprocessing_fn_in_a_graph_has_static_sizes_and_drops_other_features(pixels):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64)])
    def graph(image, label):
        inputs = {"image": image, "label": label, "id": tf.sparse.from_dense(["x"])}
        outputs = preprocessing.preprocessing_fn(inputs, {"image_size": [6, 5]})
        assert outputs["image"].shape.as_list() == [None, 6, 5, 3]
        return outputs

    outputs = graph(tf.constant([samples.png(pixels)]), tf.constant([4], tf.int64))
    assert set(outputs) == {"image", "label"}
    assert outputs["label"].numpy().tolist() == [4]
    assert outputs["image"].dtype == tf.float32


def test_preprocessing_fn_needs_no_label(pixels):
    outputs = preprocessing.preprocessing_fn(
        {"image": tf.constant([samples.png(pixels)])}, {"image_size": [12, 10]}
    )
    np.testing.assert_allclose(outputs["image"][0], pixels / 255.0, atol=1e-7)


def test_the_transform_graph_equals_decode_and_scale(transform_output, pixels):
    encoded = tf.constant([samples.png(pixels)])
    transformed = transform_output.transform_features_layer()({"image": encoded})
    expected = preprocessing.scale(preprocessing.decode(encoded, (samples.SIDE, samples.SIDE)))
    assert set(transformed) == {"image"}
    np.testing.assert_array_equal(transformed["image"], expected)
