import keras
import numpy as np
import pytest
import tensorflow as tf

from models.networks.layers import convolution
from models.training import precision


def normal(seed, *shape):
    # Rounded to bfloat16, so that both precisions start from the same values.
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32)


@pytest.mark.parametrize("gradient", [convolution.gradient_by_convolution, convolution.gradient_by_products])
@pytest.mark.parametrize(
    ("side", "height", "width"),
    [(side, *size) for side in (1, 3, 5) for size in ((7, 7), (1, 4), (6, 3))],
)
def test_the_gradient_of_the_filters_sums_over_all_pixels(side, height, width, gradient):
    images, upstream = normal(0, 5, height, width, 2), normal(1, 5, height, width, 3)
    margin = side // 2
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    expected = np.zeros((side, side, 2, 3))
    for down in range(side):
        for right in range(side):
            shifted = padded[:, down : down + height, right : right + width]
            expected[down, right] = np.einsum("nhwi,nhwo->io", shifted, upstream)
    np.testing.assert_allclose(gradient(images, upstream, side), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (4, 4, ["gradient_by_convolution"]),
        (8, 2, ["gradient_by_convolution"]),
        (5, 4, ["gradient_by_products"]),
        (8, 8, ["gradient_by_products"]),
        (9, 8, []),
    ],
)
def test_bfloat16_on_a_cpu_agrees_with_float32(no_gpu, monkeypatch, height, width, expected):
    calls = []

    def spy(name):
        original = getattr(convolution, name)

        def recorded(*arguments):
            tf.py_function(lambda: calls.append(name), [], [])
            return original(*arguments)

        monkeypatch.setattr(convolution, name, recorded)

    spy("gradient_by_convolution")
    spy("gradient_by_products")
    images, upstream = normal(0, 4, height, width, 6), normal(1, 4, height, width, 5)
    results = []
    for policy in ("float32", "mixed_bfloat16"):
        with precision.policy(policy):
            inputs = keras.Input((None, None, 6))
            layer = convolution.Convolution(5, 3, use_bias=False)
            model = keras.Model(inputs, layer(inputs))
        layer.kernel.assign(normal(2, *layer.kernel.shape))

        @tf.function
        def step(model=model, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = tf.cast(model(images), tf.float32)
                loss = tf.reduce_sum(outputs * upstream)
            return [outputs, *tape.gradient(loss, [images, layer.kernel.value])]

        results.append(step())
    for in_float32, mixed in zip(*results, strict=True):
        scale = np.abs(in_float32).max()
        np.testing.assert_allclose(mixed / scale, in_float32 / scale, atol=0.01)
    assert calls == expected


def test_a_layer_is_restored_from_its_configuration():
    layer = convolution.Convolution(5, 3, use_bias=False)
    restored = convolution.Convolution.from_config(layer.get_config())
    assert restored(np.zeros((1, 5, 6, 2))).shape == (1, 5, 6, 5)
    assert not restored.use_bias
