"""A convolution that is learned faster in bfloat16 on a CPU."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# Up to so many pixels the gradient of the filters is fastest as a convolution, and as products of matrices.
_TINY = 4 * 4
_SMALL = 8 * 8
_STRIDES = [1, 1, 1, 1]


@keras.saving.register_keras_serializable("models")
class Convolution(keras.layers.Conv2D):
    """Keras' convolution with a stride of 1 and an output of the size of its input, or almost.

    In bfloat16 on a CPU, TensorFlow computes the gradient of the filters at half of the speed of all else. Of
    small images it is computed in other ways there.

    Args:
      filters: number of them.
      kernel_size: side of the filters in pixels; odd, with `even_output` 3 at least.
      even_output: leave the last row out where their number is odd, and the last column likewise: a 2x2
        pooling that follows would drop them.
      options: Keras' own, but for strides, padding, dilation and groups.
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
            return tf.nn.conv2d(_pad(inputs, self.kernel_size[0], _even(inputs)), kernel, 1, "VALID")
        return super().convolution_op(inputs, kernel)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "even_output": self._even_output}


def convolve(images: tf.Tensor, kernel: tf.Tensor, *, even_output: bool = False) -> tf.Tensor:
    """Convolves [batch, height, width, in] with [side, side, in, out], with padding to the same size.

    With `even_output`, without the last of an odd number of rows or columns.
    """
    side = kernel.shape[0]

    def padded(images: tf.Tensor) -> tuple[tf.Tensor, str]:
        return (_pad(images, side, _even(images)), "VALID") if even_output else (images, "SAME")

    @tf.custom_gradient
    def operation(images: tf.Tensor, kernel: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def by_tensorflow() -> tf.Tensor:
                inputs, padding = padded(images)  # Again, rather than kept until now.
                return tf.raw_ops.Conv2DBackpropFilter(
                    input=inputs,
                    filter_sizes=kernel.shape,
                    out_backprop=upstream,
                    strides=_STRIDES,
                    padding=padding,
                )

            pixels = tf.reduce_prod(tf.shape(images)[1:3])
            of_kernel = tf.case(
                [
                    (pixels <= _TINY, lambda: gradient_by_convolution(images, upstream, side)),
                    (pixels <= _SMALL, lambda: gradient_by_products(images, upstream, side)),
                ],
                by_tensorflow,
            )
            # This one is no faster without what is left out.
            down, right = tf.unstack(tf.shape(images)[1:3] - tf.shape(upstream)[1:3])
            of_images = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(images),
                filter=kernel,
                out_backprop=tf.pad(upstream, [[0, 0], [0, down], [0, right], [0, 0]])
                if even_output
                else upstream,
                strides=_STRIDES,
                padding="SAME",
            )
            return of_images, of_kernel

        inputs, padding = padded(images)
        return tf.nn.conv2d(inputs, kernel, 1, padding), gradient

    return operation(images, kernel)


def _even(images: tf.Tensor) -> tf.Tensor:
    """Returns height and width, without the last of an odd number."""
    return tf.shape(images)[1:3] // 2 * 2


def _pad(images: tf.Tensor, side: int, size: tf.Tensor) -> tf.Tensor:
    """Pads images so that a convolution without padding has an output of `size`, theirs or a little less."""
    margin = side // 2
    down, right = tf.unstack(margin + size - tf.shape(images)[1:3])
    return tf.pad(images, [[0, 0], [margin, down], [margin, right], [0, 0]])


def gradient_by_convolution(images: tf.Tensor, upstream: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the gradient of a convolution's filters as a convolution itself.

    With batch and input channels exchanged, the images are convolved with the gradient of the output: what
    each offset of a filter gets is the sum over all images and pixels of the products.

    Args:
      images: [batch, height, width, in].
      upstream: gradient of the output, [batch, height, width, out], or without the last rows and columns.
      side: of the filters; odd.

    Returns:
      [side, side, in, out].
    """
    exchanged = tf.nn.conv2d(
        tf.transpose(_pad(images, side, tf.shape(upstream)[1:3]), [3, 1, 2, 0]),
        tf.transpose(upstream, [1, 2, 0, 3]),
        1,
        "VALID",
    )
    return tf.transpose(exchanged, [1, 2, 0, 3])


def gradient_by_products(images: tf.Tensor, upstream: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the gradient of a convolution's filters as a product of matrices for each of their offsets.

    Args and result as of `gradient_by_convolution`.
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
