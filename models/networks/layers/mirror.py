"""Layers of a network for which an image and its mirror image are the same.

Every channel has a partner: what a channel is for an image, its partner is for the mirror image, mirrored.
Half of the filters of a convolution are learned, and the other half are their mirror images, so that each
filter learns from both at once, for the arithmetic of a common convolution (Cohen and Welling, "Group
Equivariant Convolutional Networks", arXiv:1602.07576, with the group of two elements).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.networks.layers import convolution


def halves(channels: int) -> list[int]:
    """Returns the partners of the channels of a `Convolution`: those of one half are in the other half."""
    return [*range(channels // 2, channels), *range(channels // 2)]


def representatives(partners: Sequence[int]) -> int:
    """Returns how many channels are left when of two partners one is counted; they are the first ones."""
    return sum(partner >= channel for channel, partner in enumerate(partners))


def whole(kernel: tf.Tensor, partners: Sequence[int]) -> tf.Tensor:
    """Returns filters and their mirror images.

    Args:
      kernel: [height, width, in, out].
      partners: of the input channels.

    Returns:
      [height, width, in, 2 out].
    """
    # `tf.reverse` takes an eighth of the time of a slice of step -1, which runs on one core.
    return tf.concat([kernel, tf.gather(tf.reverse(kernel, [1]), partners, axis=2)], axis=-1)


def positions(height: int, width: int, partners: Sequence[int]) -> np.ndarray:
    """Returns the positions that the elements of a filter have in its mirror image, int [height width in].

    Args:
      height: of the filter.
      width: likewise.
      partners: of the input channels.
    """
    of_elements = np.arange(height * width * len(partners)).reshape(height, width, -1)
    return of_elements[:, ::-1][:, :, list(partners)].ravel()


class Halves:
    """Tells the symmetric part of vectors from the antisymmetric one.

    As a matrix of a column each, filters and their mirror images (`whole`) are two blocks after an orthogonal
    change of both bases. What is done to its singular values can be done to each block, for a quarter of the
    arithmetic.

    Args:
      mirrored: the position that each element of a vector has in its mirror image, int [n].
    """

    def __init__(self, mirrored: np.ndarray) -> None:
        own = np.arange(len(mirrored))
        self._first = own[own < mirrored]
        self._second = mirrored[self._first]
        self._alone = own[own == mirrored]
        self._order = np.argsort(np.concatenate([self._first, self._second, self._alone]))

    def split(self, columns: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the symmetric and the antisymmetric block of vectors [n, count], a column each."""
        first, second, alone = (tf.gather(columns, each) for each in (self._first, self._second, self._alone))
        return tf.concat([first + second, 2**0.5 * alone], axis=0), first - second

    def join(self, symmetric: tf.Tensor, antisymmetric: tf.Tensor) -> tf.Tensor:
        """Undoes `split`."""
        pairs, alone = symmetric[: len(self._first)], symmetric[len(self._first) :]
        parts = [(pairs + antisymmetric) / 2, (pairs - antisymmetric) / 2, alone / 2**0.5]
        return tf.gather(tf.concat(parts, axis=0), self._order)


@keras.saving.register_keras_serializable("models.mirror")
class Bias(keras.layers.Layer):
    """Adds a learned number to each channel, the same to partners.

    Args:
      partners: of the channels; None: they have none.
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
    """A convolution whose second half of filters are the mirror images of the first half.

    Args:
      filters: of both halves together; even.
      partners: of the input channels.
      options: Keras' own; of activations, groups, regularizers and constraints, it has none.
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
      moments: covariances, float64 [n, n].
      mirrored: the position that each element of a vector has in its mirror image, int [n]; none its own.

    Returns:
      Variances [n] and directions [n, n], a column each: first the half that are their own mirror images,
      then those that are the negative of theirs.
    """
    found = []
    for block in Halves(mirrored).split(np.eye(len(mirrored))):
        basis = block.numpy().T / np.sqrt(2.0)
        variances, directions = np.linalg.eigh(basis.T @ moments @ basis)
        found.append((variances, basis @ directions))
    symmetric, antisymmetric = found
    return np.concatenate([symmetric[0], antisymmetric[0]]), np.hstack([symmetric[1], antisymmetric[1]])
