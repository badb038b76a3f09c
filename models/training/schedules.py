"""Learning-rate schedules of a training phase."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

# Kind of schedule -> the rate as a fraction of the peak, from the progress after the warm-up (0 to 1).
_DECAYS: Mapping[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "constant": tf.ones_like,
    "cosine": lambda progress: 0.5 * (1.0 + tf.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
}


@keras.saving.register_keras_serializable("models")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to the peak, followed by a constant rate or a cosine or linear decay to 0.

    With `w` warm-up steps out of `n`, step `s` (from 0) has the rate `peak (s + 1) / w` while `s < w`,
    then, with `p = (s - w) / (n - w)`, `peak`, `peak (1 + cos(pi p)) / 2` (SGDR without restarts,
    arXiv:1608.03983) or `peak (1 - p)`.

    Args:
      kind: `constant`, `cosine` or `linear`.
      peak: highest learning rate.
      steps: number of steps of the phase, `n`.
      warmup_steps: number of warm-up steps, `w`; may be 0.
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
        """Returns whether the rate no longer falls, or has fallen to half of the peak.

        Before that, the validation loss says little: at a high rate it fluctuates, and it falls as the rate
        falls.

        Args:
          step: number of the step, from 0.
        """
        return self.kind == "constant" or (step >= self.warmup_steps and float(self(step)) <= self.peak / 2)

    def get_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "peak": self.peak,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
        }
