"""A training as it is after an epoch, in a file, so that another process can go on with it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from models.training import atomic_write

_ARRAYS = ("model", "optimizer", "best")


@dataclasses.dataclass(frozen=True)
class State:
    """A training after an epoch.

    Attributes:
      progress: what JSON can hold.
      model: all variables of the network, seeds of its dropout included.
      optimizer: all variables of the optimizer.
      best: the weights with the lowest validation loss so far.
    """

    progress: dict[str, Any]
    model: Sequence[np.ndarray]
    optimizer: Sequence[np.ndarray]
    best: Sequence[np.ndarray]


class Checkpoint:
    """The file of one training, written after each epoch, and removed when its model is exported.

    It is found again by what decides on the training's course: settings, hyperparameters and images. Keras'
    BackupAndRestore writes two files one after the other, and knows neither the best weights nor what early
    stopping has seen.

    Args:
      directory: for all trainings; made when it is needed.
      parts: what decides on the course, as JSON can hold it.
    """

    def __init__(self, directory: str, parts: Any) -> None:
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        self._directory = directory
        self.path = f"{directory}/{digest[:16]}.npz"

    def save(self, state: State) -> None:
        """Writes the state in the place of the one before; at any moment one of them is there and whole."""
        tf.io.gfile.makedirs(self._directory)
        arrays = {
            f"{kind}/{index}": array for kind in _ARRAYS for index, array in enumerate(getattr(state, kind))
        }
        content = io.BytesIO()
        np.savez(content, progress=np.array(json.dumps(state.progress)), **arrays)
        atomic_write.replace(self.path, content.getvalue())

    def load(self) -> State | None:
        """Returns what was saved last; None where there is nothing.

        Raises:
          ValueError: the file is damaged.
        """
        if not tf.io.gfile.exists(self.path):
            return None
        with tf.io.gfile.GFile(self.path, "rb") as file:
            content = file.read()
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as saved:
                lists = {
                    kind: [saved[f"{kind}/{index}"] for index in range(_count(saved.files, kind))]
                    for kind in _ARRAYS
                }
                return State(json.loads(str(saved["progress"])), **lists)
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"the checkpoint {self.path} ({len(content):,} bytes) cannot be read: {error}. Delete it; "
                "the training then begins anew"
            ) from error

    def remove(self) -> None:
        """Removes the file, if there is one."""
        if tf.io.gfile.exists(self.path):
            tf.io.gfile.remove(self.path)


def _count(names: Sequence[str], kind: str) -> int:
    return sum(name.startswith(f"{kind}/") for name in names)
