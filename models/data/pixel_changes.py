"""Changes of the pixels' values of training images: light and colour, blur, noise and JPEG compression."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from settings.training import AugmentationConfig

# Weights of red, green and blue in the brightness that the eye perceives (ITU-R BT.601), as in JPEG files.
_LUMA = (0.299, 0.587, 0.114)
# Weights of red, green and blue (columns) in the luma and the two colour differences of JPEG files (JFIF).
_YCBCR = np.array([_LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)], np.float32)
_BLOCK = 8  # sides of the blocks of a JPEG file, in pixels
# Steps to which the 64 coefficients of a block of luma and of colour are rounded at quality 50 (ITU-T T.81,
# annex K).
_LUMA_STEPS = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOR_STEPS = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
# Share of the images that are blurred, noisy or compressed. With twice as many, a network is
# no more robust, and less accurate on other images (docs/training.md, Robustness).
_DAMAGED = 0.25
_LEAST_DEVIATION = 1e-3  # pixels; so narrow a blur changes nothing


def change(images: tf.Tensor, draws: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Changes the light and colour of each image of a batch, and blurs, disturbs or compresses some.

    Args:
      images: float32 [batch, height, width, 3] in [0, 1].
      draws: random numbers for each image, float32 [batch, 5] in [0, 1): the factors of brightness, contrast
        and saturation; which of blur, noise and JPEG the image gets, or none of them; and its strength.
      config: largest strengths of the changes; a strength of 0 switches a change off.

    Returns:
      float32 [batch, height, width, 3] in [0, 1]. If nothing changes the images, `images` themselves.
    """
    strengths = (config.brightness, config.contrast, config.saturation)
    if any(strengths):
        images = adjust_color(images, 1.0 + (2.0 * draws[:, :3] - 1.0) * strengths)
    if config.blur_fraction or config.noise or config.jpeg:
        images = _damage(images, draws[:, 3:], config)
    return images


@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def adjust_color(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Multiplies the brightness, the contrast and the saturation of images, in this order.

    Contrast is the difference of a value from the mean luma of the image, saturation its difference from the
    luma of the pixel.

    Args:
      images: float32 [batch, height, width, 3] in [0, 1].
      factors: of brightness, contrast and saturation of each image, float32 [batch, 3], 0 or more.

    Returns:
      float32 [batch, height, width, 3], clipped to [0, 1].
    """
    brightness, contrast, saturation = tf.unstack(factors[:, :, None, None, None], axis=1)
    images *= brightness
    images = _blend(_luma(tf.reduce_mean(images, (1, 2), keepdims=True)), images, contrast)
    return tf.clip_by_value(_blend(_luma(images), images, saturation), 0.0, 1.0)


def _luma(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(images * _LUMA, -1, keepdims=True)


def _blend(first: tf.Tensor, second: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Returns the mixture of two tensors, of which `share` is of the second; it may be above 1."""
    return first * (1.0 - share) + second * share


def _damage(images: tf.Tensor, draws: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Blurs some images, adds noise to others, compresses others, and leaves others as they are.

    Args:
      images: float32 [batch, height, width, 3] in [0, 1].
      draws: random numbers for each image, float32 [batch, 2] in [0, 1): which change, and its strength.
      config: largest strengths of the changes. Those above 0 get equal shares of some of the images; the
        others are left as they are.

    Returns:
      float32 [batch, height, width, 3] in [0, 1].
    """
    shorter = tf.cast(tf.reduce_min(tf.shape(images)[1:3]), tf.float32)
    # The noise of a batch depends on its draws alone, so that the batch is the same in a resumed training.
    seed = tf.reduce_sum(tf.bitcast(draws, tf.int32), axis=0)
    kinds = []
    if config.blur_fraction:
        kinds.append(lambda some, strength: blur(some, strength * config.blur_fraction * shorter))
    if config.noise:
        kinds.append(lambda some, strength: add_noise(some, strength * config.noise, seed))
    if config.jpeg:
        kinds.append(lambda some, strength: compress(some, 100.0 * (1.0 - strength * config.jpeg)))
    # Small draws choose one of the changes, others choose the last part, which stays as it is.
    kind = tf.cast(tf.floor(draws[:, 0] / _DAMAGED * len(kinds)), tf.int32)
    kind = tf.minimum(kind, len(kinds))
    parts, strengths, places = (
        tf.dynamic_partition(values, kind, len(kinds) + 1)
        for values in (images, draws[:, 1], tf.range(tf.shape(images)[0]))
    )
    changed = [each(*some) for each, *some in zip(kinds, parts[:-1], strengths[:-1], strict=True)]
    return tf.ensure_shape(tf.dynamic_stitch(places, [*changed, parts[-1]]), images.shape)


def blur(images: tf.Tensor, deviation: tf.Tensor) -> tf.Tensor:
    """Blurs images with Gaussians; at the edges, the weights of the pixels inside add up to 1.

    Args:
      images: float32 [batch, height, width, channels].
      deviation: standard deviation of each image's Gaussian, float32 [batch] in pixels; 0 changes nothing.

    Returns:
      float32 in the range and of the shape of `images`.
    """
    batch, height, width, channels = tf.unstack(tf.shape(images))
    rows = tf.reshape(images, [batch, height, width * channels])
    rows = tf.reshape(tf.matmul(_gaussians(deviation, height), rows), [batch, height, width, channels])
    return tf.einsum("bij,bhjc->bhic", _gaussians(deviation, width), rows)


def _gaussians(deviation: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns the weights [batch, size, size] of the pixels of a row (last axis) in each blurred pixel."""
    position = tf.range(tf.cast(size, tf.float32))
    distance = position[:, None] - position
    deviation = tf.maximum(deviation, _LEAST_DEVIATION)[:, None, None]
    return tf.nn.softmax(-0.5 * (distance / deviation) ** 2)


def add_noise(images: tf.Tensor, deviation: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Adds independent Gaussian noise to each value.

    Args:
      images: float32 [batch, height, width, channels] in [0, 1].
      deviation: standard deviation of the noise of each image, float32 [batch].
      seed: int32 [2]; the same seed gives the same noise.

    Returns:
      float32 of the shape of `images`, clipped to [0, 1].
    """
    noise = tf.random.stateless_normal(tf.shape(images), seed)
    return tf.clip_by_value(images + deviation[:, None, None, None] * noise, 0.0, 1.0)


def compress(images: tf.Tensor, quality: tf.Tensor) -> tf.Tensor:
    """Gives images the losses of a JPEG file whose colours have half the resolution, without writing one.

    Args:
      images: float32 [batch, height, width, 3] in [0, 1].
      quality: quality of each image, on the scale of libjpeg, float32 [batch] from 1 to 100.

    Returns:
      float32 of the shape of `images`, in [0, 1].
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    # The last row and column are repeated until whole blocks of colour, of 16 x 16 pixels, are full.
    for axis, size in ((1, height), (2, width)):
        padded = -(-size // (2 * _BLOCK)) * 2 * _BLOCK
        images = tf.gather(images, tf.minimum(tf.range(padded), size - 1), axis=axis)
    planes = tf.einsum("bhwc,pc->pbhw", images * 255.0, _YCBCR)[..., None]
    luma = _quantize(planes[0] - 128.0, quality, _LUMA_STEPS) + 128.0
    colors = tf.nn.avg_pool2d(tf.concat((planes[1], planes[2]), 0), 2, 2, "VALID")
    colors = _quantize(colors, tf.tile(quality, [2]), _COLOR_STEPS)
    colors = tf.image.resize(colors, tf.shape(luma)[1:3])
    values = tf.concat((luma, *tf.split(colors, 2)), -1)[:, :height, :width]
    rgb = tf.tensordot(values, tf.constant(np.linalg.inv(_YCBCR).T / 255.0, tf.float32), 1)
    return tf.clip_by_value(rgb, 0.0, 1.0)


def _quantize(planes: tf.Tensor, quality: tf.Tensor, steps: tuple[int, ...]) -> tf.Tensor:
    """Rounds the cosine transform of each block of 8 x 8 pixels to multiples of the steps of a quality.

    Args:
      planes: float32 [batch, height, width, 1]; height and width are multiples of 8.
      quality: float32 [batch] from 1 to 100.
      steps: 64 steps at quality 50.

    Returns:
      float32 of the shape of `planes`.
    """
    percent = tf.where(quality < 50.0, 5000.0 / quality, 200.0 - 2.0 * quality)[:, None, None, None]
    divisors = tf.clip_by_value(tf.round(percent * tf.constant(steps, tf.float32) / 100.0), 1.0, 255.0)
    transform = tf.constant(_cosines())
    coefficients = tf.tensordot(tf.nn.space_to_depth(planes, _BLOCK), transform, 1)
    rounded = tf.round(coefficients / divisors) * divisors
    return tf.nn.depth_to_space(tf.tensordot(rounded, tf.transpose(transform), 1), _BLOCK)


def _cosines() -> np.ndarray:
    """Returns the orthonormal cosine transform of a block, float32 [64 pixels, 64 coefficients]."""
    order = np.arange(_BLOCK)
    cosines = np.cos((2 * order[:, None] + 1) * order * np.pi / (2 * _BLOCK)) * np.sqrt(2 / _BLOCK)
    cosines[:, 0] /= np.sqrt(2)
    return np.kron(cosines, cosines).astype(np.float32)
