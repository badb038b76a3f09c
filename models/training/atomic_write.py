"""Atomic writes of files, on a local disk or in a bucket."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

import tensorflow as tf


def replace(path: str, content: bytes | str) -> None:
    """Replaces a file atomically: readers find either the previous content or the new one, complete.

    On a local disk this also holds if the machine loses power: the new content is on the disk before it gets
    the file's name.

    Args:
      path: path of the file, on a local disk or in a bucket.
      content: the whole new content; text is written as UTF-8.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = temporary_path(path)
    if "://" in path:
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(data)
        tf.io.gfile.rename(temporary, path, overwrite=True)
        return
    with Path(temporary).open("wb") as local:
        local.write(data)
        local.flush()
        os.fsync(local.fileno())
    Path(temporary).replace(path)
    _write_through(Path(path).parent)


def temporary_path(path: str) -> str:
    """Returns the path at which the new content of a file is written; a killed process leaves it there."""
    directory, name = posixpath.split(path)  # pathlib would mangle the URI of a bucket
    return posixpath.join(directory, f".{name}")


def _write_through(directory: Path) -> None:
    """Waits until the names of a directory's files are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
