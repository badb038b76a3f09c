"""A convolution that trains faster in bfloat16 on a CPU."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# Pixels per image up to which the gradient of the filters is fastest as a convolution, and above that, up to
# which it is fastest as products of matrices.
_TINY_IMAGE = 4 * 4
_SMALL_IMAGE = 8 * 8
_STRIDES = [1, 1, 1, 1]


@keras.saving.register_keras_serializable("models")
class Convolution(keras.layers.Conv2D):
    """Keras' 2D convolution with a stride of 1 and padding to the size of its input.

    In bfloat16 on a CPU, TensorFlow computes the gradient of the filters at half the speed of everything
    else. For small images, this layer computes that gradient in ways that are faster there.

    Args:
      filters: number of filters.
      kernel_size: side of the filters in pixels; odd.
      options: any other argument of Keras' layer, except strides, padding, dilation and groups.
    """

    def __init__(self, filters: int, kernel_size: int, **options: Any) -> None:
        super().__init__(filters, kernel_size, **{**options, "padding": "same"})

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.compute_dtype == "bfloat16" and not tf.config.list_physical_devices("GPU"):
            return convolve(inputs, tf.convert_to_tensor(kernel))
        return super().convolution_op(inputs, kernel)


@tf.custom_gradient
def convolve(images: tf.Tensor, kernel: tf.Tensor) -> Any:
    """Convolves images with filters at a stride of 1, with zero padding to the size of the images.

    Args:
      images: [batch, height, width, in].
      kernel: the filters, [side, side, in, out], of the dtype of `images`; `side` is odd.

    Returns:
      [batch, height, width, out].
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        side = kernel.shape[0]
        pixels = tf.reduce_prod(tf.shape(images)[1:3])
        kernel_gradient = tf.case(
            [
                (pixels <= _TINY_IMAGE, lambda: gradient_by_convolution(images, upstream, side)),
                (pixels <= _SMALL_IMAGE, lambda: gradient_by_products(images, upstream, side)),
            ],
            lambda: tf.raw_ops.Conv2DBackpropFilter(
                input=images,
                filter_sizes=kernel.shape,
                out_backprop=upstream,
                strides=_STRIDES,
                padding="SAME",
            ),
        )
        images_gradient = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images),
            filter=kernel,
            out_backprop=upstream,
            strides=_STRIDES,
            padding="SAME",
        )
        return images_gradient, kernel_gradient

    return tf.nn.conv2d(images, kernel, 1, "SAME"), gradient


def _pad(images: tf.Tensor, side: int) -> tf.Tensor:
    """Pads images with zeros, so that a convolution with filters of `side` pixels keeps their size."""
    margin = side // 2
    return tf.pad(images, [[0, 0], [margin, margin], [margin, margin], [0, 0]])


def gradient_by_convolution(images: tf.Tensor, upstream: tf.Tensor, side: int) -> tf.Tensor:
    """Computes the gradient of a convolution's filters as a convolution.

    The batch axis and the channel axis of the images are exchanged, and the images are convolved with the
    gradient of the output. The gradient of each element of a filter is thus the sum of the products over all
    images and pixels.

    Args:
      images: [batch, height, width, in].
      upstream: gradient of the output, [batch, height, width, out].
      side: side of the filters; odd.

    Returns:
      The gradient of the filters, [side, side, in, out].
    """
    transposed = tf.nn.conv2d(
        tf.transpose(_pad(images, side), [3, 1, 2, 0]),
        tf.transpose(upstream, [1, 2, 0, 3]),
        1,
        "VALID",
    )
    return tf.transpose(transposed, [1, 2, 0, 3])


def gradient_by_products(images: tf.Tensor, upstream: tf.Tensor, side: int) -> tf.Tensor:
    """Computes the gradient of a convolution's filters as one product of matrices per element of a filter.

    Args:
      images: [batch, height, width, in].
      upstream: gradient of the output, [batch, height, width, out].
      side: side of the filters; odd.

    Returns:
      The gradient of the filters, [side, side, in, out].
    """
    _, height, width, _ = tf.unstack(tf.shape(upstream))
    padded = _pad(images, side)
    channels, filters = images.shape[-1], upstream.shape[-1]
    columns = tf.reshape(upstream, [-1, filters])
    products = [
        tf.matmul(
            tf.reshape(padded[:, down : down + height, right : right + width], [-1, channels]),
            columns,
            transpose_a=True,
        )
        for down in range(side)
        for right in range(side)
    ]
    return tf.reshape(tf.stack(products), [side, side, channels, filters])
