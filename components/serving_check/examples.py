"""Puts a few images of the test split into a pushed model, for people who want to try it in a browser."""

from __future__ import annotations

import posixpath
import urllib.parse
from collections.abc import Sequence

import tensorflow as tf
from tfx.dsl.io import fileio

from components import tfrecords
from datasets import features

# Path within the SavedModel of a folder of images. Each file is named after its class; in the name,
# `urllib.parse.quote` has replaced the characters that file names cannot have.
FOLDER = "assets.extra/examples"
_MOST = 8
# Records that are read at most. Usually the first few have images of enough classes.
_MOST_RECORDS = 10_000
# Larger images are left out: a model would grow by them, and a page would load slowly.
_MOST_BYTES = 2**20
# First bytes of an encoded image -> suffix of its file.
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}
_LONGEST_NAME = 255  # bytes, on most file systems


def write(directory: str, files: Sequence[str], class_names: Sequence[str]) -> None:
    """Writes one image each of up to 8 classes, encoded as in the records.

    Args:
      directory: path or URI of the SavedModel, which has no examples yet.
      files: TFRecord files of tf.train.Examples with `image` and `label`.
      class_names: names of the classes, in the order of the labels.
    """
    chosen: dict[str, bytes] = {}  # name of the file -> image
    seen = set()
    for record in tfrecords.read(files).take(_MOST_RECORDS).as_numpy_iterator():
        example = tf.train.Example.FromString(record).features.feature
        label = example[features.LABEL].int64_list.value[0]
        image = example[features.IMAGE].bytes_list.value[0]
        name = _file_name(class_names[label], image)
        if label in seen or name is None or len(image) > _MOST_BYTES:
            continue
        seen.add(label)
        chosen[name] = image
        if len(chosen) == min(_MOST, len(class_names)):
            break
    if chosen:
        fileio.makedirs(posixpath.join(directory, FOLDER))
    for name, image in chosen.items():
        with fileio.open(posixpath.join(directory, FOLDER, name), "wb") as file:
            file.write(image)


def _file_name(class_name: str, image: bytes) -> str | None:
    """Returns the name of an image's file; None if the image cannot have one."""
    for start, suffix in _SUFFIXES.items():
        if image.startswith(start):
            name = urllib.parse.quote(class_name, safe=" ") + suffix
            return name if len(name) <= _LONGEST_NAME else None
    return None
