import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from models import attribution

SIDE = 16
CLASSES = 3


def noise(count, seed=0):
    return np.random.default_rng(seed).uniform(size=(count, SIDE, SIDE, 3)).astype(np.float32)


class _Exported(tf.Module):
    def __init__(self, network):
        super().__init__()
        self._network = network

    @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32)], autograph=False)
    def logits(self, images):
        return self._network(images, training=False)


@pytest.fixture(scope="module")
def restored(tmp_path_factory):
    """A Keras network with batch normalisation, after it was saved and loaded as a SavedModel."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.layers.Input((SIDE, SIDE, 3)),
            keras.layers.Conv2D(8, 3, activation="relu", padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(8, 3, activation="relu", strides=2),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(CLASSES, kernel_initializer=keras.initializers.RandomNormal(stddev=2)),
        ]
    )
    for _ in range(20):  # moves the averages of batch normalisation away from their initial values
        network(noise(8), training=True)
    directory = str(tmp_path_factory.mktemp("model"))
    tf.saved_model.save(_Exported(network), directory)
    return tf.saved_model.load(directory)


def test_attributions_of_a_linear_function_are_weight_times_difference():
    weights = np.random.default_rng(1).normal(size=(SIDE * SIDE * 3, CLASSES)).astype(np.float32)

    def logits(images):
        return tf.reshape(images, [-1, SIDE * SIDE * 3]) @ weights

    images, baselines = noise(2), noise(2, seed=1)
    attributed = attribution.attributions(logits, images, np.array([2, 0]), baselines, steps=1)
    expected = (images - baselines) * weights[:, [2, 0]].T.reshape(2, SIDE, SIDE, 3)
    np.testing.assert_allclose(attributed, expected, atol=1e-6)


def test_the_integral_is_exact_for_a_quadratic_function():
    def logits(images):
        return tf.reduce_sum(images**2, axis=[1, 2])

    images, baselines = noise(3), noise(3, seed=1)
    attributed = attribution.attributions(logits, images, np.array([0, 1, 2]), baselines, steps=8)
    expected = np.zeros_like(images)
    for i in range(3):  # the logit of class i depends on channel i only
        expected[i, ..., i] = images[i, ..., i] ** 2 - baselines[i, ..., i] ** 2
    np.testing.assert_allclose(attributed, expected, atol=1e-5)


def test_attributions_of_a_restored_network_add_up_to_the_change_of_the_logit(restored):
    images = noise(40)  # more than one batch
    class_ids = np.arange(40) % CLASSES
    baselines = np.zeros_like(images)
    attributed = attribution.attributions(restored.logits, images, class_ids, baselines, steps=64).numpy()
    change = (restored.logits(images) - restored.logits(baselines)).numpy()[np.arange(40), class_ids]
    assert np.ptp(change) > 0.5
    np.testing.assert_allclose(attributed.sum(axis=(1, 2, 3)), change, atol=0.01)


def test_the_heat_is_smoothed_and_scaled_as_with_scipy():
    images = np.random.default_rng(2).uniform(size=(3, 9, 20, 3)).astype(np.float32)
    weights = np.random.default_rng(3).normal(size=(9 * 20 * 3, CLASSES)).astype(np.float32)

    def logits(batch):
        return tf.reshape(batch, [-1, 9 * 20 * 3]) @ weights

    baselines = ndimage.gaussian_filter(images, (0, 0.2 * 20, 0.2 * 20, 0))
    attributed = (images - baselines) * weights.T.reshape(3, 9, 20, 3)
    heat = ndimage.gaussian_filter(np.abs(attributed).sum(axis=-1), (0, 0.03 * 20, 0.03 * 20))
    heat /= np.percentile(heat, 99, axis=(1, 2), keepdims=True)
    computed = attribution.integrated_gradients(logits, images, np.arange(3))
    np.testing.assert_allclose(computed, heat.clip(0, 1), atol=1e-4)


def test_heat_is_in_the_part_of_the_image_that_the_logits_depend_on(restored):
    def logits(images):
        half = SIDE // 2
        quadrant = images[:, :half, half:]
        return restored.logits(tf.pad(quadrant, [[0, 0], [0, half], [half, 0], [0, 0]]))

    heat = attribution.integrated_gradients(logits, noise(4), np.array([0, 1, 2, 0])).numpy()
    assert heat.shape == (4, SIDE, SIDE)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max(axis=(1, 2)) == pytest.approx(1)
    in_quadrant = heat[:, : SIDE // 2, SIDE // 2 :].sum(axis=(1, 2))
    # Smoothing spreads a little heat over the border of the quadrant.
    assert np.all(in_quadrant > 0.9 * heat.sum(axis=(1, 2)))


def test_an_image_that_equals_its_baseline_has_no_heat(restored):
    images = noise(2)
    class_ids = np.array([0, 1])
    assert not np.any(attribution.integrated_gradients(restored.logits, images, class_ids, baseline=images))
    # Blurring does not change a uniform image, so it equals the default baseline; black is a different one.
    uniform = np.full_like(images, 0.5)
    assert not np.any(attribution.integrated_gradients(restored.logits, uniform, class_ids))
    black = np.zeros(3)
    assert np.any(attribution.integrated_gradients(restored.logits, uniform, class_ids, baseline=black))
