"""The decoded images of a split: every image is decoded once and kept as uint8."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.tfxio import dataset_options

from datasets import features
from models import preprocessing

_MEBIBYTE = 2**20
_READ_BATCH = 256  # images decoded at a time, or fewer if they are large
_PIXELS_AT_A_TIME = 2**21

# The functions that datasets map have no Python control flow over tensors for AutoGraph to convert. AutoGraph
# would process them all the same, including Transform's layer, which takes 10 s.
without_autograph = tf.autograph.experimental.do_not_convert


class NoRoomError(OSError):
    """A disk that is too full for decoded images; the message says where they were to be, and what to do."""


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

    def share(self, folder: str, split: str) -> Images:
        """Writes the images to files, which other processes read with `shared`.

        Args:
          folder: an existing folder in TMPDIR.
          split: name of the split; files of other splits may be in the same folder.

        Returns:
          The images in the files, which need no memory of their own.

        Raises:
          NoRoomError: there is not enough disk space.
        """
        with Path(folder, f"{split}.pixels.npy").open("wb") as file:
            _reserve(file.fileno(), self.pixels.nbytes, "set tuner.parallel=1, which writes no file")
            np.save(file, self.pixels)
        np.save(f"{folder}/{split}.labels.npy", self.labels)
        return Images.shared(folder, split)

    @staticmethod
    def shared(folder: str, split: str) -> Images:
        """Returns the images that `share` wrote; the processes that read them share the memory."""
        return Images(
            np.load(f"{folder}/{split}.pixels.npy", mmap_mode="r"), np.load(f"{folder}/{split}.labels.npy")
        )

    def checksum(self) -> int:
        """Returns a checksum (CRC-32) of the images, their labels and their order."""
        return zlib.crc32(
            np.ascontiguousarray(self.labels).data, zlib.crc32(np.ascontiguousarray(self.pixels).data)
        )


@dataclasses.dataclass(frozen=True)
class Features:
    """The features that a frozen network computes from the images of a split, to train a head on.

    Attributes:
      values: float16 [views, count, width]: the features of one or several augmented views of each image.
      labels: int64 [count].
    """

    values: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def at_a_time(size: Sequence[int], most: int) -> int:
    """Returns how many images to process at a time, so that large ones need no more memory than small ones.

    Args:
      size: (height, width) of the images, in pixels.
      most: the number for small images.

    Returns:
      At most `most`, and at least 1; otherwise the number of images that have about two million pixels.
    """
    return min(most, max(1, _PIXELS_AT_A_TIME // math.prod(size)))


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
    """Reads a split's raw examples and applies the transform graph once to each of them.

    Args:
      file_patterns: patterns of the files with the raw examples.
      tf_dataset_factory: TFX's `data_accessor.tf_dataset_factory`.
      schema: schema of the raw examples.
      transform: the output of Transform.
      cache_mebibytes: maximum size of decoded images in memory; larger splits go to a temporary file.
      limit: number of images to read, chosen at random; None reads all.
      seed: seed of the random choice.
      part: (index, count): read only the part with this index, from 0, of `count` disjoint parts that
        together are the split. Every part has the same number of whole files, and every `count`-th example of
        the remaining files, so that the parts are of about the same size.

    Returns:
      The decoded images.

    Raises:
      ValueError: the split or the part has no examples.
    """
    batch_size = at_a_time(transform.transformed_feature_spec()[features.IMAGE].shape[:2], _READ_BATCH)
    options = dataset_options.TensorFlowDatasetOptions(batch_size=batch_size, num_epochs=1, shuffle=False)

    def examples(files: Sequence[str]) -> tf.data.Dataset:
        return tf_dataset_factory(list(files), options, schema).map(
            lambda batch: {name: batch[name] for name in (features.IMAGE, features.LABEL)}
        )

    index, parts = part
    raw = (
        examples(file_patterns)
        if parts == 1
        else _read_part(examples, file_patterns, index, parts, batch_size)
    )
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
        is_chosen = tf.constant(chosen)
        raw = _select(raw, lambda position: is_chosen[position], batch_size)
        count = limit
    layer = transform.transform_features_layer()

    @without_autograph
    def decode(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        transformed = layer(batch)
        return preprocessing.to_uint8(transformed[features.IMAGE]), transformed[features.LABEL]

    return collect(raw.map(decode, num_parallel_calls=tf.data.AUTOTUNE), count, cache_mebibytes)


def collect(batches: tf.data.Dataset, count: int, cache_mebibytes: int) -> Images:
    """Collects the images of a dataset in an array.

    Unlike `tf.data`'s cache, an array gives access to any image at any time: every epoch is shuffled over the
    whole split without a buffer, and trials with different batch sizes share the array.

    Args:
      batches: a dataset of (uint8 [batch, height, width, 3], int64 [batch]) with static height and width.
      count: number of images in all batches together.
      cache_mebibytes: maximum size of the images in memory; larger splits go to a temporary file, which
        disappears with the returned object or the process.

    Returns:
      The images, in the dataset's order.

    Raises:
      ValueError: the dataset has no images, or not `count` images.
      NoRoomError: there is not enough disk space for the temporary file.
    """
    if not count:
        raise ValueError("there are no images: every split needs at least one")
    shape = (count, *batches.element_spec[0].shape[1:])
    pixels: np.ndarray
    size = math.prod(shape)
    if size <= cache_mebibytes * _MEBIBYTE:
        pixels = np.empty(shape, np.uint8)
    else:
        # The file has no name in the file system, so that it disappears even if the process is killed.
        with tempfile.TemporaryFile() as file:
            _reserve(file.fileno(), size, "raise trainer.cache_mebibytes to keep the images in memory")
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


def _reserve(file: int, size: int, alternative: str) -> None:
    """Reserves disk space for a file in TMPDIR.

    Without this, a write to the memory map after the disk has filled up would kill the process.

    Args:
      file: file descriptor.
      size: bytes to reserve.
      alternative: what to do instead of providing more space, for the error.

    Raises:
      NoRoomError: there is not enough space.
    """
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        raise NoRoomError(
            error.errno,
            f"no room for {size / 1e6:,.0f} MB of decoded images in {folder}, where {free / 1e6:,.0f} MB are "
            f"free ({error.strerror}). Set TMPDIR to a folder on a disk with more space, or {alternative}",
        ) from error


def _read_part(
    examples: Callable[[Sequence[str]], tf.data.Dataset],
    file_patterns: Sequence[str],
    index: int,
    parts: int,
    batch_size: int,
) -> tf.data.Dataset:
    """Reads one of several disjoint parts of a split's raw examples; see `read`."""
    files = sorted(file for pattern in file_patterns for file in tf.io.gfile.glob(pattern))
    shared_from = len(files) // parts * parts
    own, shared = files[index:shared_from:parts], files[shared_from:]
    datasets = [examples(own)] if own else []
    if shared:
        datasets.append(_select(examples(shared), lambda position: position % parts == index, batch_size))
    if not datasets:
        raise ValueError(f"there are no files in {', '.join(file_patterns)}")
    return functools.reduce(lambda first, second: first.concatenate(second), datasets)


def _select(
    batches: tf.data.Dataset, chosen: Callable[[tf.Tensor], tf.Tensor], batch_size: int
) -> tf.data.Dataset:
    """Selects the examples at chosen positions.

    Args:
      batches: a dataset of batches of examples.
      chosen: whether to keep the example at a position, which is counted from 0 over all batches.
      batch_size: examples in each batch of the result.

    Returns:
      A dataset of batches of the selected examples, in their order.
    """
    return (
        batches.unbatch()
        .enumerate()
        .filter(lambda position, _: chosen(position))
        .map(lambda _, example: example)
        .batch(batch_size)
    )
