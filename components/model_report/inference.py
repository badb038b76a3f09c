"""Asking an exported model for its predictions, and where it looked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from components.model_report import attribution
from components.model_report.predictions import Predictions
from datasets import features

_BATCH = 256
# Of integrated gradients: twice as many show the same picture.
_STEPS = 16
# Hexadecimal digits: no two of a billion images share them by chance.
_DIGEST_LENGTH = 20


def predict(model_directory: str, files: Sequence[str]) -> Predictions:
    """Asks a SavedModel's `serving_default` for every example.

    Args:
      model_directory: of the SavedModel.
      files: TFRecord files, gzip-compressed, of labelled tf.train.Examples.

    Returns:
      The predictions, in the order of the files. An example without an `id` gets the digest of its
      image for one, which does not change when the records are written in another order. What comes
      again is numbered: `frog`, `frog (2)`.
    """
    # The signature holds variables of the loaded object only as long as that object lives.
    loaded = tf.saved_model.load(model_directory)
    signature = loaded.signatures["serving_default"]
    spec = {
        features.IMAGE: tf.io.FixedLenFeature([], tf.string),
        features.LABEL: tf.io.FixedLenFeature([], tf.int64),
        features.ID: tf.io.FixedLenFeature([], tf.string, default_value=""),
    }
    ids: list[str] = []
    labels, probabilities = [], []
    for records in tf.data.TFRecordDataset(list(files), compression_type="GZIP").batch(_BATCH).prefetch(1):
        parsed = {name: tensor.numpy() for name, tensor in tf.io.parse_example(records, spec).items()}
        ids += map(_identify, parsed[features.ID], parsed[features.IMAGE])
        labels.append(parsed[features.LABEL])
        probabilities.append(signature(examples=records)["probabilities"].numpy())
    return Predictions(_number_repeats(ids), np.concatenate(labels), np.concatenate(probabilities))


def explain(
    model_directory: str, transform_graph: str, encoded: Sequence[bytes], class_ids: np.ndarray
) -> np.ndarray:
    """Says where the network looked when it named a class.

    Args:
      model_directory: of a SavedModel that `models.export` wrote.
      transform_graph: the output of Transform that the model was trained behind.
      encoded: PNG or JPEG images.
      class_ids: int [images], the class that is asked about.

    Returns:
      Heat, float32 [images, height, width] in [0, 1]; see `attribution.integrated_gradients`.
    """
    loaded = tf.saved_model.load(model_directory)
    transform = tft.TFTransformOutput(transform_graph).transform_features_layer()
    images = transform({features.IMAGE: tf.constant(list(encoded))})[features.IMAGE].numpy()
    return attribution.integrated_gradients(loaded.logits, images, class_ids, steps=_STEPS)


def _identify(given: bytes, image: bytes) -> str:
    if given:
        return given.decode(errors="replace")
    return hashlib.sha256(image).hexdigest()[:_DIGEST_LENGTH]


def _number_repeats(ids: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    numbered = []
    for each in ids:
        seen[each] += 1
        numbered.append(each if seen[each] == 1 else f"{each} ({seen[each]})")
    return numbered
