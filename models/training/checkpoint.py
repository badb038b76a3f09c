"""Checkpoints: the state of a training after an epoch, in a file from which another process can resume."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from models.training import atomic_write

_ARRAYS = ("model", "optimizer", "best")


class CheckpointError(ValueError):
    """A checkpoint from which a training cannot resume; the message names the file and says what to do."""


@dataclasses.dataclass(frozen=True)
class State:
    """The state of a training after an epoch.

    Attributes:
      progress: how far the training has come and its history, as a JSON-serialisable value.
      model: all variables of the network, including the seeds of its dropout.
      optimizer: all variables of the optimizer.
      best: the network's weights with the lowest validation loss so far.
    """

    progress: dict[str, Any]
    model: Sequence[np.ndarray]
    optimizer: Sequence[np.ndarray]
    best: Sequence[np.ndarray]


class Checkpoint:
    """The checkpoint file of one training, written after each epoch and removed once its model is exported.

    The file is named after a digest of everything that determines the training's course, so that only the
    same training resumes from it. Keras' BackupAndRestore is not used: it writes two files one after the
    other, and saves neither the best weights nor the state of early stopping.

    Args:
      directory: folder of the checkpoints of all trainings; created by the first `save`.
      parts: everything that determines the training's course, such as settings, hyperparameters and
        images, as a JSON-serialisable value.

    Attributes:
      path: path of the file.
    """

    def __init__(self, directory: str, parts: Any) -> None:
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        self._directory = directory
        self.path = f"{directory}/{digest[:16]}.npz"

    def save(self, state: State) -> None:
        """Writes the state; it replaces the previous file atomically."""
        tf.io.gfile.makedirs(self._directory)
        arrays = {
            f"{kind}/{index}": array for kind in _ARRAYS for index, array in enumerate(getattr(state, kind))
        }
        content = io.BytesIO()
        np.savez(content, progress=np.array(json.dumps(state.progress)), **arrays)
        atomic_write.replace(self.path, content.getvalue())

    def load(self) -> State | None:
        """Returns the state that was saved last, or None if there is no file.

        Raises:
          CheckpointError: the file is damaged.
        """
        if not tf.io.gfile.exists(self.path):
            return None
        with tf.io.gfile.GFile(self.path, "rb") as file:
            content = file.read()
        try:
            return _parse(content)
        except Exception as error:  # NumPy does not document what foreign bytes make it raise
            raise self.error(f"{len(content):,} bytes, is not whole or not a checkpoint ({error})") from error

    def error(self, problem: str) -> CheckpointError:
        """Returns an error that names the file and says what to do.

        Args:
          problem: what is wrong with the file, after its path and "which has".
        """
        return CheckpointError(
            f"cannot resume the training from the checkpoint {self.path}, which has {problem}. Delete this "
            "file and run the same command again; the training then starts from the beginning"
        )

    def remove(self) -> None:
        """Removes the file, if there is one, and what a killed process may have left of the next one."""
        for path in (self.path, atomic_write.temporary_path(self.path)):
            if tf.io.gfile.exists(path):
                tf.io.gfile.remove(path)


def _parse(content: bytes) -> State:
    with np.load(io.BytesIO(content), allow_pickle=False) as saved:
        lists = {
            kind: [saved[f"{kind}/{index}"] for index in range(_count(saved.files, kind))] for kind in _ARRAYS
        }
        progress = json.loads(str(saved["progress"]))
    if not isinstance(progress, dict):
        raise TypeError(f"expected a JSON object in 'progress', found {progress!r}")
    return State(progress, **lists)


def _count(names: Sequence[str], kind: str) -> int:
    """Returns the number of arrays of one kind in the file."""
    return sum(name.startswith(f"{kind}/") for name in names)
