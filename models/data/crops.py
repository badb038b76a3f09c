"""Progressive cropping of the training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Crops:
    """Progressive cropping: a phase begins with small parts of the images, which cost less.

    With `n` scales, each is the one for an `n`-th of the epochs (in one epoch, of its steps).

    Attributes:
      scales: sides of the parts, as fractions of the images' sides, in (0, 1].
      epochs: of the phase.
    """

    scales: Sequence[float]
    epochs: int

    @property
    def smaller(self) -> bool:
        """Whether any parts are smaller than the images."""
        return any(scale < 1.0 for scale in self.scales)

    def scale(self, done: tf.Tensor) -> tf.Tensor:
        """Returns the scale when so many epochs are done; both float32 scalars."""
        position = tf.cast(done / self.epochs * len(self.scales), tf.int32)
        return tf.constant(self.scales, tf.float32)[tf.minimum(position, len(self.scales) - 1)]

    def pixels(self, done: float) -> float:
        """Returns the part of the phase's pixels that so many epochs have, and of its time, about."""
        position = done / self.epochs * len(self.scales)
        parts = [min(max(position - index, 0.0), 1.0) for index in range(len(self.scales))]
        areas = [scale**2 for scale in self.scales]
        return sum(part * area for part, area in zip(parts, areas, strict=True)) / sum(areas)
