"""How the learning rate changes in the course of a phase."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

# Kind -> the rate as a fraction of the peak, by how much of the phase after the warm-up is done, 0 to 1.
_DECAYS: Mapping[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "constant": tf.ones_like,
    "cosine": lambda progress: 0.5 * (1.0 + tf.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
}


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
        rate *= _DECAYS[self.kind](progress)
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
