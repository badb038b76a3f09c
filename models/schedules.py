"""How the learning rate and the crops of the images change in the course of a training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("models")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to the peak, then constant, or down to 0 along a half cosine or a line.

    With `w` warm-up steps out of `n`, step `s` (from 0) has the rate `peak (s + 1) / w` while `s < w`,
    then, with `p = (s - w) / (n - w)`, `peak`, `peak (1 + cos(pi p)) / 2` (SGDR without restarts,
    arXiv:1608.03983) or `peak (1 - p)`.
    """

    def __init__(self, kind: str, peak: float, steps: int, warmup_steps: int) -> None:
        self.kind = kind
        self.peak = peak
        self.steps = steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rate = tf.constant(self.peak, tf.float32)
        progress = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        progress = tf.clip_by_value(progress, 0.0, 1.0)
        if self.kind == "cosine":
            rate *= 0.5 * (1.0 + tf.cos(math.pi * progress))
        elif self.kind == "linear":
            rate *= 1.0 - progress
        if self.warmup_steps:
            rate = tf.where(step < self.warmup_steps, self.peak * (step + 1.0) / self.warmup_steps, rate)
        return rate

    def settled(self, step: int) -> bool:
        """Whether the rate will fall no more, or has fallen to half of the peak.

        Before that the validation loss tells little: it goes up and down at a high rate, and goes down when
        the rate does.
        """
        return self.kind == "constant" or (step >= self.warmup_steps and float(self(step)) <= self.peak / 2)

    def get_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "peak": self.peak,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
        }


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
