"""Draws training images as the network sees them in the first epochs, for `local_runner.py`."""

from __future__ import annotations

import io
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from components.model_report import figures
from datasets import decoding, directory, features, tfrecord
from datasets.directory import Dataset, DatasetError
from models import preprocessing, preview
from models.data.images import Images
from settings.images import Color
from settings.pipeline import PipelineConfig

_IMAGES = 12
_EPOCHS = 4
# Training records to search for images of all classes, multiplied by the number of classes. The train split
# is in random order, so that its beginning holds examples of all but the rarest classes.
_RECORDS_READ_PER_CLASS = 100
_CELL_INCHES = 1.3
_DPI = 144
_ORIGINAL_SIDE = 512  # in pixels; originals with longer sides are shrunk, to save memory
# Images with a longer side than this, in pixels, are shrunk smoothly in the sheet; smaller ones are enlarged
# with sharp pixels.
_ENLARGED = 128


@dataclass(frozen=True)
class _Example:
    encoded: bytes
    label: int
    id: str


def write(config: PipelineConfig, dataset: Dataset, file: Path) -> None:
    """Writes a PNG with a row for each of a dozen training images: the original, and epochs 1 to 4.

    Args:
      config: settings of the run; those of images, augmentation and training are used.
      dataset: the dataset directory.
      file: the PNG file.

    Raises:
      DatasetError: an image cannot be decoded, or a record is damaged.
      OSError: the file cannot be written.
    """
    examples = _choose(dataset, _IMAGES)
    originals = [_decode(example, config.model.background) for example in examples]
    size = config.model.input_size(dataset.image_size)
    prepared = preprocessing.decode(
        tf.constant([example.encoded for example in examples]),
        size,
        config.model.resize,
        config.model.background,
    )
    images = Images(prepared.numpy(), np.array([example.label for example in examples]))
    epochs = preview.augment(images, config.trainer_settings(), _EPOCHS)
    names = figures.drawable(dataset.class_names)
    buffer = io.BytesIO()
    figure = draw(originals, epochs, [names[example.label] for example in examples], size)
    figure.savefig(buffer, format="png", dpi=_DPI)
    file.write_bytes(buffer.getvalue())


def draw(
    originals: Sequence[np.ndarray],
    epochs: Sequence[np.ndarray],
    titles: Sequence[str],
    size: tuple[int, int],
) -> Figure:
    """Draws a sheet with a row for each image.

    Args:
      originals: uint8 [any height, any width, 3] each.
      epochs: for each epoch float32 [images, height, width, 3] in [0, 1]; images of an epoch may be smaller
        than `size`, and are then drawn smaller.
      titles: text for each image.
      size: (height, width) of the network's input in pixels.

    Returns:
      The figure.
    """
    rows, columns = len(originals), 1 + len(epochs)
    cell = (_CELL_INCHES * size[1] / max(size), _CELL_INCHES * size[0] / max(size))
    figure = Figure(figsize=(columns * cell[0] + 0.6, rows * cell[1] + 1.0), layout="constrained")
    figure.suptitle("Training images as the network sees them")
    panels = figure.subplots(rows, columns, squeeze=False)
    for row, (original, title) in enumerate(zip(originals, titles, strict=True)):
        _show(panels[row, 0], original, (original.shape[0], original.shape[1]))
        panels[row, 0].set_ylabel(title, rotation=0, ha="right", va="center")
        for column, images in enumerate(epochs, start=1):
            _show(panels[row, column], images[row], size)
    panels[0, 0].set_title("original")
    for column, images in enumerate(epochs, start=1):
        height, width = images.shape[1:3]
        panels[0, column].set_title(f"epoch {column}\n{width}x{height}")
    return figure


def _choose(dataset: Dataset, count: int) -> list[_Example]:
    """Chooses training images, of as many classes as possible, in the order of their classes."""
    classes = len(dataset.class_names)
    per_class = math.ceil(count / classes)
    chosen: list[_Example] = []
    others: list[_Example] = []
    counts: Counter[int] = Counter()
    for example in itertools.islice(_read(dataset), _RECORDS_READ_PER_CLASS * classes):
        if counts[example.label] < per_class:
            counts[example.label] += 1
            chosen.append(example)
        elif len(others) < count:
            others.append(example)
        if len(chosen) == count:
            break
    return sorted((chosen + others)[:count], key=lambda example: example.label)


def _read(dataset: Dataset) -> Iterator[_Example]:
    for shard in directory.find_shards(dataset.path / "train"):
        try:
            for number, record in enumerate(tfrecord.read(shard)):
                yield _parse(record, f"{shard}: record {number}")
        except tfrecord.RecordError as error:
            raise DatasetError(f"{error}. Write the dataset again") from None


def _parse(record: bytes, where: str) -> _Example:
    try:
        values = tf.train.Example.FromString(record).features.feature
        (image,), (label,) = values[features.IMAGE].bytes_list.value, values[features.LABEL].int64_list.value
    except (DecodeError, ValueError):
        raise DatasetError(
            f"{where}: expected a tf.train.Example with one image and one label. Write the dataset again"
        ) from None
    return _Example(image, label, b"".join(values[features.ID].bytes_list.value).decode(errors="replace"))


def _decode(example: _Example, background: Color) -> np.ndarray:
    try:
        image = decoding.decode(example.encoded, background)
    except OSError as error:
        raise DatasetError(f"image {example.id!r} of the train split cannot be decoded: {error}") from None
    image.thumbnail((_ORIGINAL_SIDE, _ORIGINAL_SIDE))
    return np.asarray(image)


def _show(axes: Axes, image: np.ndarray, size: tuple[int, int]) -> None:
    """Shows an image in the middle of an area of `size` (height, width), in pixels of the image."""
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="nearest" if max(size) <= _ENLARGED else "antialiased")
    axes.set_xlim((width - size[1]) / 2 - 0.5, (width + size[1]) / 2 - 0.5)
    axes.set_ylim((height + size[0]) / 2 - 0.5, (height - size[0]) / 2 - 0.5)
    # Shows where an image ends that has white margins.
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor="silver", linewidth=0.8))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
