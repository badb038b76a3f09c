import keras
import numpy as np
import pytest
import tensorflow as tf

from models.networks.layers import normalization
from models.training import precision


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(3.0, 2.0, (6, 9, 13, 4)).astype(np.float32)


def outputs_and_gradients(layer, images, training):
    images = tf.constant(images)
    upstream = tf.constant(np.random.default_rng(1).normal(size=images.shape).astype(np.float32))
    layer.build(images.shape)
    layer.beta.assign(np.linspace(-1, 1, layer.beta.shape[0]))
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=training)
        loss = tf.reduce_sum(outputs * upstream)
    return [outputs, *tape.gradient(loss, [images, layer.beta.value])]


@pytest.mark.parametrize("synchronized", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_layer_equals_that_of_keras_without_a_gain(images, training, synchronized):
    layer = normalization.BatchNormalization(momentum=0.5, synchronized=synchronized)
    reference = keras.layers.BatchNormalization(momentum=0.5, scale=False)
    found = outputs_and_gradients(layer, images, training)
    expected = outputs_and_gradients(reference, images, training)
    for actual, desired in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-4)
    for actual, desired in zip(layer.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-5)


def test_parts_share_statistics_and_parameters(images):
    in_parts = normalization.BatchNormalization(parts=2, momentum=0.5)
    single = normalization.BatchNormalization(momentum=0.5)
    stacked = np.concatenate([images[..., :2], images[..., 2:]])
    for training in (True, False):
        outputs = in_parts(images, training=training)
        expected = single(stacked, training=training)
        np.testing.assert_allclose(outputs[..., :2], expected[:6], atol=1e-5)
        np.testing.assert_allclose(outputs[..., 2:], expected[6:], atol=1e-5)
    for actual, desired in zip(in_parts.get_weights(), single.get_weights(), strict=True):
        assert actual.shape == (2,)
        np.testing.assert_allclose(actual, desired, rtol=1e-5)


def test_a_frozen_layer_uses_its_statistics_without_updating_them(images):
    layer = normalization.BatchNormalization(epsilon=1e-5)
    layer.trainable = False
    np.testing.assert_allclose(layer(images, training=True), images / np.sqrt(1 + 1e-5), rtol=1e-5)


def test_statistics_of_bfloat16_images_are_float32(images):
    with precision.policy("mixed_bfloat16"):
        layer = normalization.BatchNormalization(momentum=0.0)
    outputs = layer(tf.cast(images, tf.bfloat16), training=True)
    assert outputs.dtype == tf.bfloat16
    rounded = tf.cast(tf.cast(images, tf.bfloat16), tf.float32).numpy()
    np.testing.assert_allclose(layer.moving_mean, rounded.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, rounded.var(axis=(0, 1, 2)), rtol=1e-4)


def test_a_saved_layer_is_loaded_unchanged(images, tmp_path):
    inputs = keras.Input((9, 13, 4))
    model = keras.Model(inputs, normalization.BatchNormalization(parts=2, momentum=0.5)(inputs))
    model(images, training=True)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(images), model(images))


@pytest.mark.parametrize(
    ("steps_per_epoch", "momentum"), [(1, 0.6), (10, 0.6), (20, 0.8), (40, 0.9), (400, 0.9)]
)
def test_momentum_averages_over_a_quarter_of_an_epoch(steps_per_epoch, momentum):
    inputs = keras.Input((9, 13, 4))
    layer = normalization.BatchNormalization()
    model = keras.Model(inputs, layer(inputs))
    normalization.set_momentum(model, steps_per_epoch)
    assert layer.momentum == pytest.approx(momentum)
