"""Atomic writes of files, on a local disk or in a bucket."""

from __future__ import annotations

import posixpath

import tensorflow as tf


def replace(path: str, content: bytes | str) -> None:
    """Replaces a file atomically: readers find either the previous content or the new one, complete.

    Args:
      path: path of the file, on a local disk or in a bucket.
      content: the whole new content; text is written as UTF-8.
    """
    directory, name = posixpath.split(path)  # pathlib would mangle the URI of a bucket
    temporary = f"{directory}/.{name}"
    with tf.io.gfile.GFile(temporary, "wb" if isinstance(content, bytes) else "w") as file:
        file.write(content)
    tf.io.gfile.rename(temporary, path, overwrite=True)
