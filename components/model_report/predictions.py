"""The model's own predictions on a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from models import features

_BATCH = 256


@dataclass(frozen=True)
class Predictions:
    """Labels int64 [examples] and probabilities float32 [examples, classes], in the files' order."""

    labels: np.ndarray
    probabilities: np.ndarray


def predict(model_directory: str, files: Sequence[str]) -> Predictions:
    """Asks a SavedModel's `serving_default` for every example.

    Args:
      model_directory: of the SavedModel.
      files: TFRecord files, gzip-compressed, of labelled tf.train.Examples.

    Returns:
      Labels and probabilities.
    """
    # The signature holds variables of the loaded object only as long as that object lives.
    loaded = tf.saved_model.load(model_directory)
    signature = loaded.signatures["serving_default"]
    label_spec = {features.LABEL: tf.io.FixedLenFeature([], tf.int64)}
    labels, probabilities = [], []
    for records in tf.data.TFRecordDataset(list(files), compression_type="GZIP").batch(_BATCH).prefetch(1):
        labels.append(tf.io.parse_example(records, label_spec)[features.LABEL].numpy())
        probabilities.append(signature(examples=records)["probabilities"].numpy())
    return Predictions(np.concatenate(labels), np.concatenate(probabilities))
