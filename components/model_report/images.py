"""The images of a report: read from TFRecords, and made small enough to be part of a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence

import matplotlib
import numpy as np
import tensorflow as tf
from PIL import Image

from datasets import features
from datasets.decoding import decode

# Pixels of the longest side: up to this, PNG is small enough and keeps every pixel.
_LARGEST_PNG = 64
_JPEG_QUALITY = 85
_BATCH = 256
# Perceptually uniform, and told apart from the grey of the image by its hue.
_HEAT_COLORS = matplotlib.colormaps["inferno"]
# Of the hottest place, so that the image can be made out everywhere.
_HEAT_OPACITY = 0.75


def read(files: Sequence[str], indices: Iterable[int]) -> dict[int, bytes]:
    """Reads single images of a split; those before the last one wanted are passed over unparsed.

    Args:
      files: TFRecord files, gzip-compressed, of tf.train.Examples with an `image`.
      indices: places in the order of the files, and of the records in each, from 0.

    Returns:
      The encoded image of each index.

    Raises:
      IndexError: there are fewer records.
    """
    wanted = set(indices)
    images = {
        index: _parse(record).feature[features.IMAGE].bytes_list.value[0]
        for index, record in enumerate(_records(files, max(wanted, default=-1) + 1))
        if index in wanted
    }
    if missing := wanted - images.keys():
        raise IndexError(f"no record {min(missing)} in {', '.join(files)}")
    return images


def sample(files: Sequence[str], num_classes: int, per_class: int, limit: int) -> list[list[bytes]]:
    """Reads the first images of each class.

    Args:
      files: TFRecord files, gzip-compressed, of tf.train.Examples with `image` and `label`.
      num_classes: labels are smaller than this.
      per_class: how many images of a class.
      limit: how many records are looked at, at most.

    Returns:
      Up to `per_class` encoded images of each class.
    """
    images: list[list[bytes]] = [[] for _ in range(num_classes)]
    lacking = num_classes
    for record in _records(files, limit):
        example = _parse(record)
        of_class = images[example.feature[features.LABEL].int64_list.value[0]]
        if len(of_class) < per_class:
            of_class.append(example.feature[features.IMAGE].bytes_list.value[0])
            lacking -= len(of_class) == per_class
        if not lacking:
            break
    return images


def thumbnail(encoded: bytes, side: int = 128) -> str:
    """Makes an image small enough for a page.

    Args:
      encoded: PNG or JPEG.
      side: pixels that no side may exceed; smaller images keep theirs.

    Returns:
      A data URI, PNG or JPEG.

    Raises:
      OSError: Pillow cannot decode the image.
    """
    image = decode(encoded)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _data_uri(image)


def heat_overlay(encoded: bytes, heat: np.ndarray) -> str:
    """Shows where a network looked: the image in grey, under colours that are opaque where it is hot.

    Args:
      encoded: PNG or JPEG, of any size; it is resized to that of `heat`, as for the network.
      heat: float [height, width] in [0, 1].

    Returns:
      A data URI, PNG or JPEG.

    Raises:
      OSError: Pillow cannot decode the image.
    """
    height, width = heat.shape
    grey = decode(encoded).convert("L").resize((width, height), Image.Resampling.BILINEAR)
    opacity = _HEAT_OPACITY * heat[..., np.newaxis]
    colors = 255 * _HEAT_COLORS(heat)[..., :3]
    mixed = (1 - opacity) * np.asarray(grey)[..., np.newaxis] + opacity * colors
    return _data_uri(Image.fromarray(np.round(mixed).astype(np.uint8)))


def _records(files: Sequence[str], count: int) -> Iterator[bytes]:
    dataset = tf.data.TFRecordDataset(list(files), compression_type="GZIP").take(count)
    # One record at a time, each would cost a call of TensorFlow.
    for batch in dataset.batch(_BATCH).as_numpy_iterator():
        yield from batch


def _parse(record: bytes) -> tf.train.Features:
    return tf.train.Example.FromString(record).features


def _data_uri(image: Image.Image) -> str:
    kind = "png" if max(image.size) <= _LARGEST_PNG else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=_JPEG_QUALITY, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
