"""A convolution that is learned faster in bfloat16 on a CPU."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# Up to so many pixels the gradient of the filters is fastest as a convolution, and as products of matrices.
_TINY = 4 * 4
_SMALL = 8 * 8


@keras.saving.register_keras_serializable("models")
class Convolution(keras.layers.Conv2D):
    """Keras' convolution with a stride of 1 and an output of the size of its input.

    In bfloat16 on a CPU, TensorFlow computes the gradient of the filters at half of the speed of all else. Of
    small images it is computed in other ways there.

    Args:
      filters: number of them.
      kernel_size: side of the filters in pixels; odd.
      options: Keras' own, but for strides, padding, dilation and groups.
    """

    def __init__(self, filters: int, kernel_size: int, **options: Any) -> None:
        super().__init__(filters, kernel_size, **{**options, "padding": "same"})

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.compute_dtype != "bfloat16" or tf.config.list_physical_devices("GPU"):
            return super().convolution_op(inputs, kernel)
        return convolve(inputs, tf.convert_to_tensor(kernel))


@tf.custom_gradient
def convolve(images: tf.Tensor, kernel: tf.Tensor) -> Any:
    """Convolves [batch, height, width, in] with [side, side, in, out], with padding to the same size."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        common = {"out_backprop": upstream, "strides": [1, 1, 1, 1], "padding": "SAME"}
        of_images = tf.raw_ops.Conv2DBackpropInput(input_sizes=tf.shape(images), filter=kernel, **common)
        pixels = tf.reduce_prod(tf.shape(images)[1:3])
        of_kernel = tf.case(
            [
                (pixels <= _TINY, lambda: gradient_by_convolution(images, upstream, kernel.shape[0])),
                (pixels <= _SMALL, lambda: gradient_by_products(images, upstream, kernel.shape[0])),
            ],
            lambda: tf.raw_ops.Conv2DBackpropFilter(input=images, filter_sizes=kernel.shape, **common),
        )
        return of_images, of_kernel

    return tf.nn.conv2d(images, kernel, 1, "SAME"), gradient


def gradient_by_convolution(images: tf.Tensor, upstream: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the gradient of a convolution's filters as a convolution itself.

    With batch and input channels exchanged, the images are convolved with the gradient of the output: what
    each offset of a filter gets is the sum over all images and pixels of the products.

    Args:
      images: [batch, height, width, in].
      upstream: gradient of the output, [batch, height, width, out].
      side: of the filters; odd.

    Returns:
      [side, side, in, out].
    """
    around = [side // 2, side // 2]
    exchanged = tf.nn.conv2d(
        tf.transpose(images, [3, 1, 2, 0]),
        tf.transpose(upstream, [1, 2, 0, 3]),
        1,
        [[0, 0], around, around, [0, 0]],
    )
    return tf.transpose(exchanged, [1, 2, 0, 3])


def gradient_by_products(images: tf.Tensor, upstream: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the gradient of a convolution's filters as a product of matrices for each of their offsets.

    Args and result as of `gradient_by_convolution`.
    """
    _, height, width, _ = tf.unstack(tf.shape(images))
    around = [side // 2, side // 2]
    padded = tf.pad(images, [[0, 0], around, around, [0, 0]])
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
