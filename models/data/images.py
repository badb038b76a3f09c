"""The decoded images of a split: every image is decoded once and kept as uint8."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.tfxio import dataset_options

from datasets import features
from models import preprocessing

_MEBIBYTE = 2**20
_READ_BATCH = 256  # images decoded at a time

# Nothing that is mapped here has Python control flow over tensors. AutoGraph would rewrite it all the same,
# with the whole of Transform's layer below it, which takes 10 s.
as_it_is = tf.autograph.experimental.do_not_convert


@dataclasses.dataclass(frozen=True)
class Images:
    """The decoded images of a split, in memory or in a temporary file.

    Attributes:
      pixels: uint8 [count, height, width, 3]; a NumPy array or memory map.
      labels: int64 [count].
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of each image."""
        height, width, channels = self.pixels.shape[1:]
        return height, width, channels

    def checksum(self) -> int:
        """Returns a number that is another one for other images, labels or order."""
        return zlib.crc32(
            np.ascontiguousarray(self.labels).data, zlib.crc32(np.ascontiguousarray(self.pixels).data)
        )


@dataclasses.dataclass(frozen=True)
class Features:
    """What a frozen network makes of the images of a split, for the training of its head.

    Attributes:
      values: float16 [views, count, width]: of several augmented views of each image, or of one.
      labels: int64 [count].
    """

    values: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def read(
    file_patterns: Sequence[str],
    tf_dataset_factory: Callable[..., tf.data.Dataset],
    schema: Any,
    transform: tft.TFTransformOutput,
    *,
    cache_mebibytes: int,
    limit: int | None = None,
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Images:
    """Reads a split's raw examples and applies the transform graph to each of them, once.

    Args:
      file_patterns: of the raw examples.
      tf_dataset_factory: TFX's `data_accessor.tf_dataset_factory`.
      schema: of the raw examples.
      transform: the output of Transform.
      cache_mebibytes: decoded images up to this size are kept in memory, more of them in a file.
      limit: read this many images, chosen at random; None reads all.
      seed: of that choice.
      part: (index, count): read this part of so many, of about the same size, which together are the split:
        as many whole files for each, and every `count`-th example of the files that are left.

    Returns:
      The decoded images.

    Raises:
      ValueError: there are no examples.
    """
    options = dataset_options.TensorFlowDatasetOptions(batch_size=_READ_BATCH, num_epochs=1, shuffle=False)

    def examples(files: Sequence[str]) -> tf.data.Dataset:
        return tf_dataset_factory(list(files), options, schema).map(
            lambda batch: {name: batch[name] for name in (features.IMAGE, features.LABEL)}
        )

    index, parts = part
    raw = examples(file_patterns) if parts == 1 else _part(examples, file_patterns, index, parts)
    count = sum(len(batch) for batch in raw.map(lambda batch: batch[features.LABEL]).as_numpy_iterator())
    if not count:
        raise ValueError(
            f"there are no examples in {', '.join(file_patterns)}: every split needs at least one"
            if parts == 1
            else f"there are no examples for worker {index + 1} of {parts} in {', '.join(file_patterns)}: "
            "every split needs at least as many as there are workers"
        )
    if limit is not None and limit < count:
        chosen = np.zeros(count, bool)
        chosen[np.random.default_rng(seed).choice(count, limit, replace=False)] = True
        marks = tf.constant(chosen)
        raw = _select(raw, lambda position: marks[position])
        count = limit
    layer = transform.transform_features_layer()

    @as_it_is
    def decode(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        transformed = layer(batch)
        return preprocessing.to_uint8(transformed[features.IMAGE]), transformed[features.LABEL]

    return collect(raw.map(decode, num_parallel_calls=tf.data.AUTOTUNE), count, cache_mebibytes)


def collect(batches: tf.data.Dataset, count: int, cache_mebibytes: int) -> Images:
    """Runs through a dataset once and keeps its images.

    A plain array and not `tf.data`'s cache, because any image of it can be had at once: every epoch is
    shuffled over the whole split without a buffer, and trials with different batch sizes share it.

    Args:
      batches: (uint8 [batch, height, width, 3], int64 [batch]) with static height and width.
      count: number of images in all batches together.
      cache_mebibytes: most memory to take; larger ones go to a temporary file, which is gone when the
        returned object or the process is.

    Returns:
      The images, in the dataset's order.

    Raises:
      ValueError: there are no images, or not `count` of them.
      OSError: there is no room for the temporary file.
    """
    if not count:
        raise ValueError("there are no images: every split needs at least one")
    shape = (count, *batches.element_spec[0].shape[1:])
    pixels: np.ndarray
    size = math.prod(shape)
    if size <= cache_mebibytes * _MEBIBYTE:
        pixels = np.empty(shape, np.uint8)
    else:
        # Without a name in the file system, so that nothing is left behind whatever happens.
        with tempfile.TemporaryFile() as file:
            _reserve(file.fileno(), size)
            pixels = np.memmap(file, np.uint8, mode="w+", shape=shape)
    labels = np.empty(count, np.int64)
    start = 0
    for batch_pixels, batch_labels in batches.as_numpy_iterator():
        end = start + len(batch_labels)
        if end > count:
            raise ValueError(f"expected {count} images, found more")
        pixels[start:end], labels[start:end] = batch_pixels, batch_labels
        start = end
    if start < count:
        raise ValueError(f"expected {count} images, found {start}")
    return Images(pixels, labels)


def _reserve(file: int, size: int) -> None:
    """Takes the room of a file on disk: a map into one that grows into a full disk kills the process."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        raise OSError(
            error.errno,
            f"no room for {size:,} bytes of decoded images in {tempfile.gettempdir()} ({error.strerror}). "
            "Set TMPDIR to a folder with more, or keep them in memory with a larger trainer.cache_mebibytes",
        ) from error


def _part(
    examples: Callable[[Sequence[str]], tf.data.Dataset],
    file_patterns: Sequence[str],
    index: int,
    parts: int,
) -> tf.data.Dataset:
    """Returns one part of a split's raw examples, of which no other part has any."""
    files = sorted(file for pattern in file_patterns for file in tf.io.gfile.glob(pattern))
    whole = len(files) // parts * parts
    own, shared = files[index:whole:parts], files[whole:]
    datasets = [examples(own)] if own else []
    if shared:
        datasets.append(_select(examples(shared), lambda position: position % parts == index))
    if not datasets:
        raise ValueError(f"there are no files in {', '.join(file_patterns)}")
    return functools.reduce(lambda first, second: first.concatenate(second), datasets)


def _select(batches: tf.data.Dataset, chosen: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
    """Keeps the examples whose position, counted from 0, is chosen; in batches again."""
    return (
        batches.unbatch()
        .enumerate()
        .filter(lambda position, _: chosen(position))
        .map(lambda _, example: example)
        .batch(_READ_BATCH)
    )
