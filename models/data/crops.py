"""Progressive cropping of the training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Crops:
    """The sizes of the crops in a phase of training, which begins with small crops because they cost less.

    Each of `n` scales applies to an `n`-th of the phase: of its epochs or, in a single epoch, of its steps.

    Attributes:
      scales: sides of the crops in turn, as fractions of the images' sides, in (0, 1].
      epochs: number of epochs of the phase.
    """

    scales: Sequence[float]
    epochs: int

    @property
    def smaller(self) -> bool:
        """Whether any crops are smaller than the images."""
        return any(scale < 1.0 for scale in self.scales)

    def scale(self, epochs_done: tf.Tensor) -> tf.Tensor:
        """Returns the scale of the crops at a time in the phase.

        Args:
          epochs_done: number of epochs since the phase began, with fractions, float32 scalar.

        Returns:
          Sides of the crops as a fraction of the images' sides, float32 scalar in (0, 1].
        """
        position = tf.cast(epochs_done / self.epochs * len(self.scales), tf.int32)
        return tf.constant(self.scales, tf.float32)[tf.minimum(position, len(self.scales) - 1)]

    def pixels(self, epochs_done: float) -> float:
        """Returns the fraction of the phase's pixels that have been processed, about that of its time.

        Args:
          epochs_done: number of epochs since the phase began, with fractions.

        Returns:
          The fraction of pixels, in [0, 1].
        """
        position = epochs_done / self.epochs * len(self.scales)
        parts = [min(max(position - index, 0.0), 1.0) for index in range(len(self.scales))]
        areas = [scale**2 for scale in self.scales]
        return sum(part * area for part, area in zip(parts, areas, strict=True)) / sum(areas)
