import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from models import preprocessing
from tests.models import samples


def custom_config(height, width, resize="stretch", background=(255, 255, 255)):
    return {
        "image_size": [height, width],
        "resize": resize,
        "background": list(background),
        "max_pixels": 1_000_000,
    }


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


def test_decode_repeats_grey_and_composes_transparent_pixels_on_the_background(pixels):
    grey, alpha = pixels[:, :, :1], np.full((12, 10, 1), 51, np.uint8)
    encoded = [samples.png(grey), samples.png(np.concatenate([pixels, alpha], axis=2))]
    decoded = preprocessing.decode(tf.constant(encoded), (12, 10), background=(255, 0, 100))
    composed = 0.2 * pixels + 0.8 * np.array([255, 0, 100])
    np.testing.assert_array_equal(decoded[0], np.repeat(grey, 3, axis=2))
    np.testing.assert_allclose(decoded[1], composed, atol=0.5)


def test_decode_resizes_images_of_any_size_in_one_batch():
    flat = [np.full((side, side + 3, 3), 10 * side, np.uint8) for side in (4, 9, 20)]
    decoded = preprocessing.decode(tf.constant([samples.png(image) for image in flat]), (9, 12))
    np.testing.assert_array_equal(decoded[:, 4, 4, 0], [40, 90, 200])


def test_halving_the_size_averages_the_merged_pixels():
    checkerboard = np.indices((16, 16)).sum(axis=0)[..., np.newaxis].repeat(3, axis=2) % 2 * 200
    resized = preprocessing.resize(tf.constant(checkerboard[np.newaxis], tf.uint8), (8, 8))
    # Without antialiasing some of these would be 0 or 200.
    np.testing.assert_allclose(resized[0, 2:-2, 2:-2], 100, atol=1)


@pytest.mark.parametrize("method", ["stretch", "pad", "crop"])
def test_images_with_the_proportions_of_the_output_are_resized_alike_by_all_methods(method):
    for size, output in (
        ((20, 20), (16, 16)),
        ((7, 7), (16, 16)),
        ((32, 24), (16, 12)),
        ((16, 12), (16, 12)),
    ):
        image = np.random.default_rng(1).integers(0, 256, (1, *size, 3), dtype=np.uint8)
        expected = tf.image.resize(image, output, method="bilinear", antialias=True)
        resized = preprocessing.resize(tf.constant(image), output, method, (255, 0, 0))
        np.testing.assert_array_equal(resized, np.round(expected))


def _circle(height, width, radius):
    rows, columns = np.indices((height, width))
    inside = np.hypot(rows - height / 2 + 0.5, columns - width / 2 + 0.5) < radius
    return np.where(inside[..., np.newaxis], 250, 0).repeat(3, axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("method", "expected"),
    # (height, width) in pixels of a circle of 80 pixels in an image of 100 x 400, as the network sees it.
    [("stretch", (51, 13)), ("pad", (13, 13)), ("crop", (51, 51))],
)
def test_pad_and_crop_keep_circles_round(method, expected):
    for transposed in (False, True):
        image = _circle(100, 400, 40)
        image = image.transpose(1, 0, 2) if transposed else image
        (resized,) = preprocessing.resize(tf.constant(image[np.newaxis]), (64, 64), method, (0, 0, 0))
        bright = resized.numpy()[..., 0] > 125
        extent = (bright.any(axis=1).sum(), bright.any(axis=0).sum())
        np.testing.assert_allclose(extent[::-1] if transposed else extent, expected, atol=1)
        centre = [np.flatnonzero(bright.any(axis=axis)).mean() for axis in (0, 1)]
        np.testing.assert_allclose(centre, 31.5, atol=0.5)


def test_pad_adds_margins_of_the_background_on_two_sides():
    white = np.full((1, 10, 41, 3), 255, np.uint8)
    resized = preprocessing.resize(tf.constant(white), (20, 20), "pad", (10, 20, 30)).numpy()[0]
    inside = (resized == 255).all(axis=(1, 2))
    assert np.flatnonzero(inside).tolist() == [7, 8, 9, 10, 11]
    np.testing.assert_array_equal(resized[~inside], np.broadcast_to([10, 20, 30], (15, 20, 3)))


def test_crop_keeps_the_middle_with_the_proportions_of_the_output():
    columns = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, np.newaxis], (1, 10, 40, 3))
    resized = preprocessing.resize(tf.constant(columns), (10, 20), "crop").numpy()
    np.testing.assert_array_equal(resized, columns[:, :, 10:30])


@pytest.mark.parametrize("method", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 200)])
def test_extreme_proportions_keep_at_least_one_pixel(method, size):
    image = np.full((1, *size, 3), 7, np.uint8)
    resized = preprocessing.resize(tf.constant(image), (9, 12), method, (200, 200, 200)).numpy()
    assert resized.shape == (1, 9, 12, 3)
    assert (resized == 7).any()
    assert set(np.unique(resized)) <= {7, 200}


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
        outputs = preprocessing.preprocessing_fn(inputs, custom_config(6, 5))
        assert outputs["image"].shape.as_list() == [None, 6, 5, 3]
        return outputs

    outputs = graph(tf.constant([samples.png(pixels)]), tf.constant([4], tf.int64))
    assert set(outputs) == {"image", "label"}
    assert outputs["label"].numpy().tolist() == [4]
    assert outputs["image"].dtype == tf.float32


def test_transform_need_not_read_the_images_before_it_writes_its_graph():
    specs = {"image": tf.TensorSpec([None], tf.string), "label": tf.TensorSpec([None], tf.int64)}
    function = functools.partial(preprocessing.preprocessing_fn, custom_config=custom_config(6, 5))
    assert tft.get_analyze_input_columns(function, specs) == []


def test_preprocessing_fn_needs_no_label(pixels):
    outputs = preprocessing.preprocessing_fn(
        {"image": tf.constant([samples.png(pixels)])}, custom_config(12, 10)
    )
    np.testing.assert_allclose(outputs["image"][0], pixels / 255.0, atol=1e-7)


def test_preprocessing_fn_resizes_and_composes_as_configured():
    transparent = samples.png(np.zeros((4, 12, 4), np.uint8))
    config = custom_config(6, 6, "pad", (255, 51, 0))
    outputs = preprocessing.preprocessing_fn({"image": tf.constant([transparent])}, config)
    np.testing.assert_allclose(outputs["image"][0], np.broadcast_to([1, 0.2, 0], (6, 6, 3)), atol=1e-6)


def test_the_transform_graph_equals_decode_and_scale(transform_output, pixels):
    encoded = tf.constant([samples.png(pixels)])
    transformed = transform_output.transform_features_layer()({"image": encoded})
    size = (samples.SIDE, samples.SIDE)
    expected = preprocessing.scale(preprocessing.decode(encoded, size, samples.RESIZE, samples.BACKGROUND))
    assert set(transformed) == {"image"}
    np.testing.assert_array_equal(transformed["image"], expected)
