"""Computes the features of a frozen network once, instead of in every epoch."""

from __future__ import annotations

import logging

import keras
import numpy as np
import tensorflow as tf

from models import durations
from models.data.batches import augmented_view
from models.data.images import Features, Images, at_a_time
from models.networks import pretrained
from settings.training import AugmentationConfig

_LOG = logging.getLogger(__name__)

_BATCH = 64  # images whose features are computed at a time, or fewer if they are large


def compute(
    split: str,
    model: keras.Model,
    images: Images,
    augmentation: AugmentationConfig | None = None,
    seed: int = 0,
    views: int = 1,
) -> Features:
    """Computes the input of a frozen network's head.

    Args:
      split: name of the split in log messages.
      model: what `pretrained.build` returned.
      images: images of the network's input size.
      augmentation: how each view is augmented; None leaves the images as they are.
      seed: seed of the augmentation; the same seed gives the same views.
      views: number of augmented views of each image. Without augmentation there is one view.

    Returns:
      The features, float16 [views, images, channels], with the labels of the images.
    """
    augmentation = augmentation or AugmentationConfig.none()
    if augmentation == AugmentationConfig.none():
        views = 1
    body = pretrained.body(model)
    evaluate = tf.function(lambda batch: body(batch, training=False), autograph=False, reduce_retracing=True)
    values = np.empty((views, len(images), body.output_shape[-1]), np.float16)
    batch_size = at_a_time(images.shape[:2], _BATCH)
    pace = durations.Pace()
    for view in range(views):
        end = 0
        for batch, labels in augmented_view(images, batch_size, augmentation, seed, view):
            start, end = end, end + len(labels)
            values[view, start:end] = evaluate(batch).numpy()
            if pace.is_due():
                done, total = view * len(images) + end, views * len(images)
                rate = done / pace.elapsed
                _LOG.info(
                    "features of the %s split: view %d/%d, image %d/%d, %.0f images/s, %s left",
                    split,
                    view + 1,
                    views,
                    end,
                    len(images),
                    rate,
                    durations.describe_left((total - done) / rate),
                )
    return Features(values, images.labels)
