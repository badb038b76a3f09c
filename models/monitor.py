"""One phase of training as it is watched: logged, recorded, saved, stopped."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from models import checkpoint, schedules
from models.history import Curves, Epoch, History

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_MESSAGES = 5.0


class TrainingDivergedError(RuntimeError):
    """The loss became infinite or not a number."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training with its own schedule and early stopping."""

    name: str
    epochs: int
    learning_rate: float
    batch_size: int


class BestWeights:
    """The weights with the lowest validation loss so far, of however many phases."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.val_loss = math.inf
        self.weights: Sequence[np.ndarray] = ()

    def offer(self, val_loss: float) -> bool:
        """Keeps a copy of the model's weights if they are better; returns whether they are."""
        if val_loss >= self.val_loss:
            return False
        self.val_loss = val_loss
        self.weights = self.model.get_weights()
        return True

    def restore(self) -> None:
        """Puts the kept weights back, batch normalisation's statistics included."""
        self.model.set_weights(self.weights)


@dataclasses.dataclass
class Run:
    """A training of one or more phases, as far as it has come.

    Attributes:
      best: of all epochs.
      history: of all epochs.
      directory: where the history and TensorBoard's logs are written; None writes nothing.
      checkpoints: where the training is kept after each epoch; None keeps nothing.
      started: when, by `time.perf_counter`.
    """

    best: BestWeights
    history: History = dataclasses.field(default_factory=History)
    directory: str | None = None
    checkpoints: checkpoint.Checkpoint | None = None
    started: float = dataclasses.field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._curves = Curves(self.directory) if self.directory is not None else None

    def record(self, epochs: Sequence[Epoch]) -> None:
        """Adds epochs to the history and the logs."""
        self.history.epochs.extend(epochs)
        if self._curves is None:
            return
        self.history.write(self._curves.directory)
        for epoch in epochs:
            self._curves.add(epoch)


class Monitor(keras.callbacks.Callback):
    """Watches a phase: logs, records, keeps the best weights and the last ones, stops."""

    def __init__(
        self,
        network: keras.Model,
        *,
        phase: Phase,
        schedule: schedules.Schedule,
        crops: schedules.Crops,
        patience_epochs: int,
        train_count: int,
        steps_per_epoch: int,
        run: Run,
    ) -> None:
        super().__init__()
        self._network = network
        self._phase = phase
        self._schedule = schedule
        self._crops = crops
        self._patience_epochs = patience_epochs
        self._train_count = train_count
        self._steps_per_epoch = steps_per_epoch
        self._run = run
        self._lowest = math.inf  # of this phase
        self._waited_epochs = 0
        self._epoch = 0
        self._steps = 0  # of this process
        self._started = self._trained = self._phase_started = self._last_message = 0.0
        self._batch_asked = self._data_wait = 0.0
        self._observed = False

    def resume(self, state: checkpoint.State) -> int:
        """Puts a saved training in the place of this one; returns how many epochs of it were done.

        Raises:
          ValueError: it is one of another network.
        """
        best = self._run.best
        variables = [*best.model.variables, *self._network.optimizer.variables]
        values = [*state.model, *state.optimizer]
        if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
            raise ValueError(
                f"the checkpoint {self._run.checkpoints and self._run.checkpoints.path} is of a network of "
                "another shape: the code has changed since. Delete it; the training then begins anew"
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        best.weights, best.val_loss = state.best, state.progress["best_val_loss"]
        self._run.record([Epoch(**epoch) for epoch in state.progress["history"]])
        self._run.history.seconds_before = state.progress["seconds"]
        self._lowest, self._waited_epochs = state.progress["lowest"], state.progress["waited_epochs"]
        return self._phase.epochs if state.progress["stopped"] else state.progress["epoch"]

    def _save(self, stopped: bool) -> None:
        run = self._run
        # Only the chief has a directory, and only one may write.
        if run.checkpoints is None or run.directory is None:
            return
        progress = {
            "phase": self._phase.name,
            "epoch": self._epoch,
            "stopped": stopped,
            "lowest": self._lowest,
            "waited_epochs": self._waited_epochs,
            "best_val_loss": run.best.val_loss,
            "history": [dataclasses.asdict(epoch) for epoch in run.history.epochs],
            "seconds": run.history.seconds_before + time.perf_counter() - run.started,
        }
        model = [variable.numpy() for variable in run.best.model.variables]
        optimizer = [variable.numpy() for variable in self._network.optimizer.variables]
        run.checkpoints.save(checkpoint.State(progress, model, optimizer, run.best.weights))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._phase_started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch + 1
        self._started = self._last_message = time.perf_counter()
        self._data_wait = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._batch_asked = time.perf_counter()

    def on_batch_arrived(self) -> None:
        self._observed = True
        self._data_wait += time.perf_counter() - self._batch_asked

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        step = batch + 1
        self._steps += 1
        self._check_finite("loss", logs["loss"], f"step {step}")
        now = time.perf_counter()
        if self._steps == 1:
            # The first step compiles the graph: neither speed nor time left can be told from it.
            self._phase_started = self._started = self._last_message = now
            self._data_wait = 0.0
            return
        if now - self._last_message < _SECONDS_BETWEEN_MESSAGES:
            return
        self._last_message = now
        done = (self._epoch - 1) * self._steps_per_epoch + step
        begun, ended = self._pixels(done - self._steps + 1), self._pixels(done)
        _LOG.info(
            "%s: epoch %d/%d, step %d/%d, loss %.4f, accuracy %.4f, learning rate %.3g, %.0f images/s, "
            "at most %s left",
            self._phase.name,
            self._epoch,
            self._phase.epochs,
            step,
            self._steps_per_epoch,
            logs["loss"],
            logs["accuracy"],
            float(self._schedule(done - 1)),
            self._images_per_second(step, now),
            duration((now - self._phase_started) * (1.0 - ended) / (ended - begun)),
        )

    def _pixels(self, steps: int) -> float:
        return self._crops.pixels(steps / self._steps_per_epoch)

    def _images_per_second(self, steps: int, now: float) -> float | None:
        """Returns the speed of this epoch so far; the first step of all is not timed."""
        timed = steps - (self._steps == steps)
        return self._train_count / self._steps_per_epoch * timed / (now - self._started) if timed else None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        self._check_finite("val_loss", logs["val_loss"], "its end")
        val_loss = float(logs["val_loss"])
        done = self._epoch * self._steps_per_epoch
        speed = self._images_per_second(self._steps_per_epoch, self._trained)
        record = Epoch(
            phase=self._phase.name,
            epoch=self._epoch,
            loss=float(logs["loss"]),
            accuracy=float(logs["accuracy"]),
            val_loss=val_loss,
            val_accuracy=float(logs["val_accuracy"]),
            learning_rate=float(self._schedule(done - 1)),
            seconds=time.perf_counter() - self._started,
            images_per_second=speed,
            data_wait=self._data_wait / (self._trained - self._started) if self._observed and speed else None,
        )
        self._run.record([record])
        best = self._run.best.offer(val_loss)
        if val_loss < self._lowest:
            self._lowest, self._waited_epochs = val_loss, 0
        elif self._schedule.settled(done - 1):
            self._waited_epochs += 1
        stopped = self._waited_epochs >= self._patience_epochs
        self._save(stopped)
        # When it is said, it is kept.
        _LOG.info(
            "%s: epoch %d/%d in %.1f s, loss %.4f, accuracy %.4f, val_loss %.4f, val_accuracy %.4f%s%s",
            self._phase.name,
            self._epoch,
            self._phase.epochs,
            record.seconds,
            record.loss,
            record.accuracy,
            record.val_loss,
            record.val_accuracy,
            f", {record.data_wait:.1%} of the time waiting for data" if record.data_wait is not None else "",
            " (best so far)" if best else "",
        )
        if stopped and self._epoch < self._phase.epochs:
            _LOG.info(
                "%s: no lower val_loss for %d epochs, stopped early", self._phase.name, self._waited_epochs
            )
            self.model.stop_training = True

    def _check_finite(self, name: str, value: Any, where: str) -> None:
        if not math.isfinite(value):
            raise TrainingDivergedError(
                f"{self._phase.name} diverged: {name} is {float(value)} in epoch {self._epoch}, {where}, at "
                f"a peak learning rate of {self._phase.learning_rate:g}. Try a lower trainer.learning_rate, "
                "or a lower tuner.learning_rate.max if it was searched"
            )


def duration(seconds: float) -> str:
    """Returns a time as progress lines have it."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
