"""Layers of a network that classifies an image and its mirror image alike.

Every channel has a partner channel, which may be the channel itself: the mirror image of a channel's output
for an image is its partner's output for the mirror image. Half of the filters of a convolution are learned,
and the other half are their mirror images, so that each filter learns from an image and its mirror image at
once, with the arithmetic of an ordinary convolution (Cohen and Welling, "Group Equivariant Convolutional
Networks", arXiv:1602.07576, with the group of two elements).

Partners are given as a list with the index of each channel's partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.networks.layers import convolution


def halves(channels: int) -> list[int]:
    """Returns the partners of the output channels of a `Convolution`.

    The partner of a channel of one half is the channel at the same place in the other half.

    Args:
      channels: number of output channels; even.

    Returns:
      The index of each channel's partner.
    """
    return [*range(channels // 2, channels), *range(channels // 2)]


def representatives(partners: Sequence[int]) -> int:
    """Counts channels, with two partners counted as one.

    Args:
      partners: index of each channel's partner.

    Returns:
      The number of channels that are their own partners, plus half the number of the others. For the partners
      that `cnn.build` uses, the first that many channels hold exactly one channel of each pair.
    """
    return sum(partner >= channel for channel, partner in enumerate(partners))


def whole(kernel: tf.Tensor, partners: Sequence[int]) -> tf.Tensor:
    """Appends their mirror images to filters.

    Args:
      kernel: the filters, [height, width, in, out].
      partners: index of each input channel's partner.

    Returns:
      [height, width, in, 2 out]: the filters, then their mirror images in the same order.
    """
    # `tf.reverse` takes an eighth of the time of a slice of step -1, which runs on one core.
    return tf.concat([kernel, tf.gather(tf.reverse(kernel, [1]), partners, axis=2)], axis=-1)


def positions(height: int, width: int, partners: Sequence[int]) -> np.ndarray:
    """Returns where each element of a flattened filter is in the filter's mirror image.

    Args:
      height: height of the filter, in pixels.
      width: width of the filter, in pixels.
      partners: index of each input channel's partner.

    Returns:
      The index of each element in the mirror image, int [height * width * in].
    """
    indices = np.arange(height * width * len(partners)).reshape(height, width, -1)
    return indices[:, ::-1][:, :, list(partners)].ravel()


class Halves:
    """Splits vectors into a symmetric and an antisymmetric part.

    Take filters and their mirror images (`whole`) as a matrix with one column per filter. An orthogonal
    change of both its bases leaves two blocks: the symmetric and the antisymmetric part of the filters. An
    operation on the matrix's singular values can therefore be done on each block instead, with a quarter of
    the arithmetic.

    Args:
      mirrored: the index of each element of a vector in the vector's mirror image, int [n]; see `positions`.
    """

    def __init__(self, mirrored: np.ndarray) -> None:
        indices = np.arange(len(mirrored))
        # Mirroring exchanges the first and second element of each pair, and leaves fixed elements in place.
        self._first = indices[indices < mirrored]
        self._second = mirrored[self._first]
        self._fixed = indices[indices == mirrored]
        self._order = np.argsort(np.concatenate([self._first, self._second, self._fixed]))

    def split(self, columns: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Splits vectors into their symmetric and their antisymmetric block.

        Args:
          columns: the vectors, one per column, [n, count].

        Returns:
          The symmetric block, with a row per pair of exchanged elements and per fixed element, and the
          antisymmetric block, with a row per pair; each has `count` columns.
        """
        first, second, fixed = (tf.gather(columns, each) for each in (self._first, self._second, self._fixed))
        return tf.concat([first + second, 2**0.5 * fixed], axis=0), first - second

    def join(self, symmetric: tf.Tensor, antisymmetric: tf.Tensor) -> tf.Tensor:
        """Inverts `split`: returns the vectors [n, count] of two blocks."""
        pairs, fixed = symmetric[: len(self._first)], symmetric[len(self._first) :]
        parts = [(pairs + antisymmetric) / 2, (pairs - antisymmetric) / 2, fixed / 2**0.5]
        return tf.gather(tf.concat(parts, axis=0), self._order)


@keras.saving.register_keras_serializable("models.mirror")
class Bias(keras.layers.Layer):
    """Adds a learned bias to each channel, the same one to a channel and its partner.

    Args:
      partners: index of each channel's partner; None for channels without partners.
      options: any other argument of a Keras layer.
    """

    def __init__(self, partners: Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.partners = None if partners is None else list(partners)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.bias = self.add_weight(name="bias", shape=(input_shape[-1],), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        bias = tf.convert_to_tensor(self.bias)
        if self.partners is not None:
            bias = (bias + tf.gather(bias, self.partners)) / 2
        return inputs + bias

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "partners": self.partners}


@keras.saving.register_keras_serializable("models.mirror")
class Convolution(convolution.Convolution):
    """A convolution that learns the first half of its filters; the second half are their mirror images.

    Args:
      filters: number of filters of both halves together; even.
      kernel_size: side of the filters in pixels; odd.
      partners: index of each input channel's partner.
      options: any other argument of `convolution.Convolution`, except activations, groups, regularizers and
        constraints.
    """

    def __init__(self, filters: int, kernel_size: int, partners: Sequence[int], **options: Any) -> None:
        super().__init__(filters, kernel_size, **options)
        self.partners = list(partners)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self._kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, input_shape[-1], self.filters // 2),
            initializer=self.kernel_initializer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.filters // 2,), initializer=self.bias_initializer
            )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = self.convolution_op(inputs, whole(tf.convert_to_tensor(self.kernel), self.partners))
        if self.bias is not None:
            outputs += tf.tile(tf.convert_to_tensor(self.bias), [2])
        return outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "partners": self.partners}


def principal_directions(moments: np.ndarray, mirrored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the principal directions of vectors that are as frequent as their mirror images.

    Args:
      moments: covariances of the vectors' elements, float64 [n, n].
      mirrored: the index of each element of a vector in the vector's mirror image, int [n]; no element may
        stay in place.

    Returns:
      Variances [n] and directions [n, n], one per column: first the half of the directions that equal their
      mirror images, then the half that equal the negatives of their mirror images.
    """
    decompositions = []
    for block in Halves(mirrored).split(np.eye(len(mirrored))):
        basis = block.numpy().T / np.sqrt(2.0)
        variances, directions = np.linalg.eigh(basis.T @ moments @ basis)
        decompositions.append((variances, basis @ directions))
    symmetric, antisymmetric = decompositions
    return np.concatenate([symmetric[0], antisymmetric[0]]), np.hstack([symmetric[1], antisymmetric[1]])
