import keras
import numpy as np
import pytest
import tensorflow as tf

from models.data.images import Images
from models.networks import cnn
from models.training import loop
from settings.model import CnnConfig

SMALL = CnnConfig(filters=(4, 6), convolutions_per_block=2, dense_units=5, whitening=False)


def test_parameter_counts_and_shapes_follow_from_the_settings():
    model = cnn.build(SMALL, (16, 12, 3), 7)
    convolutions = 9 * (3 * 4 + 4 * 4 + 4 * 6 + 6 * 6)
    batch_norms = 3 * (4 + 4 + 6 + 6)
    dense = 6 * 5 + 5 + 5 * 7 + 7
    assert model.count_params() == convolutions + batch_norms + dense
    assert model.output_shape == (None, 7)
    assert [model.get_layer(f"block{i}_pool").output.shape[1:3] for i in (1, 2)] == [(8, 6), (4, 3)]


def test_without_batch_norm_and_dense_layer_convolutions_have_biases():
    config = SMALL.model_copy(update={"batch_normalization": False, "dense_units": 0})
    model = cnn.build(config, (8, 8, 3), 2)
    assert model.count_params() == (9 * 3 + 1) * 4 + (9 * 4 + 1) * 4 + (9 * 4 + 1) * 6 + (9 * 6 + 1) * 6 + 14
    assert "dense" not in {layer.name for layer in model.layers}


@pytest.mark.parametrize(("pooling", "pooled"), [("max", np.max), ("average", np.mean)])
def test_pooling_follows_the_settings(pooling, pooled):
    model = cnn.build(SMALL.model_copy(update={"pooling": pooling}), (16, 12, 3), 7)
    layers = [model.get_layer(f"block{block}_pool") for block in (1, 2)] + [model.get_layer("pool")]
    images = np.random.default_rng(0).random((2, 16, 12, 3), np.float32)
    poolings = keras.Model(model.input, [[layer.input, layer.output] for layer in layers])
    *in_blocks, (before, after) = poolings(images)
    for block_before, block_after in in_blocks:
        count, height, width, channels = block_after.shape
        windows = np.reshape(block_before, (count, height, 2, width, 2, channels))
        np.testing.assert_allclose(block_after, pooled(windows, axis=(2, 4)), atol=1e-6)
    np.testing.assert_allclose(after, pooled(before.numpy(), axis=(1, 2)), atol=1e-6)


def test_whitening_trains_only_its_biases():
    model = cnn.build(SMALL.model_copy(update={"whitening": True}), (16, 12, 3), 7)
    assert model.get_layer("whitening").count_params() == 24 * 2 * 2 * 3
    assert [v.path for v in model.trainable_variables if "whitening" in v.path] == ["whitening_bias/bias"]
    assert model.get_layer("block1_conv1").input.shape == (None, 15, 11, 24)


@pytest.mark.parametrize("mirrored_filters", [False, True])
def test_whitened_channels_are_uncorrelated_and_have_unit_variance(mirrored_filters):
    generator = np.random.default_rng(0)
    smooth = (
        np.cumsum(generator.integers(-9, 10, (200, 8, 8, 3)), axis=2) + 128
    )  # neighbouring pixels are similar
    pixels = np.clip(smooth + generator.integers(0, 40, (200, 1, 1, 3)), 0, 255).astype(np.uint8)
    pixels[:, :, ::2] //= 2  # every other column is darker
    config = SMALL.model_copy(update={"whitening": True, "mirrored_filters": mirrored_filters})
    model = cnn.build(config, (8, 8, 3), 2)
    cnn.whiten(model, *cnn.measure_patches(pixels))
    if mirrored_filters:
        pixels = np.concatenate([pixels, pixels[:, :, ::-1]])
    whitened = model.get_layer("whitening")(pixels / np.float32(127.5) - 1)
    channels = model.get_layer("whitening_bias")(whitened).numpy().reshape(-1, 24)
    np.testing.assert_allclose(channels.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(channels[:, :12], rowvar=False), np.eye(12), atol=0.05)
    np.testing.assert_allclose(channels[:, 12:], -channels[:, :12], atol=1e-5)


def test_identity_initializer_copies_channels():
    kernel = cnn.IdentityInitializer(seed=3)((3, 3, 4, 6)).numpy()
    images = np.random.default_rng(0).random((2, 5, 5, 4), dtype=np.float32)
    outputs = tf.nn.conv2d(images, kernel, 1, "SAME")
    np.testing.assert_allclose(outputs[..., :4], images, rtol=1e-6)
    others = np.abs(kernel[..., 4:])
    assert 0.9 * 36**-0.5 < others.max() <= 36**-0.5
    wide = cnn.IdentityInitializer(seed=3)((3, 3, 6, 4)).numpy()
    assert (wide.sum(axis=(0, 1)) == np.eye(6)[:, :4]).all()


def test_layer_names_are_stable():
    first, second = (cnn.build(SMALL, (8, 8, 3), 2) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert {"block1_conv1", "block2_conv2_bn", "dropout", "logits"} <= {layer.name for layer in first.layers}


def test_outputs_are_logits_and_not_probabilities():
    model = cnn.build(SMALL, (8, 8, 3), 3)
    model.get_layer("logits").set_weights([np.zeros((5, 3)), np.array([-2.0, 0.0, 5.0])])
    np.testing.assert_allclose(model(np.ones((1, 8, 8, 3), "float32")), [[-2, 0, 5]])


@pytest.mark.parametrize("side", [8, 9, 15, 33])
def test_three_blocks_accept_images_of_eight_pixels_and_more(side):
    assert cnn.build(CnnConfig(filters=(2, 2, 2), whitening=False), (side, side, 3), 2).output_shape == (
        None,
        2,
    )


def test_a_shortcut_bypasses_all_but_the_first_of_three_convolutions():
    config = SMALL.model_copy(update={"batch_normalization": False, "activation": "relu"})
    one, three = (
        cnn.build(config.model_copy(update={"convolutions_per_block": count}), (8, 8, 3), 2)
        for count in (1, 3)
    )
    names = {layer.name for layer in one.layers}
    for layer in three.layers:
        if layer.name in names:
            layer.set_weights(one.get_layer(layer.name).get_weights())
        else:
            layer.set_weights([np.zeros(value.shape) for value in layer.get_weights()])
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(three(images), one(images))


@pytest.mark.parametrize("mirrored_filters", [False, True])
def test_the_network_for_any_size_shares_weights_and_outputs(mirrored_filters):
    config = CnnConfig(filters=(4, 6), convolutions_per_block=3, mirrored_filters=mirrored_filters)
    model = cnn.build(config, (16, 16, 3), 3)
    other = loop._for_any_size(model)
    assert [v.path for v in other.variables] == [v.path for v in model.variables]
    images = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    np.testing.assert_array_equal(other(images), model(images))
    assert other(images[:, :11, :9]).shape == (2, 3)


@pytest.mark.parametrize("whitening", [False, True])
def test_neither_brightness_nor_contrast_changes_the_logits_of_standardized_images(whitening):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 16, 12, 3), dtype=np.uint8)
    config = SMALL.model_copy(update={"whitening": whitening})
    images = tf.constant(pixels, tf.float32) / 255
    changed = images * tf.constant(np.linspace(0.1, 0.9, 50), tf.float32)[:, None, None, None] + 0.1
    for standardization in (False, True):
        config = config.model_copy(update={"standardization": standardization})
        model = cnn.build(config, (16, 12, 3), 7)
        cnn.prepare(model, config, Images(pixels, np.zeros(50, np.int64)))
        difference = np.abs(model(images) - model(changed)).max() / np.abs(model(images)).max()
        assert difference < 0.1 if standardization else difference > 0.5
    if whitening:
        standardized = (pixels / 127.5 - 1).astype(np.float64)
        standardized -= standardized.mean((1, 2, 3), keepdims=True)
        standardized /= standardized.std((1, 2, 3), keepdims=True)
        whitened = model.get_layer("whitening_bias")(model.get_layer("whitening")(standardized))
        np.testing.assert_allclose(np.cov(whitened.numpy().reshape(-1, 24)[:, :12].T), np.eye(12), atol=0.02)
