"""Batches of images, which are shuffled and augmented differently in every epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from models import preprocessing
from models.data import augmentation
from models.data.crops import Crops
from models.data.images import Features, Images, without_autograph
from settings.training import AugmentationConfig

_BATCHES_AHEAD = 2
_MAX_LOADERS = 8  # parallel loaders, each of which holds a batch in memory


def training_batches(
    data: Images | Features,
    batch_sizes: Sequence[int],
    config: AugmentationConfig,
    seed: int,
    first_epoch: int = 0,
    crops: Crops | None = None,
) -> tf.data.Dataset:
    """Returns an endless dataset of shuffled and augmented batches, one epoch after another.

    The batches of an epoch depend only on the seed and on the number of the epoch, so that a resumed training
    sees the same batches as an uninterrupted one. Features are not augmented, because they were computed from
    augmented images: each epoch uses the next of their views.

    Args:
      data: the split, as images or as features of them.
      batch_sizes: the size of each batch of an epoch.
      config: strengths of the augmentation.
      seed: the same seed gives the same epochs.
      first_epoch: number of the epoch to begin with, from 0.
      crops: sizes of the crops of images in the course of the training; None does not crop. Features are
        never cropped.

    Returns:
      A dataset of (inputs, labels): float32 [batch, height, width, 3] in [0, 1] or features [batch, width],
      and int64 [batch]. With `crops`, height and width are not static.
    """
    orders = _orders(len(data), batch_sizes, seed, first_epoch)
    if isinstance(data, Features):
        return _gather_features(data, orders)
    return _augment(data, orders, config, seed, crops)


def augmented_view(
    images: Images, batch_size: int, config: AugmentationConfig, seed: int, epoch: int
) -> tf.data.Dataset:
    """Returns all images once, unshuffled, with the augmentation of one epoch of `training_batches`.

    Args:
      images: the split.
      batch_size: images per batch; the last batch may have fewer.
      config: strengths of the augmentation.
      seed: seed of the augmentation.
      epoch: number of the epoch, from 0.

    Returns:
      A dataset of (float32 [batch, height, width, 3] in [0, 1], int64 [batch]).
    """
    indices = tf.data.Dataset.range(len(images)).batch(batch_size)
    orders = indices.map(lambda index: (tf.constant(epoch, tf.int64), index[0], index))
    return _augment(images, orders, config, seed)


def validation_batches(data: Images | Features, batch_sizes: Sequence[int]) -> tf.data.Dataset:
    """Returns an endless dataset of the split's batches, neither shuffled nor augmented.

    Args:
      data: the split, as images or as features of them; of features, the first view is used.
      batch_sizes: the size of each batch of a pass over the split.

    Returns:
      A dataset of (inputs, labels), with the shapes and dtypes of `training_batches`.
    """
    orders = (
        _bounds(batch_sizes)
        .repeat()
        .map(lambda start, end: (tf.constant(0, tf.int64), start, tf.range(start, end)))
    )
    if isinstance(data, Features):
        return _gather_features(data, orders)
    return _augment(data, orders, AugmentationConfig.none(), seed=0)


def observed(batches: tf.data.Dataset, on_batch: Callable[[], None]) -> tf.data.Dataset:
    """Returns the same batches, and calls a function for each of them as the consumer fetches it.

    Args:
      batches: a dataset.
      on_batch: called once per batch, at the time when the consumer of the dataset fetches the batch.

    Returns:
      A dataset with the elements of `batches`.
    """

    def call() -> np.int64:
        on_batch()
        return np.int64(0)

    @without_autograph
    def observe(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.control_dependencies([tf.numpy_function(call, [], tf.int64)]):
            return tuple(tf.identity(tensor) for tensor in batch)

    options = tf.data.Options()
    # Otherwise tf.data adds a thread that fetches batches before the network needs them.
    options.experimental_optimization.inject_prefetch = False
    return batches.map(observe).with_options(options)


def _augment(
    images: Images,
    orders: tf.data.Dataset,
    config: AugmentationConfig,
    seed: int,
    crops: Crops | None = None,
) -> tf.data.Dataset:
    half = augmentation.random_half(len(images), seed)
    first_draws = augmentation.first_draws(len(images), seed)

    def select(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return images.pixels[index], images.labels[index]

    @without_autograph
    def augment(epoch: tf.Tensor, start: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, labels = tf.numpy_function(select, [index], (tf.uint8, tf.int64), stateful=False)
        scaled = preprocessing.scale(tf.ensure_shape(pixels, [None, *images.shape]))
        mirrored = augmentation.is_mirrored(tf.gather(half, index), epoch, config)
        draws = augmentation.epoch_draws(tf.gather(first_draws, index), epoch)
        crop_scale = None
        if crops is not None:
            crop_scale = crops.scale(tf.cast(epoch, tf.float32) + tf.cast(start, tf.float32) / len(images))
        augmented = augmentation.augment(scaled, mirrored, draws, config, crop_scale)
        return augmented, tf.ensure_shape(labels, [None])

    return _load_ahead(orders, augment)


def _gather_features(features: Features, orders: tf.data.Dataset) -> tf.data.Dataset:
    views, count, width = features.values.shape
    # TensorFlow gathers rows and casts float16 to float32 in a third of the time that NumPy takes.
    values = tf.constant(features.values.reshape(views * count, width))
    labels = tf.constant(features.labels)

    @without_autograph
    def gather(epoch: tf.Tensor, _: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        view = tf.gather(values, epoch % views * count + index)
        return tf.cast(view, tf.float32), tf.gather(labels, index)

    return _load_ahead(orders, gather)


def _load_ahead(orders: tf.data.Dataset, load: Callable[..., tuple[tf.Tensor, tf.Tensor]]) -> tf.data.Dataset:
    """Loads batches on several cores before the consumer needs them."""
    options = tf.data.Options()
    # With autotuning, deleting an iterator of an endless dataset takes seconds while a thread searches for
    # the best parallelism and buffer sizes.
    options.autotune.enabled = False
    loaded = orders.map(
        load, num_parallel_calls=min(len(os.sched_getaffinity(0)), _MAX_LOADERS), deterministic=True
    )
    return loaded.prefetch(_BATCHES_AHEAD).with_options(options)


def _orders(count: int, batch_sizes: Sequence[int], seed: int, first_epoch: int) -> tf.data.Dataset:
    """Returns an endless dataset with the shuffled indices of each batch.

    Its elements are (number of the epoch, position of the batch's first image in the epoch, indices of the
    images [batch]), all int64.
    """
    bounds = _bounds(batch_sizes)

    @without_autograph
    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        shuffled = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), epoch_seed)
        return bounds.map(lambda start, end: (epoch, start, shuffled[start:end]))

    return tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(order)


def _bounds(batch_sizes: Sequence[int]) -> tf.data.Dataset:
    """Returns a dataset of (start, end) of each batch of an epoch, with the end excluded; each int64."""
    ends = np.cumsum(batch_sizes)
    return tf.data.Dataset.from_tensor_slices((ends - batch_sizes, ends))
