"""The convolutional network for small images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from models.data.images import Images
from models.networks.layers import convolution, gelu, mirror, normalization
from settings.model import WHITENED_SIDE, CnnConfig

WHITENING = "whitening"
_WHITENING_PATCHES = 2_000_000  # approximate number of patches that are sampled
_CHUNK = 50  # images whose patches are in memory at a time
_WHITENING_EPSILON = 5e-4  # added to the variances, as a fraction of their mean
_STANDARDIZATION_EPSILON = 1e-4  # added to the variance of each image with values in [-1, 1]
_POOLINGS = {
    "max": (keras.layers.MaxPooling2D, keras.layers.GlobalMaxPooling2D),
    "average": (keras.layers.AveragePooling2D, keras.layers.GlobalAveragePooling2D),
}


@keras.saving.register_keras_serializable("models")
class IdentityInitializer(keras.initializers.VarianceScaling):
    """Initialises the first filters of a convolution to the identity, and the others at random.

    With `n` input channels, filter `i < n` copies input channel `i`; the weights of the other filters are
    uniform in +-1/sqrt(n height width). From airbench (arXiv:2404.00498).

    Args:
      passed_on: number of input channels that are copied, counted from the first; None copies all of them.
      seed: seed of the random filters.
    """

    def __init__(self, passed_on: int | None = None, seed: int | None = None) -> None:
        super().__init__(scale=1 / 3, mode="fan_in", distribution="uniform", seed=seed)
        self._passed_on = passed_on

    def __call__(self, shape: tuple[int, int, int, int], dtype: Any = None) -> Any:
        height, width, inputs, outputs = shape
        copied = range(min(self._passed_on or inputs, outputs))
        identity = np.zeros(shape)
        identity[height // 2, width // 2, copied, copied] = 1.0
        is_random = np.ones(outputs)
        is_random[copied] = 0.0
        return super().__call__(shape, dtype) * is_random + identity

    def get_config(self) -> dict[str, Any]:
        return {"passed_on": self._passed_on, "seed": super().get_config()["seed"]}


def build(config: CnnConfig, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds the untrained network.

    The network begins with an optional standardisation of each image, and an optional 2x2 convolution whose
    weights `whiten` sets. One block per entry of `config.filters` follows: a 3x3 convolution, 2x2 pooling,
    batch normalisation and the activation, then the block's other convolutions, each with batch normalisation
    and activation. The pooling follows the first convolution of a block rather than the last, so that most of
    the arithmetic is done on a quarter of the pixels. In blocks of three or more convolutions, a shortcut
    bypasses all but the first. The network ends with global pooling, an optional dense layer, dropout, and
    the layer that computes the logits. Apart from the optional dense layer, this is airbench's network
    (arXiv:2404.00498), generalised to any number, width and depth of blocks.

    With `config.mirrored_filters`, half of the filters are mirror images of the other half (see `mirror`). An
    image and its mirror image then have the same logits if the input of every pooling has an even width, and
    nearly the same logits otherwise. Pooling windows of three pixels would make the logits equal for odd
    widths as well, but cost half a point on CIFAR-10.

    Args:
      config: the network's layers, widths and depths.
      image_shape: (height, width, channels) of the images.
      num_classes: number of logits.

    Returns:
      A functional model from float32 [batch, height, width, channels] in [0, 1] to float32 logits
      [batch, num_classes].
    """
    pooling, global_pooling = _POOLINGS[config.pooling]
    inputs = keras.Input(image_shape, name="image")
    x = _scale(config, inputs)
    partners = list(range(image_shape[-1])) if config.mirrored_filters else None
    if config.whitening:
        directions = WHITENED_SIDE**2 * image_shape[-1]
        whitening = keras.layers.Conv2D(
            2 * directions, WHITENED_SIDE, use_bias=False, trainable=False, dtype="float32", name=WHITENING
        )
        if config.mirrored_filters:
            partners = _whitened_partners(directions)
        x = mirror.Bias(partners, dtype="float32", name=f"{WHITENING}_bias")(whitening(x))
        x = _activation(config.activation, f"{WHITENING}_activation")(x)
    for block, filters in enumerate(config.filters, start=1):
        for index in range(1, config.convolutions_per_block + 1):
            name = f"block{block}_conv{index}"
            if index == 2:
                shortcut = x
            options: dict[str, Any] = {"use_bias": not config.batch_normalization, "name": name}
            if partners is not None:
                initializer = IdentityInitializer(mirror.representatives(partners))
                layer = mirror.Convolution(filters, 3, partners, kernel_initializer=initializer, **options)
                partners = mirror.halves(filters)
            else:
                layer = convolution.Convolution(
                    filters, 3, kernel_initializer=IdentityInitializer(), **options
                )
            x = layer(x)
            if index == 1:
                x = pooling(2, name=f"block{block}_pool")(x)
            if config.batch_normalization:
                # The layer has no gain, which would be of no use before the next convolution. A filter and
                # its mirror image share their statistics. `normalization.set_momentum` sets the momentum for
                # the number of steps per epoch before the training begins.
                x = normalization.BatchNormalization(
                    parts=2 if config.mirrored_filters else 1,
                    momentum=normalization.MIN_MOMENTUM,
                    epsilon=1e-5,
                    name=f"{name}_bn",
                )(x)
            if index == config.convolutions_per_block > 2:
                x = keras.layers.Add(name=f"block{block}_shortcut")([x, shortcut])
            x = _activation(config.activation, f"{name}_activation")(x)
    x = global_pooling(name="pool")(x)
    if config.mirrored_filters:
        x = keras.layers.Reshape((2, config.filters[-1] // 2), name="halves")(x)
        x = keras.layers.GlobalAveragePooling1D(name="mirror_pool")(x)
    if config.dense_units:
        x = keras.layers.Dense(
            config.dense_units, activation=config.activation, kernel_initializer="he_normal", name="dense"
        )(x)
    x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    # Float32 even in a bfloat16 network, in which a softmax would have only three digits.
    logits = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=1 / 256),
        dtype="float32",
        name="logits",
    )(x)
    return keras.Model(inputs, logits, name="cnn")


def prepare(
    model: keras.Model,
    config: CnnConfig,
    images: Images,
    average: Callable[[np.ndarray], np.ndarray] = lambda values: values,
) -> None:
    """Sets the weights of the whitening convolution, if the network has one.

    Args:
      model: the network that `build` returned.
      config: the settings that `model` was built from.
      images: the training images from whose statistics the weights are computed.
      average: averages an array over all workers that train together, weighted by each worker's image count.
    """
    if config.whitening:
        mean, moments = measure_patches(images.pixels, config.standardization)
        whiten(model, average(mean), average(moments))


def measure_patches(pixels: np.ndarray, standardization: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Measures the statistics of image patches that `whiten` needs.

    Args:
      pixels: uint8 [count, height, width, channels]. Many images are sampled at regular intervals over the
        split; few images are all used.
      standardization: standardises each image after scaling it, as the network does.

    Returns:
      Mean, float64 [n], and second moments, float64 [n, n], of the 2x2 patches of the images scaled to
      [-1, 1]. `n` is 4 x channels; the elements of a patch are in the order of a convolution's kernel.
    """
    count, height, width, channels = pixels.shape
    step = max(1, count * height * width // _WHITENING_PATCHES)
    size = WHITENED_SIDE**2 * channels
    total, mean, moments = 0, np.zeros(size), np.zeros((size, size))
    for start in range(0, count, step * _CHUNK):
        images = pixels[start : start + step * _CHUNK : step].astype(np.float64) / 127.5 - 1.0
        if standardization:
            images -= images.mean((1, 2, 3), keepdims=True)
            images /= np.sqrt(images.var((1, 2, 3), keepdims=True) + _STANDARDIZATION_EPSILON)
        windows = np.lib.stride_tricks.sliding_window_view(
            images,
            (WHITENED_SIDE, WHITENED_SIDE),
            axis=(1, 2),  # type: ignore[call-overload,unused-ignore]  # NumPy 1.26 declares one axis
        )
        patches = np.moveaxis(windows, 3, -1).reshape(-1, size)
        total += len(patches)
        mean += patches.sum(axis=0)
        moments += patches.T @ patches
    return mean / total, moments / total


def whiten(model: keras.Model, mean: np.ndarray, moments: np.ndarray) -> None:
    """Sets the weights of the first convolution so that its output channels are decorrelated.

    The filters are the principal directions of 2x2 patches of the images, each divided by the standard
    deviation along it, followed by the negatives of these filters, because an activation cuts off half of
    each channel's range. Only the biases are trained, which at first subtract the mean patch.

    Args:
      model: the network that `build` returned for a configuration with `whitening`.
      mean: mean of the patches, float64 [n], as `measure_patches` returns it.
      moments: second moments of the patches, float64 [n, n], as `measure_patches` returns them.
    """
    bias = model.get_layer(f"{WHITENING}_bias")
    if bias.partners is None:
        variances, directions = np.linalg.eigh(moments - np.outer(mean, mean))
    else:
        # The statistics are those of all images and their mirror images together.
        mirrored = mirror.positions(WHITENED_SIDE, WHITENED_SIDE, range(len(mean) // WHITENED_SIDE**2))
        mean = (mean + mean[mirrored]) / 2
        variances, directions = mirror.principal_directions(moments - np.outer(mean, mean), mirrored)
    filters = directions / np.sqrt(variances + _WHITENING_EPSILON * variances.mean())
    filters = np.concatenate([filters, -filters], axis=1)
    layer = model.get_layer(WHITENING)
    layer.kernel.assign(filters.reshape(layer.kernel.shape))
    bias.bias.assign(-mean @ filters)


def _scale(config: CnnConfig, images: keras.KerasTensor) -> keras.KerasTensor:
    """Scales images from [0, 1] to [-1, 1], and standardises each of them if it is configured."""
    # Float32 even in a bfloat16 network: whitening amplifies small differences between neighbouring pixels,
    # and bfloat16 has too few digits to represent even a single pixel exactly.
    scaled = keras.layers.Rescaling(2.0, offset=-1.0, dtype="float32", name="rescale")(images)
    if not config.standardization:
        return scaled
    return keras.layers.LayerNormalization(
        axis=(1, 2, 3),
        epsilon=_STANDARDIZATION_EPSILON,
        center=False,
        scale=False,
        dtype="float32",
        name="standardize",
    )(scaled)


def _activation(name: str, layer_name: str) -> keras.layers.Layer:
    if name == "gelu":
        return gelu.Gelu(name=layer_name)
    return keras.layers.Activation(name, name=layer_name)


def _whitened_partners(directions: int) -> list[int]:
    """Returns the partner of each channel of the whitening convolution; see `mirror`.

    Of the principal directions, the first half are symmetric: each is its own mirror image. The second half
    are antisymmetric: the mirror image of each is its negative, which is the filter `directions` channels
    later, because the negatives of all directions follow the directions.
    """
    half = directions // 2
    return [
        *range(half),
        *range(directions + half, 2 * directions),
        *range(directions, directions + half),
        *range(half, directions),
    ]
