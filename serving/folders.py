"""The folders of pushed models: `MODELS/NAME/VERSION/saved_model.pb`, where a version is a number.

This module loads without TensorFlow.
"""

from __future__ import annotations

import re
from pathlib import Path

SAVED_MODEL = "saved_model.pb"
# TensorFlow writes an index and one or more files of variables, also for a model that has none.
_INDEX, _SHARDS = "variables/variables.index", "variables/variables.data-*"
# Identifies the content of a folder: path, size in bytes and modification time in ns of each file.
Fingerprint = frozenset[tuple[str, int, int]]


def is_complete(path: Path) -> bool:
    """Returns whether a folder holds a version: its name is a number, and no file is missing."""
    return _is_number(path.name) and not missing(path)


def missing(version: Path) -> list[str]:
    """Returns the files without which no version can be loaded, and which are not there."""
    names = [name for name in (SAVED_MODEL, _INDEX) if not (version / name).is_file()]
    # The name of each file of variables, such as variables.data-00000-of-00001, says how many there are.
    shards = [re.search(r"-of-([0-9]+)$", path.name) for path in version.glob(_SHARDS)]
    counts = {int(shard[1]) for shard in shards if shard}
    if counts != {len(shards)}:
        names.append(_SHARDS)
    return names


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


def parts(model: Path) -> dict[int, Path]:
    """Returns the folders of a model that are named as versions are, but are not complete: number -> folder.

    Raises:
      OSError: the folder of the model cannot be read.
    """
    return {
        int(path.name): path
        for path in model.iterdir()
        if _is_number(path.name) and path.is_dir() and missing(path)
    }


def check_root(root: Path) -> str | None:
    """Returns what is wrong with a folder of models: it is the folder of one; None if it is not.

    Raises:
      OSError: the folder cannot be read.
    """
    if not versions(root):
        return None
    found = root.absolute()
    return (
        f"{root} is the folder of the model {found.name}; expected the folder that holds it, which is "
        f"{found.parent}"
    )


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


def _is_number(name: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,18}", name))
