"""Assembles the model that is pushed: the exported one, and files that servers and their operators need."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tfx.dsl.io import fileio

from components.serving_check import check, examples, reference, warm_up


def write(
    model: str,
    directory: str,
    files: Sequence[str],
    class_names: Sequence[str],
    answer: dict[str, Any],
) -> None:
    """Writes the model that is pushed.

    It has the files of the exported model; the requests that warm TensorFlow Serving up, see `warm_up`; the
    description of a sample of the test split, see `reference`; images to try it with, see `examples`; and the
    answer of the serving client, `serving_check.json`.

    Args:
      model: folder of the exported model.
      directory: folder to write.
      files: TFRecord files of the test split.
      class_names: names of the classes, in the order of the labels.
      answer: from `check.ask`.
    """
    link_or_copy(model, directory)
    fileio.makedirs(posixpath.join(directory, posixpath.dirname(warm_up.FILE)))
    loaded = tf.saved_model.load(model)
    request = check.read_request(files, class_names, 1)
    encoded = bytes.fromhex(request["image_bytes"][0])
    seen = loaded.pixels(tf.constant([encoded]))[0].numpy()
    warm_up.write(posixpath.join(directory, warm_up.FILE), encoded, seen)
    table = reference.describe(loaded, files, class_names, seen.shape[:2])
    reference.write(table, posixpath.join(directory, reference.FILE))
    examples.write(directory, files, class_names)
    with fileio.open(posixpath.join(directory, check.ANSWER), "w") as file:
        file.write(json.dumps(answer, indent=2))


def link_or_copy(source: str, target: str) -> None:
    """Copies a folder; on a disk that can, both folders share the files, which nothing changes."""
    for parent, _, names in fileio.walk(source):
        folder = posixpath.join(target, posixpath.relpath(parent, source))
        fileio.makedirs(folder)
        for name in names:
            _link_or_copy(posixpath.join(parent, name), posixpath.join(folder, name))


def _link_or_copy(source: str, target: str) -> None:
    if "://" not in source and "://" not in target:
        try:
            os.link(source, target)
        except OSError:
            pass  # another disk, or one without links
        else:
            return
    fileio.copy(source, target)
