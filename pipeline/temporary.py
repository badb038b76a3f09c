"""Gives a program a temporary folder of its own, in which libraries leave files that nobody else removes."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from datasets import atomic_directory

_PREFIX = "pipeline-"
_VARIABLE = "TMPDIR"


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Makes a new folder in TMPDIR the place of all temporary files of this process and its children.

    Beam and TensorFlow leave files in TMPDIR after every run, and so does any program that is killed. The
    folder is removed at the end. If the process is killed, the next call removes it.

    Yields:
      The folder, to which only this user has access.

    Raises:
      OSError: the folder cannot be created.
    """
    before, variable = tempfile.gettempdir(), os.environ.get(_VARIABLE)
    _remove_abandoned(Path(before))
    path, lock = _create()
    tempfile.tempdir = os.environ[_VARIABLE] = str(path)
    try:
        yield path
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = variable
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _create() -> tuple[Path, int]:
    """Creates a folder and locks it, which tells other processes that it is in use."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Another process may take it for abandoned, and remove it, before it is locked.
        with contextlib.suppress(FileNotFoundError):
            lock = atomic_directory.lock(path)
            if lock is not None and path.exists():
                return path, lock
            if lock is not None:
                os.close(lock)


def _remove_abandoned(parent: Path) -> None:
    """Removes the folders of this user that no running process has locked."""
    for path in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            found = path.lstat()  # In a folder that all users share, a name may be a link of somebody else.
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                lock = atomic_directory.lock(path)
                if lock is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(lock)
