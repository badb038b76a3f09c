"""Measures images in a graph: how bright, how contrasted and how sharp they are."""

from __future__ import annotations

import tensorflow as tf

# Shares of red, green and blue in the luma (ITU-R BT.601), as for the slices of the evaluation.
_LUMA = (0.299, 0.587, 0.114)
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def measure(images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Measures the luma of images.

    Args:
      images: float32 [batch, height, width, 3] in [0, 1].

    Returns:
      float32 [batch] each: `brightness`, the mean of the luma; `contrast`, its standard deviation; and
      `sharpness`, the standard deviation of its Laplacian, which is larger the sharper the edges are.
    """
    luma = tf.reduce_sum(images * tf.constant(_LUMA), axis=-1, keepdims=True)
    margins = tf.pad(luma, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    kernel = tf.reshape(tf.constant(_LAPLACIAN), [3, 3, 1, 1])
    edges = tf.nn.conv2d(margins, kernel, strides=1, padding="VALID")
    axes = [1, 2, 3]
    return {
        "brightness": tf.reduce_mean(luma, axes),
        "contrast": tf.math.reduce_std(luma, axes),
        "sharpness": tf.math.reduce_std(edges, axes),
    }
