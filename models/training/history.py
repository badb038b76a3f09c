"""What the epochs of a training reached: a file that the report reads, and curves in TensorBoard."""

from __future__ import annotations

import dataclasses
import json

import tensorflow as tf

from models import run_files
from models.training import atomic_write


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What one epoch reached.

    `loss` and `accuracy` are means over the epoch, on augmented images while the weights changed;
    `val_loss` and `val_accuracy` belong to the weights at its end. Both losses are label-smoothed if
    training is, and weigh the classes as it does. `learning_rate` is that of the last step, `seconds`
    includes the validation, `images_per_second` counts training alone, and `data_wait` is the part of that
    time, 0 to 1, in which the network waited for the next batch: None where several replicas share them. The
    first step of a phase in a process, which compiles, is left out of all three; the last two are None where
    there was no other.
    """

    phase: str
    epoch: int  # from 1 in each phase
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
    """All epochs of all phases, in their order.

    `seconds_before` is the time that killed processes took, up to the epoch from which this one goes on.
    """

    epochs: list[Epoch] = dataclasses.field(default_factory=list)
    seconds_before: float = 0.0

    @property
    def best(self) -> Epoch:
        """The epoch with the lowest validation loss: its weights are the ones that are kept."""
        return min(self.epochs, key=lambda epoch: epoch.val_loss)

    def write(self, directory: str) -> None:
        """Writes `history.json`, whole or not at all; `best` is the position of the best epoch."""
        content = {
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
            "best": self.epochs.index(self.best),
        }
        atomic_write.replace(f"{directory}/{run_files.HISTORY}", json.dumps(content, indent=2))


class Curves:
    """TensorBoard's logs, with the names of Keras' callback, which cannot write epochs of a process before.

    Args:
      directory: of the training; each phase has its own folder in `tensorboard/`.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def add(self, epoch: Epoch) -> None:
        """Writes an epoch, to be seen at once."""
        trained = {
            name: getattr(epoch, name)
            for name in ("loss", "accuracy", "learning_rate", "images_per_second", "data_wait")
            if getattr(epoch, name) is not None
        }
        validated = {"loss": epoch.val_loss, "accuracy": epoch.val_accuracy}
        for split, values in (("train", trained), ("validation", validated)):
            folder = f"{self.directory}/{run_files.TENSORBOARD}/{epoch.phase}/{split}"
            if folder not in self._writers:
                self._writers[folder] = tf.summary.create_file_writer(folder)
            with self._writers[folder].as_default(step=epoch.epoch):
                for name, value in values.items():
                    tf.summary.scalar(f"epoch_{name}", value)
            self._writers[folder].flush()
