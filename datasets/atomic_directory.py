"""Creates a directory that other processes see complete or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def create(path: Path) -> Iterator[Path]:
    """Creates a directory atomically, as a context manager.

    The body writes to a hidden directory beside `path`, whose files are then written through to the disk, and
    which is renamed to `path`. If the body raises, the hidden directory is removed. If the process is killed,
    the next call for a path in the same parent removes it.

    Args:
      path: the new directory; it must not exist, or be an empty directory.

    Yields:
      The hidden directory.

    Raises:
      OSError: the directory cannot be written or renamed. Of a full disk, the message says how much is free.
    """
    with temporary(path) as partial:
        try:
            yield partial
            for entry in [*partial.rglob("*"), partial]:
                write_through(entry)
            partial.chmod(0o777 & ~_umask())  # mkdtemp gives access to the owner only
            try:
                partial.rename(path)
            except OSError as error:
                raise OSError(
                    error.errno, f"the finished folder cannot get its name: {error.strerror}", str(path)
                ) from error
            write_through(path.parent)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(path.parent).free / 1e6
                raise OSError(
                    error.errno, f"{os.strerror(error.errno)}: {free:,.0f} MB are free there", str(path)
                ) from error
            raise


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Creates a hidden directory beside a path for the body's files, and removes it at the end.

    If the process is killed, the next call for a path in the same parent removes it.

    Args:
      path: what the files are for; it is not touched.

    Yields:
      The hidden directory.
    """
    parent = path.parent
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}{_SUFFIX}", dir=parent))
    # The lock lasts as long as this process, so that no other process removes the directory as abandoned.
    held = lock(partial)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if held is not None:
            os.close(held)


_SUFFIX = ".partial-"


def lock(directory: Path) -> int | None:
    """Locks a directory until this process ends, or closes the descriptor.

    Returns:
      The file descriptor that holds the lock; None if another process has locked the directory.

    Raises:
      FileNotFoundError: there is nothing.
      NotADirectoryError: there is a file or a link.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def remove_abandoned(parent: Path) -> None:
    """Removes the hidden directories in a folder that no running process has locked.

    Args:
      parent: the folder; it need not exist.
    """
    for partial in parent.glob(f".*{_SUFFIX}*"):
        with suppress(FileNotFoundError, NotADirectoryError):
            held = lock(partial)
            if held is not None:
                shutil.rmtree(partial, ignore_errors=True)
                os.close(held)


def write_through(path: Path) -> None:
    """Waits until a file or a directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """Returns the process's mask of permissions, which can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
