"""Measures what the further views of an image are worth: their accuracy, and their cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from components import tfrecords
from components.model_report.inference import BATCH, input_size
from components.model_report.predictions import Predictions
from datasets import features
from models import preprocessing
from models.data.images import at_a_time

_TIMED_BATCHES = 20


def measure(
    model_directory: str,
    files: Sequence[str],
    predictions: Predictions,
    views: int,
    extra_views_below: float | None,
) -> dict[str, Any]:
    """Compares the answers of all views of an image with those of the image alone.

    Args:
      model_directory: directory of a SavedModel that `models.export` wrote.
      files: TFRecord files of the examples of `predictions`, in their order.
      predictions: the model's predictions.
      views: number of views that the model looks at.
      extra_views_below: confidence below which it looks at more than the first one; None: always.

    Returns:
      `views` and `extra_views_below`; `accuracy` and `accuracy_of_one_view`; `looked_again`, the share of the
      images of which the model looked at all views; and `milliseconds` and `milliseconds_of_one_view`, the
      time for an image in batches of `batch` images, from its file to its answer.
    """
    loaded = tf.saved_model.load(model_directory)
    serve = loaded.signatures["serve_image_bytes"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def serve_one_view(image_bytes: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(loaded.logits(preprocessing.scale(loaded.pixels(image_bytes))))

    batch_size = at_a_time(input_size(loaded), BATCH)
    answers: list[np.ndarray] = []
    seconds: list[tuple[float, float]] = []
    for number, records in enumerate(tfrecords.read(files).batch(batch_size)):
        images = tf.io.parse_example(records, {features.IMAGE: tf.io.FixedLenFeature([], tf.string)})
        encoded = images[features.IMAGE]
        if number == 0:
            serve_one_view(encoded)
            serve(image_bytes=encoded)
        start = time.perf_counter()
        answers.append(serve_one_view(encoded).numpy())
        middle = time.perf_counter()
        if len(seconds) < _TIMED_BATCHES:
            serve(image_bytes=encoded)["probabilities"].numpy()
            each = 1000 / len(encoded)
            seconds.append((each * (time.perf_counter() - middle), each * (middle - start)))
    one_view = np.concatenate(answers)
    milliseconds, milliseconds_of_one_view = np.median(seconds, axis=0).tolist()
    return {
        "views": views,
        "extra_views_below": extra_views_below,
        "accuracy": float(np.mean(predictions.predicted == predictions.labels)),
        "accuracy_of_one_view": float(np.mean(one_view.argmax(axis=1) == predictions.labels)),
        "looked_again": float(np.mean(one_view.max(axis=1) < extra_views_below))
        if extra_views_below
        else 1.0,
        "batch": batch_size,
        "milliseconds": milliseconds,
        "milliseconds_of_one_view": milliseconds_of_one_view,
    }
