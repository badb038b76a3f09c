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
      kernel_size: side of the filters in pixels; odd, and at least 3 with `even_output`.
      even_output: whether to leave out the last row of the output if it has an odd number of rows, and the
        last column if it has an odd number of columns. A 2x2 pooling that follows would drop them.
      options: any other argument of Keras' layer, except strides, padding, dilation and groups.
    """

    def __init__(self, filters: int, kernel_size: int, *, even_output: bool = False, **options: Any) -> None:
        super().__init__(filters, kernel_size, **{**options, "padding": "same"})
        self._even_output = even_output

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, *sides, filters = super().compute_output_shape(input_shape)
        if self._even_output:
            sides = [None if side is None else side - side % 2 for side in sides]
        return batch, *sides, filters

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.compute_dtype == "bfloat16" and not tf.config.list_physical_devices("GPU"):
            return convolve(inputs, tf.convert_to_tensor(kernel), even_output=self._even_output)
        if self._even_output:
            return tf.nn.conv2d(_pad(inputs, self.kernel_size[0], _even_size(inputs)), kernel, 1, "VALID")
        return super().convolution_op(inputs, kernel)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "even_output": self._even_output}


def convolve(images: tf.Tensor, kernel: tf.Tensor, *, even_output: bool = False) -> tf.Tensor:
    """Convolves images with filters at a stride of 1, with zero padding to the size of the images.

    Args:
      images: [batch, height, width, in].
      kernel: the filters, [side, side, in, out], of the dtype of `images`; `side` is odd.
      even_output: whether to leave out the last of an odd number of rows or columns.

    Returns:
      [batch, height, width, out]; with `even_output`, height and width are rounded down to even numbers.
    """
    side = kernel.shape[0]

    def padded(images: tf.Tensor) -> tuple[tf.Tensor, str]:
        return (_pad(images, side, _even_size(images)), "VALID") if even_output else (images, "SAME")

    @tf.custom_gradient
    def operation(images: tf.Tensor, kernel: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def kernel_gradient_by_tensorflow() -> tf.Tensor:
                # Pads the images a second time, rather than keeping the padded copy in memory until here.
                inputs, padding = padded(images)
                return tf.raw_ops.Conv2DBackpropFilter(
                    input=inputs,
                    filter_sizes=kernel.shape,
                    out_backprop=upstream,
                    strides=_STRIDES,
                    padding=padding,
                )

            pixels = tf.reduce_prod(tf.shape(images)[1:3])
            kernel_gradient = tf.case(
                [
                    (pixels <= _TINY_IMAGE, lambda: gradient_by_convolution(images, upstream, side)),
                    (pixels <= _SMALL_IMAGE, lambda: gradient_by_products(images, upstream, side)),
                ],
                kernel_gradient_by_tensorflow,
            )
            # Trimming does not speed up this gradient. It is computed for the whole output, with a gradient
            # of zero for the trimmed rows and columns.
            down, right = tf.unstack(tf.shape(images)[1:3] - tf.shape(upstream)[1:3])
            images_gradient = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(images),
                filter=kernel,
                out_backprop=tf.pad(upstream, [[0, 0], [0, down], [0, right], [0, 0]])
                if even_output
                else upstream,
                strides=_STRIDES,
                padding="SAME",
            )
            return images_gradient, kernel_gradient

        inputs, padding = padded(images)
        return tf.nn.conv2d(inputs, kernel, 1, padding), gradient

    return operation(images, kernel)


def _even_size(images: tf.Tensor) -> tf.Tensor:
    """Returns height and width of images, rounded down to even numbers, int32 [2]."""
    return tf.shape(images)[1:3] // 2 * 2


def _pad(images: tf.Tensor, side: int, size: tf.Tensor) -> tf.Tensor:
    """Pads images with zeros for a convolution without padding.

    Args:
      images: [batch, height, width, in].
      side: side of the filters.
      size: (height, width) of the convolution's output, int32 [2]: that of the images, or smaller by at most
        the margin of `side // 2` pixels.

    Returns:
      The images with a margin on each side, which is smaller at the bottom and on the right if `size` is
      smaller than the images.
    """
    margin = side // 2
    down, right = tf.unstack(margin + size - tf.shape(images)[1:3])
    return tf.pad(images, [[0, 0], [margin, down], [margin, right], [0, 0]])


def gradient_by_convolution(images: tf.Tensor, upstream: tf.Tensor, side: int) -> tf.Tensor:
    """Computes the gradient of a convolution's filters as a convolution.

    The batch axis and the channel axis of the images are exchanged, and the images are convolved with the
    gradient of the output. The gradient of each element of a filter is thus the sum of the products over all
    images and pixels.

    Args:
      images: [batch, height, width, in].
      upstream: gradient of the output, [batch, height, width, out]; the last rows and columns may be missing.
      side: side of the filters; odd.

    Returns:
      The gradient of the filters, [side, side, in, out].
    """
    transposed = tf.nn.conv2d(
        tf.transpose(_pad(images, side, tf.shape(upstream)[1:3]), [3, 1, 2, 0]),
        tf.transpose(upstream, [1, 2, 0, 3]),
        1,
        "VALID",
    )
    return tf.transpose(transposed, [1, 2, 0, 3])


def gradient_by_products(images: tf.Tensor, upstream: tf.Tensor, side: int) -> tf.Tensor:
    """Computes the gradient of a convolution's filters as one product of matrices per element of a filter.

    Args:
      images: [batch, height, width, in].
      upstream: gradient of the output, [batch, height, width, out]; the last rows and columns may be missing.
      side: side of the filters; odd.

    Returns:
      The gradient of the filters, [side, side, in, out].
    """
    _, height, width, _ = tf.unstack(tf.shape(upstream))
    padded = _pad(images, side, tf.shape(upstream)[1:3])
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
