"""A convolution that is learned faster in bfloat16 on a CPU."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# Up to so many pixels the other way is faster.
_SMALL = 8 * 8


@keras.saving.register_keras_serializable("models")
class Convolution(keras.layers.Conv2D):
    """Keras' convolution with a stride of 1 and an output of the size of its input.

    In bfloat16 on a CPU, TensorFlow computes the gradient of the filters at half of the speed of all else. Of
    small images it is computed another way there.

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
        of_kernel = tf.cond(
            tf.reduce_prod(tf.shape(images)[1:3]) <= _SMALL,
            lambda: filter_gradient(images, upstream, kernel.shape[0]),
            lambda: tf.raw_ops.Conv2DBackpropFilter(input=images, filter_sizes=kernel.shape, **common),
        )
        return of_images, of_kernel

    return tf.nn.conv2d(images, kernel, 1, "SAME"), gradient


def filter_gradient(images: tf.Tensor, upstream: tf.Tensor, side: int) -> tf.Tensor:
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
