"""How fast a phase of training proceeds: measured, and shown every few seconds."""

from __future__ import annotations

import logging
import time
from typing import Any

import keras

from models import durations
from models.data.crops import Crops
from models.training.run import Phase, check_finite
from models.training.schedules import Schedule

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_MESSAGES = 5.0


class Progress(keras.callbacks.Callback):
    """Times the steps of a phase, logs a line every few seconds, and ends a training that diverges.

    The first step of a process compiles the graph, and is left out of speed and time left.

    Attributes:
      epoch: number of the current epoch, from 1.
      last_step: number of the current epoch's last step, counted from 0 through the phase.
      learning_rate: learning rate of that step.
    """

    def __init__(
        self, phase: Phase, schedule: Schedule, crops: Crops, train_count: int, steps_per_epoch: int
    ) -> None:
        """Initializes the clock.

        Args:
          phase: the phase.
          schedule: learning-rate schedule of the phase.
          crops: crop sizes of the phase.
          train_count: number of images of an epoch, over all workers.
          steps_per_epoch: number of global batches of an epoch.
        """
        super().__init__()
        self._phase = phase
        self._schedule = schedule
        self._crops = crops
        self._train_count = train_count
        self._steps_per_epoch = steps_per_epoch
        self.epoch = 0
        self._steps = 0  # in this process
        # Times by `time.perf_counter`.
        self._phase_started = self._epoch_started = self._trained = self._last_message = 0.0
        self._batch_requested = 0.0
        self._data_wait_seconds = 0.0
        self._observed = False

    @property
    def last_step(self) -> int:
        return self.epoch * self._steps_per_epoch - 1

    @property
    def learning_rate(self) -> float:
        return float(self._schedule(self.last_step))

    @property
    def epoch_seconds(self) -> float:
        """How long the current epoch has taken so far, the validation included."""
        return time.perf_counter() - self._epoch_started

    @property
    def images_per_second(self) -> float | None:
        """Speed of the epoch's training; None where the only step was the one that compiled."""
        return self._images_per_second(self._steps_per_epoch, self._trained)

    @property
    def data_wait(self) -> float | None:
        """Share of the epoch's training, 0 to 1, in which the network waited for batches; None if unknown."""
        if not self._observed or not self.images_per_second:
            return None
        return self._data_wait_seconds / (self._trained - self._epoch_started)

    def on_batch_arrived(self) -> None:
        """Notes that a batch was handed out; called by `models.data.batches.observed`."""
        self._observed = True
        self._data_wait_seconds += time.perf_counter() - self._batch_requested

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._phase_started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch + 1
        self._epoch_started = self._last_message = time.perf_counter()
        self._data_wait_seconds = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._batch_requested = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        step = batch + 1
        self._steps += 1
        check_finite(self._phase, "loss", logs["loss"], f"epoch {self.epoch}, step {step}")
        now = time.perf_counter()
        if self._steps == 1:
            self._phase_started = self._epoch_started = self._last_message = now
            self._data_wait_seconds = 0.0
        elif now - self._last_message >= _SECONDS_BETWEEN_MESSAGES:
            self._last_message = now
            self._show(step, logs, now)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._trained = time.perf_counter()

    def _show(self, step: int, logs: dict[str, Any], now: float) -> None:
        done = (self.epoch - 1) * self._steps_per_epoch + step
        begun, ended = self._work(done - self._steps + 1), self._work(done)
        _LOG.info(
            "%s: epoch %d/%d, step %d/%d, loss %.4f, accuracy %.4f, learning rate %.3g, %.0f images/s, "
            "at most %s left",
            self._phase.name,
            self.epoch,
            self._phase.epochs,
            step,
            self._steps_per_epoch,
            logs["loss"],
            logs["accuracy"],
            float(self._schedule(done - 1)),
            self._images_per_second(step, now),
            durations.describe_left((now - self._phase_started) * (1.0 - ended) / (ended - begun)),
        )

    def _work(self, steps: int) -> float:
        """Returns the share of the phase's work, in pixels, that its first steps do."""
        return self._crops.pixels(steps / self._steps_per_epoch)

    def _images_per_second(self, steps: int, now: float) -> float | None:
        """Returns the speed over the first `steps` of the epoch, the step that compiled left out."""
        timed = steps - (self._steps == steps)
        if not timed:
            return None
        return self._train_count / self._steps_per_epoch * timed / (now - self._epoch_started)
