"""Reads images from TFRecords and turns them into data URIs that are small enough for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import tensorflow as tf
from PIL import Image

from components import tfrecords
from datasets import features
from datasets.decoding import WHITE, decode

# Longest side, in pixels, of the images that become PNG, which is lossless; larger ones become JPEG.
_LARGEST_PNG = 64
_JPEG_QUALITY = 85
_BATCH = 256
# A perceptually uniform colour map, whose hues stand out from the grey of the image.
_HEAT_COLORS = matplotlib.colormaps["inferno"]
# Opacity where the heat is 1: below 1, so that the image stays visible under the hottest pixels.
_HEAT_OPACITY = 0.75


class Stored(NamedTuple):
    """An image as it is stored in a record.

    Attributes:
      encoded: PNG or JPEG.
      id: id of the example; empty if it has none, or one that is not UTF-8.
    """

    encoded: bytes
    id: str


def read(files: Sequence[str], indices: Iterable[int]) -> dict[int, Stored]:
    """Reads the images at some positions of a split; records at other positions are not parsed.

    Args:
      files: TFRecord files of tf.train.Examples with an `image`, and perhaps an `id`.
      indices: positions of the records, from 0, counted across the files in their order.

    Returns:
      The image of each index.

    Raises:
      IndexError: an index is not smaller than the number of records.
    """
    wanted = set(indices)
    images = {
        index: _stored(_parse(record))
        for index, record in enumerate(_records(files, max(wanted, default=-1) + 1))
        if index in wanted
    }
    if missing := wanted - images.keys():
        raise IndexError(f"record {min(missing)} does not exist, there are fewer in {', '.join(files)}")
    return images


def sample(files: Sequence[str], num_classes: int, per_class: int, limit: int) -> list[list[bytes]]:
    """Reads the first images of each class.

    Args:
      files: TFRecord files of tf.train.Examples with `image` and `label`.
      num_classes: number of classes; labels lie between 0 and `num_classes` - 1.
      per_class: maximum number of images per class.
      limit: maximum number of records to read.

    Returns:
      For each class, up to `per_class` encoded images, in the order of the records.
    """
    images: list[list[bytes]] = [[] for _ in range(num_classes)]
    incomplete_classes = num_classes
    for record in _records(files, limit):
        example = _parse(record)
        class_images = images[example.feature[features.LABEL].int64_list.value[0]]
        if len(class_images) < per_class:
            class_images.append(example.feature[features.IMAGE].bytes_list.value[0])
            incomplete_classes -= len(class_images) == per_class
        if not incomplete_classes:
            break
    return images


def thumbnail(encoded: bytes, side: int = 128, background: tuple[int, int, int] = WHITE) -> str:
    """Shrinks an image for the page; its proportions stay the same.

    Args:
      encoded: PNG or JPEG image.
      side: maximum length of a side, in pixels; smaller images keep their size.
      background: red, green and blue behind transparent pixels, each from 0 to 255.

    Returns:
      A data URI that holds a PNG or JPEG.

    Raises:
      OSError: Pillow cannot decode the image.
    """
    image = decode(encoded, background)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _data_uri(image)


def heat_overlay(pixels: np.ndarray, heat: np.ndarray) -> str:
    """Lays a heat map over an image in grey; the hotter a pixel, the more opaque its colour.

    Args:
      pixels: the image as the network sees it, uint8 [height, width, 3].
      heat: float [height, width] in [0, 1].

    Returns:
      A data URI that holds a PNG or JPEG.
    """
    grey = Image.fromarray(pixels).convert("L")
    opacity = _HEAT_OPACITY * heat[..., np.newaxis]
    colors = 255 * _HEAT_COLORS(heat)[..., :3]
    mixed = (1 - opacity) * np.asarray(grey)[..., np.newaxis] + opacity * colors
    return _data_uri(Image.fromarray(np.round(mixed).astype(np.uint8)))


def _records(files: Sequence[str], count: int) -> Iterator[bytes]:
    dataset = tfrecords.read(files).take(count)
    # Batches save calls of TensorFlow: without them, every record would need one.
    for batch in dataset.batch(_BATCH).as_numpy_iterator():
        yield from batch


def _stored(example: tf.train.Features) -> Stored:
    example_id = b"".join(example.feature[features.ID].bytes_list.value[:1])
    try:
        name = example_id.decode()
    except UnicodeDecodeError:
        name = ""
    return Stored(example.feature[features.IMAGE].bytes_list.value[0], name)


def _parse(record: bytes) -> tf.train.Features:
    return tf.train.Example.FromString(record).features


def _data_uri(image: Image.Image) -> str:
    kind = "png" if max(image.size) <= _LARGEST_PNG else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=_JPEG_QUALITY, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
