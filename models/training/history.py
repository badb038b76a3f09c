"""The results of each epoch: a JSON file, which the report reads, and TensorBoard curves."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import tensorflow as tf

from models import run_files
from models.training import atomic_write


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The results of one epoch.

    Both losses include the label smoothing and the class weights of training. The first step of a phase in a
    process compiles the graph, so `seconds`, `images_per_second` and `data_wait` leave it out.

    Attributes:
      phase: name of the phase.
      epoch: number of the epoch, from 1 in each phase.
      loss: mean training loss over the epoch, on augmented images while the weights change.
      accuracy: mean training accuracy over the epoch, 0 to 1, on the same images as `loss`.
      val_loss: validation loss of the weights at the end of the epoch.
      val_accuracy: validation accuracy, 0 to 1, of the weights at the end of the epoch.
      learning_rate: learning rate of the epoch's last step.
      seconds: duration of the epoch, validation included.
      images_per_second: training speed, without validation; None if the only step was the one that compiles.
      data_wait: share of the training time, 0 to 1, in which the network waited for the next batch; None if
        several replicas share the batches, or the only step was the one that compiles.
    """

    phase: str
    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float | None
    data_wait: float | None


@dataclasses.dataclass
class History:
    """The history of a training.

    Attributes:
      epochs: all epochs of all phases, in order.
      seconds_before: duration of the training in killed processes, up to the epoch after which this process
        resumed.
      calibration: how the trained model was calibrated, `models.calibration.Calibration.described`; None as
        long as it is not.
    """

    epochs: list[Epoch] = dataclasses.field(default_factory=list)
    seconds_before: float = 0.0
    calibration: dict[str, Any] | None = None

    @property
    def best(self) -> Epoch:
        """The epoch with the lowest validation loss, whose weights the trained model has."""
        return min(self.epochs, key=lambda epoch: epoch.val_loss)

    def write(self, directory: str) -> None:
        """Writes `history.json` atomically; `best` in it is the index of the best epoch in `epochs`."""
        content = {
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
            "best": self.epochs.index(self.best),
            "calibration": self.calibration,
        }
        atomic_write.replace(f"{directory}/{run_files.HISTORY}", json.dumps(content, indent=2))


class Curves:
    """Writes TensorBoard logs, under the names that Keras' callback uses.

    Keras' callback itself cannot write the epochs of a process that was killed.

    Args:
      directory: output folder of the training; each phase gets its own folder in its `tensorboard/`.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def add(self, epoch: Epoch) -> None:
        """Writes the curves' points of one epoch and flushes them to disk."""
        training = {
            name: getattr(epoch, name)
            for name in ("loss", "accuracy", "learning_rate", "images_per_second", "data_wait")
            if getattr(epoch, name) is not None
        }
        validation = {"loss": epoch.val_loss, "accuracy": epoch.val_accuracy}
        for split, values in (("train", training), ("validation", validation)):
            folder = f"{self.directory}/{run_files.TENSORBOARD}/{epoch.phase}/{split}"
            if folder not in self._writers:
                self._writers[folder] = tf.summary.create_file_writer(folder)
            with self._writers[folder].as_default(step=epoch.epoch):
                for name, value in values.items():
                    tf.summary.scalar(f"epoch_{name}", value)
            self._writers[folder].flush()
