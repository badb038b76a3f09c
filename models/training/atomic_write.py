"""Files on this machine or in a bucket."""

from __future__ import annotations

import posixpath

import tensorflow as tf


def replace(path: str, content: bytes | str) -> None:
    """Writes a file in the place of the one before; at any moment one of them is there and whole."""
    directory, name = posixpath.split(path)  # not a Path: it may be in a bucket
    temporary = f"{directory}/.{name}"
    with tf.io.gfile.GFile(temporary, "wb" if isinstance(content, bytes) else "w") as file:
        file.write(content)
    tf.io.gfile.rename(temporary, path, overwrite=True)
