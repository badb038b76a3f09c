"""Atomic writes of files, on a local disk or in a bucket."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

import tensorflow as tf

from datasets import atomic_directory


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
    atomic_directory.write_through(Path(path).parent)


def temporary_path(path: str) -> str:
    """Returns the path at which the new content of a file is written; a killed process leaves it there."""
    directory, name = posixpath.split(path)  # pathlib would mangle the URI of a bucket
    return posixpath.join(directory, f".{name}")
