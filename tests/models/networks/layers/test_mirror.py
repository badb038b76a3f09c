import keras
import numpy as np
import pytest
import tensorflow as tf

from models.networks import cnn
from models.networks.layers import mirror
from models.training import muon
from settings.model import CnnConfig


@pytest.fixture
def images():
    return np.random.default_rng(0).random((6, 9, 13, 4), np.float32)


def outputs_of_mirror_images(images, layer):
    """The layer's outputs for mirror images, mirrored back."""
    return layer(images[:, :, ::-1]).numpy()[:, :, ::-1]


@pytest.mark.parametrize("partners", [[0, 1, 2, 3], [2, 3, 0, 1], [0, 3, 2, 1]])
@pytest.mark.parametrize("use_bias", [False, True])
def test_mirror_images_exchange_the_partners_of_a_convolution(images, partners, use_bias):
    layer = mirror.Convolution(6, 3, partners, use_bias=use_bias, bias_initializer="random_normal")
    outputs = layer(images).numpy()
    assert layer.kernel.shape == (3, 3, 4, 3)
    mirrored = outputs_of_mirror_images(images[..., partners], layer)
    np.testing.assert_allclose(mirrored[..., mirror.halves(6)], outputs, atol=1e-5)
    assert np.abs(outputs[..., :3] - outputs[..., 3:]).max() > 0.1


@pytest.mark.parametrize("partners", [[0, 1, 2, 3], [2, 3, 0, 1], [0, 3, 2, 1]])
@pytest.mark.parametrize("side", [3, 2])
def test_filters_and_their_mirror_images_split_into_two_blocks(partners, side):
    kernel = np.random.default_rng(1).normal(size=(side, side, 4, 5)).astype(np.float32)
    columns = kernel.reshape(-1, 5)
    halves = mirror.Halves(mirror.positions(side, side, partners))
    blocks = halves.split(columns)
    np.testing.assert_allclose(halves.join(*blocks), columns, atol=1e-6)
    whole = mirror.whole(kernel, partners).numpy().reshape(-1, 10)
    values = [np.linalg.svd(block, compute_uv=False) for block in blocks]
    np.testing.assert_allclose(
        np.sort(np.concatenate(values)), np.sort(np.linalg.svd(whole, compute_uv=False)), rtol=1e-5
    )
    orthogonal = tf.reshape(halves.join(*muon.orthogonalize(*blocks)), kernel.shape)
    (expected,) = muon.orthogonalize(whole)
    np.testing.assert_allclose(
        mirror.whole(orthogonal, partners).numpy().reshape(-1, 10), expected, atol=1e-5
    )


def test_a_bias_is_the_same_for_partners(images):
    layer = mirror.Bias([0, 3, 2, 1])
    layer.build(images.shape)
    layer.bias.assign([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(layer(images) - images, np.broadcast_to([1, 3, 3, 3], images.shape), atol=1e-6)


def test_principal_directions_of_symmetric_data_are_symmetric_or_antisymmetric():
    generator = np.random.default_rng(2)
    mirrored = np.array([2, 3, 0, 1, 5, 4])
    vectors = generator.normal(size=(500, 6)) @ generator.normal(size=(6, 6))
    vectors = np.concatenate([vectors, vectors[:, mirrored]])
    moments = vectors.T @ vectors / len(vectors)
    variances, directions = mirror.principal_directions(moments, mirrored)
    np.testing.assert_allclose(directions.T @ moments @ directions, np.diag(variances), atol=1e-10)
    np.testing.assert_allclose(directions.T @ directions, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(directions[mirrored, :3], directions[:, :3], atol=1e-12)
    np.testing.assert_allclose(directions[mirrored, 3:], -directions[:, 3:], atol=1e-12)
    np.testing.assert_allclose(np.sort(variances), np.linalg.eigvalsh(moments))


# Sides that can be halved twice after the whitening, so that the input of every pooling has an even width.
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (33, 33, 3)),
        ({"whitening": False}, (32, 20, 3)),
        ({"batch_normalization": False}, (21, 37, 3)),
        ({"dense_units": 5, "activation": "relu"}, (17, 13, 3)),
    ],
)
def test_an_image_and_its_mirror_image_have_the_same_logits(options, shape):
    keras.utils.set_random_seed(3)  # with some initial weights, all five ReLUs of the dense layer are zero
    config = CnnConfig(mirrored_filters=True, filters=(8, 12), convolutions_per_block=2, **options)
    model = cnn.build(config, shape, 3)
    generator = np.random.default_rng(3)
    if config.whitening:
        pixels = generator.integers(0, 256, (20, *shape)).astype(np.uint8)
        cnn.whiten(model, *cnn.measure_patches(pixels))
    for weight in model.trainable_variables:  # changes the weights as a training would
        weight.assign_add(generator.normal(size=weight.shape) * 0.05)
    images = generator.random((4, *shape), np.float32)
    logits = model(images).numpy()
    np.testing.assert_allclose(model(images[:, :, ::-1]), logits, atol=1e-4)
    assert np.abs(model(images[:, ::-1]) - logits).max() > 1e-3
    assert np.ptp(logits, axis=0).max() > 1e-3
