import keras
import numpy as np
import pytest
import tensorflow as tf

from models.networks import cnn
from models.networks.layers import mirror
from models.training import muon, optimizers
from settings.model import CnnConfig
from settings.training import TrainerConfig
from tests.models import samples


def model():
    return cnn.build(CnnConfig(filters=(4, 6), dense_units=5), (8, 8, 3), 3)


def step(network, optimizer, gradients):
    optimizer.apply([tf.constant(g, tf.float32) for g in gradients], network.trainable_variables)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_shrinks_only_kernels(name):
    network = model()
    for variable in network.trainable_variables:
        variable.assign(np.ones(variable.shape))
    config = TrainerConfig(optimizer=name, weight_decay=0.5)
    step(
        network,
        optimizers.create(config, network, 0.1),
        [np.zeros(v.shape) for v in network.trainable_variables],
    )
    for variable in network.trainable_variables:
        is_kernel = variable.path.endswith("kernel")
        np.testing.assert_allclose(variable, 1 - 0.1 * 0.5 if is_kernel else 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "rate", "momentum"),
    [("adam", 0.01, None), ("adamw", 0.01, None), ("sgd", 0.05, 0.6), ("muon", 0.1, 0.6)],
)
def test_every_optimizer_learns_in_fit(name, rate, momentum):
    keras.utils.set_random_seed(0)
    network = cnn.build(CnnConfig(filters=(8, 8), dropout=0.0), (8, 8, 3), 3)
    images = samples.colored(120, 8)
    pixels = images.pixels / np.float32(255)
    cnn.whiten(network, *cnn.measure_patches(images.pixels))
    config = TrainerConfig(optimizer=name, momentum=momentum)
    network.compile(
        optimizers.create(config, network, rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    history = network.fit(pixels, images.labels, batch_size=20, epochs=10, verbose=0).history
    assert history["accuracy"][-1] > 0.95


def test_sgd_has_nesterov_momentum_of_nine_tenths():
    network = model()
    optimizer = optimizers.create(TrainerConfig(optimizer="sgd", weight_decay=0.0), network, 0.1)
    generator = np.random.default_rng(0)
    expected = [variable.numpy() for variable in network.trainable_variables]
    velocity = [np.zeros(value.shape) for value in expected]
    for _ in range(3):
        gradients = [generator.normal(size=value.shape) for value in expected]
        step(network, optimizer, gradients)
        velocity = [0.9 * v - 0.1 * g for v, g in zip(velocity, gradients, strict=True)]
        ahead = [0.9 * v - 0.1 * g for v, g in zip(velocity, gradients, strict=True)]
        expected = [value + a for value, a in zip(expected, ahead, strict=True)]
    for variable, value in zip(network.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, atol=1e-5)


def test_muon_normalises_kernels_and_steps_by_the_orthogonalised_momentum():
    generator = np.random.default_rng(0)
    network = model()
    optimizer = optimizers.create(TrainerConfig(optimizer="muon", momentum=0.6), network, 0.2)
    kernel = network.get_layer("block2_conv1").kernel
    index = [v.path for v in network.trainable_variables].index(kernel.path)
    before = kernel.numpy()
    sums = np.zeros(kernel.shape)
    for _ in range(2):
        gradients = [generator.normal(size=v.shape) for v in network.trainable_variables]
        step(network, optimizer, gradients)
        sums = 0.6 * sums + gradients[index]
        nesterov = (gradients[index] + 0.6 * sums).reshape(-1, 6)
        left, _, right = np.linalg.svd(nesterov, full_matrices=False)
        scaled = before * 6**0.5 / np.linalg.norm(before)
        moved = (scaled - kernel.numpy()).reshape(-1, 6) / 0.2
        # The step has the singular vectors of the momentum, and singular values near 1.
        values = left.T @ moved @ right.T
        np.testing.assert_allclose(values, np.diag(np.diag(values)), atol=1e-4)
        assert (np.diag(values) > 0.3).all()
        assert (np.diag(values) < 1.4).all()
        before = kernel.numpy()


def test_muon_orthogonalises_mirrored_filters_and_their_mirror_images_as_one_matrix():
    network = cnn.build(CnnConfig(filters=(8, 8), mirrored_filters=True, dropout=0.0), (9, 9, 3), 3)
    optimizer = optimizers.create(TrainerConfig(optimizer="muon", momentum=0.0), network, 0.2)
    layer = network.get_layer("block2_conv1")
    index = [v.path for v in network.trainable_variables].index(layer.kernel.path)
    kernel = layer.kernel.numpy()
    generator = np.random.default_rng(0)
    gradients = [generator.normal(size=v.shape) for v in network.trainable_variables]
    # Nearly symmetric gradients: orthogonalised alone, the four filters would not be orthogonal to their
    # mirror images.
    mirrored = mirror.whole(tf.constant(gradients[index]), layer.partners).numpy()[..., 4:]
    gradients[index] += 0.8 * mirrored
    step(network, optimizer, gradients)
    moved = (kernel * 4**0.5 / np.linalg.norm(kernel) - layer.kernel.numpy()) / 0.2
    both = [
        mirror.whole(tf.constant(half), layer.partners).numpy().reshape(-1, 8)
        for half in (gradients[index], moved)
    ]
    left, _, right = np.linalg.svd(both[0], full_matrices=False)
    values = left.T @ both[1] @ right.T
    np.testing.assert_allclose(values, np.diag(np.diag(values)), atol=1e-4)
    assert 0.3 < np.diag(values).min() < np.diag(values).max() < 1.4


def test_muon_updates_biases_and_the_last_layers_with_adam():
    network = model()
    optimizer = optimizers.create(TrainerConfig(optimizer="muon"), network, 0.2)
    adam = keras.optimizers.Adam(0.2 * 0.035, beta_1=0.85, beta_2=0.95)
    twin = model()
    twin.set_weights(network.get_weights())
    generator = np.random.default_rng(1)
    for _ in range(3):
        gradients = [generator.normal(size=v.shape) for v in network.trainable_variables]
        step(network, optimizer, gradients)
        step(twin, adam, gradients)
    for mine, theirs in zip(network.trainable_variables, twin.trainable_variables, strict=True):
        if "conv" not in mine.path or "kernel" not in mine.path:
            np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-4)


@pytest.mark.parametrize("shape", [(4, 30), (30, 4)])
def test_orthogonalize_keeps_the_singular_vectors(shape):
    matrix = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    values = left.T @ muon.orthogonalize(tf.constant(matrix))[0].numpy() @ right.T
    np.testing.assert_allclose(values, np.diag(np.diag(values)), atol=1e-4)
    assert ((np.diag(values) > 0.3) & (np.diag(values) < 1.4)).all()
