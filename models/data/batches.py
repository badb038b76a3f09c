"""From examples to batches: every image is decoded once, kept as uint8, and shuffled and augmented anew
in every epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from models import preprocessing
from models.data import augmentation
from models.data.crops import Crops
from models.data.images import Features, Images, as_it_is
from settings.training import AugmentationConfig

_BATCHES_AHEAD = 2
_MOST_LOADERS = 8  # each of them holds a batch


def training_batches(
    data: Images | Features,
    batch_sizes: Sequence[int],
    config: AugmentationConfig,
    seed: int,
    first_epoch: int = 0,
    crops: Crops | None = None,
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
    return _augment(data, orders, AugmentationConfig.none(), seed=0)


def observed(batches: tf.data.Dataset, arrived: Callable[[], None]) -> tf.data.Dataset:
    """Calls a function whenever a batch is handed out, in the thread that has asked for it."""

    def call() -> np.int64:
        arrived()
        return np.int64(0)

    @as_it_is
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
    crops: Crops | None = None,
) -> tf.data.Dataset:
    half = augmentation.half(len(images), seed)
    first_draws = augmentation.first_draws(len(images), seed)

    def rows(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return images.pixels[index], images.labels[index]

    @as_it_is
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

    @as_it_is
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

    @as_it_is
    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        own_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        shuffled = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), own_seed)
        return bounds.map(lambda start, end: (epoch, start, shuffled[start:end]))

    return tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(order)


def _bounds(batch_sizes: Sequence[int]) -> tf.data.Dataset:
    """Returns where each batch of an epoch starts and ends."""
    ends = np.cumsum(batch_sizes)
    return tf.data.Dataset.from_tensor_slices((ends - batch_sizes, ends))
