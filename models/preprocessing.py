"""Turns encoded images into network inputs, in the same way for training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from datasets import features
from datasets.decoding import MAX_PIXELS
from models import decoding
from models.decoding import CHANNELS
from settings.images import WHITE, Color, ResizeMethod

# Keys in Transform's custom_config.
IMAGE_SIZE = "image_size"  # [height, width]
RESIZE = "resize"  # `method` of `resize`
BACKGROUND = "background"  # [red, green, blue]
LARGEST = "max_pixels"  # `max_pixels` of `decode`


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Decodes and scales images; called by Transform, whose graph is part of the served model.

    Args:
      inputs: `image`, encoded PNG or JPEG, string [batch]; `label`, int64 [batch], which may be missing. Any
        other features are dropped.
      custom_config: `image_size`, the [height, width] of the output; `resize`, `background` and `max_pixels`,
        the `method`, the `background` and the `max_pixels` of `decode`.

    Returns:
      `image`, float32 [batch, height, width, 3] in [0, 1]; and, if `inputs` have it, `label`, int64 [batch].
    """
    height, width = custom_config[IMAGE_SIZE]
    red, green, blue = custom_config[BACKGROUND]
    images = decode(
        inputs[features.IMAGE],
        (height, width),
        custom_config[RESIZE],
        (red, green, blue),
        custom_config[LARGEST],
    )
    outputs = {features.IMAGE: scale(images)}
    if features.LABEL in inputs:
        outputs[features.LABEL] = tf.cast(inputs[features.LABEL], tf.int64)
    return outputs


def decode(
    image_bytes: tf.Tensor,
    size: tuple[int, int],
    method: ResizeMethod = "stretch",
    background: Color = WHITE,
    max_pixels: int = MAX_PIXELS,
) -> tf.Tensor:
    """Decodes images upright and opaque, as `decoding.map_decoded` does, and resizes them to the same size.

    Args:
      image_bytes: encoded PNG or JPEG of any size, string [batch]; grey, RGB, or either with transparency.
      size: (height, width) of the output.
      method: as in `resize`.
      background: colour behind transparent pixels, and of the margins of the method `pad`.
      max_pixels: largest number of pixels of an encoded image.

    Returns:
      uint8 [batch, height, width, 3].

    Raises:
      tf.errors.InvalidArgumentError: the bytes are not an image that TensorFlow can decode, or one of more
        pixels.
    """

    def resize_one(image: tf.Tensor) -> tf.Tensor:
        return resize(image[tf.newaxis], size, method, background)[0]

    return decoding.map_decoded(
        image_bytes, resize_one, tf.TensorSpec([*size, CHANNELS], tf.uint8), background, max_pixels
    )


def resize(
    images: tf.Tensor, size: tuple[int, int], method: ResizeMethod = "stretch", background: Color = WHITE
) -> tf.Tensor:
    """Resizes images bilinearly, with antialiasing, unless they already have the right size.

    Args:
      images: uint8 [batch, any height, any width, 3].
      size: (height, width) of the output.
      method: what becomes of images that have other proportions than the output. `stretch` changes their
        proportions, `pad` adds margins on two sides, and `crop` cuts off two sides.
      background: colour of the margins.

    Returns:
      uint8 [batch, height, width, 3]; images that already have this size keep their values exactly.
    """

    def resized() -> tf.Tensor:
        inside = _crop(images, size) if method == "crop" else images
        inner_size = _largest_inside(tf.shape(images)[1:3], size) if method == "pad" else size
        values = tf.image.resize(inside, inner_size, method="bilinear", antialias=True)
        # Rounds to uint8 values, so that scaled images can be converted back to uint8 without loss.
        rounded = tf.saturate_cast(tf.round(values), tf.uint8)
        return _pad(rounded, size, background) if method == "pad" else rounded

    same_size = tf.reduce_all(tf.equal(tf.shape(images)[1:3], size))
    outputs = tf.cond(same_size, lambda: tf.identity(images), resized)
    return tf.ensure_shape(outputs, [None, *size, CHANNELS])


def _largest_inside(proportions: tf.Tensor | tuple[int, int], size: tf.Tensor | tuple[int, int]) -> tf.Tensor:
    """Returns the largest size with some proportions that fits inside another size.

    Args:
      proportions: a (height, width), int32 [2].
      size: the (height, width) to fit into, int32 [2].

    Returns:
      (height, width), int32 [2], rounded to whole pixels, at least 1.
    """
    sides = tf.cast(proportions, tf.float64)
    scale = tf.reduce_min(tf.cast(size, tf.float64) / sides)
    return tf.maximum(tf.cast(tf.round(sides * scale), tf.int32), 1)


def _crop(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Cuts the largest part with the proportions of `size` out of the middle of images."""
    shape = tf.shape(images)[1:3]
    inner = _largest_inside(size, shape)
    top, left = tf.unstack((shape - inner) // 2)
    return images[:, top : top + inner[0], left : left + inner[1]]


def _pad(images: tf.Tensor, size: tuple[int, int], background: Color) -> tf.Tensor:
    """Places images in the middle of a larger area of one colour."""
    margins = tf.constant(size) - tf.shape(images)[1:3]
    before = margins // 2
    paddings = tf.concat([[[0, 0]], tf.stack([before, margins - before], axis=1), [[0, 0]]], axis=0)
    is_inside = tf.pad(tf.ones_like(images, tf.bool), paddings)
    return tf.where(is_inside, tf.pad(images, paddings), tf.constant(background, tf.uint8))


def scale(images: tf.Tensor) -> tf.Tensor:
    """Scales uint8 images of any shape to float32 in [0, 1]."""
    return tf.cast(images, tf.float32) * (1.0 / 255.0)


def to_uint8(scaled: tf.Tensor) -> tf.Tensor:
    """Inverts `scale` exactly: converts float32 images in [0, 1] to uint8."""
    return tf.saturate_cast(tf.round(scaled * 255.0), tf.uint8)
