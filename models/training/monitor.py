"""The callback that records each epoch when it ends."""

from __future__ import annotations

import logging
from typing import Any

import keras

from models.training import checkpoint
from models.training.early_stopping import EarlyStopping
from models.training.history import Epoch
from models.training.progress import Progress
from models.training.run import Phase, Run, check_finite

_LOG = logging.getLogger(__name__)


class Monitor(keras.callbacks.Callback):
    """Records each epoch, keeps the best weights, writes the checkpoint, and stops the phase early.

    In the list of callbacks it has to come after `progress`, whose measurements it records.
    """

    def __init__(
        self,
        network: keras.Model,
        run: Run,
        phase: Phase,
        early_stopping: EarlyStopping,
        progress: Progress,
    ) -> None:
        super().__init__()
        self._network = network
        self._run = run
        self._phase = phase
        self._early_stopping = early_stopping
        self._progress = progress

    def resume(self, state: checkpoint.State) -> int:
        """Restores a saved training; returns how many epochs of the phase are done. See `Run.resume`."""
        return self._run.resume(state, self._phase, self._early_stopping, self._network)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        progress = self._progress
        check_finite(self._phase, "val_loss", logs["val_loss"], f"the validation of epoch {progress.epoch}")
        record = Epoch(
            phase=self._phase.name,
            epoch=progress.epoch,
            loss=float(logs["loss"]),
            accuracy=float(logs["accuracy"]),
            val_loss=float(logs["val_loss"]),
            val_accuracy=float(logs["val_accuracy"]),
            learning_rate=progress.learning_rate,
            seconds=progress.epoch_seconds,
            images_per_second=progress.images_per_second,
            data_wait=progress.data_wait,
        )
        self._run.record([record])
        best = self._run.best.offer(record.val_loss)
        stopped = self._early_stopping.update(record.val_loss, progress.last_step)
        self._run.save(self._phase, record.epoch, stopped, self._early_stopping, self._network)
        # Logged only after the checkpoint is written: what the log shows is not lost in a kill.
        _LOG.info(
            "%s: epoch %d/%d in %.1f s, loss %.4f, accuracy %.4f, val_loss %.4f, val_accuracy %.4f%s%s",
            self._phase.name,
            record.epoch,
            self._phase.epochs,
            record.seconds,
            record.loss,
            record.accuracy,
            record.val_loss,
            record.val_accuracy,
            f", {record.data_wait:.1%} of the time waiting for data" if record.data_wait is not None else "",
            " (best so far)" if best else "",
        )
        if stopped and record.epoch < self._phase.epochs:
            _LOG.info(
                "%s: no lower val_loss for %d epochs, stopped early",
                self._phase.name,
                self._early_stopping.waited_epochs,
            )
            self.model.stop_training = True
