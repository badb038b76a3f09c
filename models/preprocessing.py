"""Turns encoded images into network inputs, in the same way for training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from datasets import features

CHANNELS = 3
IMAGE_SIZE = "image_size"  # the key in Transform's custom_config: [height, width]


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Decodes and scales images; called by Transform, whose graph is part of the served model.

    Args:
      inputs: `image`, encoded PNG or JPEG, string [batch]; `label`, int64 [batch], which may be missing. Any
        other features are dropped.
      custom_config: `image_size`, the [height, width] of the output.

    Returns:
      `image`, float32 [batch, height, width, 3] in [0, 1]; and, if `inputs` have it, `label`, int64 [batch].
    """
    height, width = custom_config[IMAGE_SIZE]
    outputs = {features.IMAGE: scale(decode(inputs[features.IMAGE], (height, width)))}
    if features.LABEL in inputs:
        outputs[features.LABEL] = tf.cast(inputs[features.LABEL], tf.int64)
    return outputs


def decode(image_bytes: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decodes images and resizes them to the same size.

    Args:
      image_bytes: encoded PNG or JPEG of any size, string [batch]; grey, RGB or RGBA, whose alpha is ignored.
      size: (height, width) of the output.

    Returns:
      uint8 [batch, height, width, 3].

    Raises:
      tf.errors.InvalidArgumentError: the bytes are not an image that TensorFlow can decode.
    """

    def decode_one(encoded: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(encoded, channels=CHANNELS, expand_animations=False)
        image.set_shape([None, None, CHANNELS])
        return resize(image[tf.newaxis], size)[0]

    return tf.map_fn(
        decode_one, image_bytes, fn_output_signature=tf.TensorSpec([*size, CHANNELS], tf.uint8), name="decode"
    )


def resize(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes images bilinearly, with antialiasing, unless they already have the right size.

    Args:
      images: uint8 [batch, any height, any width, 3].
      size: (height, width) of the output.

    Returns:
      uint8 [batch, height, width, 3]; images that already have this size keep their values exactly.
    """

    def resized() -> tf.Tensor:
        values = tf.image.resize(images, size, method="bilinear", antialias=True)
        # Rounds to uint8 values, so that scaled images can be converted back to uint8 without loss.
        return tf.saturate_cast(tf.round(values), tf.uint8)

    same_size = tf.reduce_all(tf.equal(tf.shape(images)[1:3], size))
    images = tf.cond(same_size, lambda: tf.identity(images), resized)
    return tf.ensure_shape(images, [None, *size, CHANNELS])


def scale(images: tf.Tensor) -> tf.Tensor:
    """Scales uint8 images of any shape to float32 in [0, 1]."""
    return tf.cast(images, tf.float32) * (1.0 / 255.0)


def to_uint8(scaled: tf.Tensor) -> tf.Tensor:
    """Inverts `scale` exactly: converts float32 images in [0, 1] to uint8."""
    return tf.saturate_cast(tf.round(scaled * 255.0), tf.uint8)
