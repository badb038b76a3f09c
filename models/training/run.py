"""The state of a training: its phases, its best weights, and its record on disk."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from models.training import checkpoint
from models.training.early_stopping import EarlyStopping
from models.training.history import Curves, Epoch, History


class TrainingDivergedError(RuntimeError):
    """The loss became infinite or not a number."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training with its own schedule and early stopping.

    Attributes:
      name: shown in logs and in the history.
      epochs: highest number of epochs.
      learning_rate: peak learning rate.
      batch_size: images in a step, over all workers.
    """

    name: str
    epochs: int
    learning_rate: float
    batch_size: int


def check_finite(phase: Phase, name: str, value: Any, where: str) -> None:
    """Raises a TrainingDivergedError if a loss is infinite or not a number."""
    if not math.isfinite(value):
        raise TrainingDivergedError(
            f"{phase.name} diverged: {name} is {float(value)} in {where}, at a peak learning rate of "
            f"{phase.learning_rate:g}.\nTry a lower trainer.learning_rate, or lower values in "
            "tuner.space.trainer.learning_rate if it was searched"
        )


class BestWeights:
    """The weights with the lowest validation loss so far, over all phases."""

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
      best: the best weights of all epochs.
      history: all epochs.
      directory: where the history and TensorBoard's logs are written; None writes nothing.
      checkpoints: saves the training after each epoch; None saves nothing.
      started: when it was created, by `time.perf_counter`.
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

    def save(
        self, phase: Phase, epoch: int, stopped: bool, early_stopping: EarlyStopping, network: keras.Model
    ) -> None:
        """Writes a checkpoint, if this process saves the training.

        Args:
          phase: the current phase.
          epoch: number of the epoch that has ended, from 1.
          stopped: whether early stopping ends the phase here.
          early_stopping: early stopping of the phase.
          network: the compiled network, for its optimizer.
        """
        # Only the chief of several workers has a directory, and only one worker may write.
        if self.checkpoints is None or self.directory is None:
            return
        progress = {
            "phase": phase.name,
            "epoch": epoch,
            "stopped": stopped,
            "lowest": early_stopping.lowest,
            "waited_epochs": early_stopping.waited_epochs,
            "best_val_loss": self.best.val_loss,
            "history": [dataclasses.asdict(each) for each in self.history.epochs],
            "seconds": self.history.seconds_before + time.perf_counter() - self.started,
        }
        model = [variable.numpy() for variable in self.best.model.variables]
        optimizer = [variable.numpy() for variable in network.optimizer.variables]
        self.checkpoints.save(checkpoint.State(progress, model, optimizer, self.best.weights))

    def resume(
        self, state: checkpoint.State, phase: Phase, early_stopping: EarlyStopping, network: keras.Model
    ) -> int:
        """Restores a saved training.

        Args:
          state: the state that `save` wrote.
          phase: the phase that the state was saved in.
          early_stopping: early stopping of the phase; it is updated.
          network: the compiled network, whose weights and optimizer are set.

        Returns:
          The number of finished epochs of the phase, or `phase.epochs` if early stopping had ended it.

        Raises:
          CheckpointError: the checkpoint is of another network.
        """
        variables = [*self.best.model.variables, *network.optimizer.variables]
        values = [*state.model, *state.optimizer]
        if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
            assert self.checkpoints is not None
            raise self.checkpoints.error("a network of another shape: the code has changed since")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        progress = state.progress
        self.best.weights, self.best.val_loss = state.best, progress["best_val_loss"]
        self.record([Epoch(**epoch) for epoch in progress["history"]])
        self.history.seconds_before = progress["seconds"]
        early_stopping.lowest = progress["lowest"]
        early_stopping.waited_epochs = progress["waited_epochs"]
        return phase.epochs if progress["stopped"] else progress["epoch"]
