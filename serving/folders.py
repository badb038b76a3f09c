"""The folders of pushed models: `MODELS/NAME/VERSION/saved_model.pb`, where a version is a number.

This module loads without TensorFlow.
"""

from __future__ import annotations

import re
from pathlib import Path

SAVED_MODEL = "saved_model.pb"
# Identifies the content of a folder: path, size in bytes and modification time in ns of each file.
Fingerprint = frozenset[tuple[str, int, int]]


def is_complete(path: Path) -> bool:
    """Returns whether a folder holds a version: its name is a number, and the graph is there."""
    return bool(re.fullmatch(r"[0-9]{1,18}", path.name)) and (path / SAVED_MODEL).is_file()


def versions(model: Path) -> dict[int, Path]:
    """Returns the complete versions of a model: number -> folder.

    Raises:
      OSError: the folder of the model cannot be read.
    """
    return {int(path.name): path for path in model.iterdir() if is_complete(path)}


def models(root: Path) -> dict[str, Path]:
    """Returns the models that have a complete version: name -> folder.

    Raises:
      OSError: a folder cannot be read.
    """
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and versions(path)}


def fingerprint(version: Path) -> Fingerprint:
    """Returns what changes when a file of a version is added, removed, or written to.

    Raises:
      OSError: a file vanished meanwhile, or cannot be read.
    """
    found = set()
    for path in version.rglob("*"):
        if path.is_file():
            stat = path.stat()
            found.add((path.relative_to(version).as_posix(), stat.st_size, stat.st_mtime_ns))
    return frozenset(found)
