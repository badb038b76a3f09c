"""From examples to batches: every image is decoded once, kept as uint8, and shuffled and augmented anew
in every epoch."""

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

from models import augmentation, features, preprocessing, schedules
from pipeline.config import AugmentationConfig

UNCHANGED = AugmentationConfig(rotation_degrees=0.0, shift_fraction=0.0, flip=False)

_MEBIBYTE = 2**20
_READ_BATCH = 256  # images decoded at a time
_BATCHES_AHEAD = 2
_MOST_LOADERS = 8  # each of them holds a batch

# Nothing that is mapped here has Python control flow over tensors. AutoGraph would rewrite it all the same,
# with the whole of Transform's layer below it, which takes 10 s.
_as_it_is = tf.autograph.experimental.do_not_convert


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

    @_as_it_is
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


def training_batches(
    data: Images | Features,
    batch_sizes: Sequence[int],
    config: AugmentationConfig,
    seed: int,
    first_epoch: int = 0,
    crops: schedules.Crops | None = None,
) -> tf.data.Dataset:
    """Returns shuffled, augmented batches of one epoch after another, without an end.

    What an epoch holds depends on the seed and on its number alone, so that a training that goes on where
    another one was stopped sees what that one would have seen. Features have been augmented before: each
    epoch takes the next of their views.

    Args:
      data: the split.
      batch_sizes: of all batches of an epoch.
      config: strengths of the augmentation.
      seed: the same seed gives the same epochs.
      first_epoch: to begin with, from 0.
      crops: of the images; None keeps all of each. Features have none.

    Returns:
      (float32 [batch, height, width, 3] in [0, 1] or [batch, width], int64 [batch]). With `crops`, height and
      width are not static.
    """
    orders = _orders(len(data), batch_sizes, seed, first_epoch)
    if isinstance(data, Features):
        return _gather_features(data, orders)
    return _augment(data, orders, config, seed, crops)


def augmented_view(
    images: Images, batch_size: int, config: AugmentationConfig, seed: int, epoch: int
) -> tf.data.Dataset:
    """Returns the images once, in their order, as an epoch would augment them; see `training_batches`."""
    indices = tf.data.Dataset.range(len(images)).batch(batch_size)
    orders = indices.map(lambda index: (tf.constant(epoch, tf.int64), index[0], index))
    return _augment(images, orders, config, seed)


def validation_batches(data: Images | Features, batch_sizes: Sequence[int]) -> tf.data.Dataset:
    """Returns the split in its order, scaled and otherwise unchanged, again and again.

    The shapes are those of `training_batches`.
    """
    orders = (
        _bounds(batch_sizes)
        .repeat()
        .map(lambda start, end: (tf.constant(0, tf.int64), start, tf.range(start, end)))
    )
    if isinstance(data, Features):
        return _gather_features(data, orders)
    return _augment(data, orders, UNCHANGED, seed=0)


def observed(batches: tf.data.Dataset, arrived: Callable[[], None]) -> tf.data.Dataset:
    """Calls a function whenever a batch is handed out, in the thread that has asked for it."""

    def call() -> np.int64:
        arrived()
        return np.int64(0)

    @_as_it_is
    def observe(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.control_dependencies([tf.numpy_function(call, [], tf.int64)]):
            return tuple(tf.identity(tensor) for tensor in batch)

    options = tf.data.Options()
    # Or a thread of tf.data's own would ask, before the network does.
    options.experimental_optimization.inject_prefetch = False
    return batches.map(observe).with_options(options)


def _augment(
    images: Images,
    orders: tf.data.Dataset,
    config: AugmentationConfig,
    seed: int,
    crops: schedules.Crops | None = None,
) -> tf.data.Dataset:
    half = augmentation.half(len(images), seed)
    first_draws = augmentation.first_draws(len(images), seed)

    def rows(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return images.pixels[index], images.labels[index]

    @_as_it_is
    def augment(epoch: tf.Tensor, start: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, labels = tf.numpy_function(rows, [index], (tf.uint8, tf.int64), stateful=False)
        scaled = preprocessing.scale(tf.ensure_shape(pixels, [None, *images.shape]))
        mirrored = augmentation.mirrored(tf.gather(half, index), epoch, config)
        draws = augmentation.draws(tf.gather(first_draws, index), epoch)
        part = None
        if crops is not None:
            part = crops.scale(tf.cast(epoch, tf.float32) + tf.cast(start, tf.float32) / len(images))
        augmented = augmentation.augment(scaled, mirrored, draws, config, part)
        return augmented, tf.ensure_shape(labels, [None])

    return _ahead(orders, augment)


def _gather_features(features: Features, orders: tf.data.Dataset) -> tf.data.Dataset:
    views, count, width = features.values.shape
    # Not NumPy's, which takes three times as long to pick some rows and to make float32 of float16.
    values = tf.constant(features.values.reshape(views * count, width))
    labels = tf.constant(features.labels)

    @_as_it_is
    def gather(epoch: tf.Tensor, _: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_view = tf.gather(values, epoch % views * count + index)
        return tf.cast(of_view, tf.float32), tf.gather(labels, index)

    return _ahead(orders, gather)


def _ahead(orders: tf.data.Dataset, load: Callable[..., tuple[tf.Tensor, tf.Tensor]]) -> tf.data.Dataset:
    """Loads batches on several cores, before they are asked for."""
    options = tf.data.Options()
    # An iterator of a dataset without an end would take seconds to be given up, while a thread thinks about
    # how much of this is best.
    options.autotune.enabled = False
    loaded = orders.map(
        load, num_parallel_calls=min(len(os.sched_getaffinity(0)), _MOST_LOADERS), deterministic=True
    )
    return loaded.prefetch(_BATCHES_AHEAD).with_options(options)


def _orders(count: int, batch_sizes: Sequence[int], seed: int, first_epoch: int) -> tf.data.Dataset:
    """Returns, batch by batch, (epoch, position in the epoch, indices [batch]); each int64."""
    bounds = _bounds(batch_sizes)

    @_as_it_is
    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        own_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        shuffled = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), own_seed)
        return bounds.map(lambda start, end: (epoch, start, shuffled[start:end]))

    return tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(order)


def _bounds(batch_sizes: Sequence[int]) -> tf.data.Dataset:
    """Returns where each batch of an epoch starts and ends."""
    ends = np.cumsum(batch_sizes)
    return tf.data.Dataset.from_tensor_slices((ends - batch_sizes, ends))


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
