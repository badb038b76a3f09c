"""Gets predictions from an exported model, and the pixels on which they depend."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from components import tfrecords
from components.model_report import predictions
from components.model_report.predictions import Predictions
from datasets import features
from models.data.images import at_a_time

BATCH = 64  # images that are predicted at a time, or fewer if they are large
# Hexadecimal digits: enough that no two of a billion images get the same digest by chance.
_DIGEST_LENGTH = 20


def predict(model_directory: str, files: Sequence[str]) -> Predictions:
    """Predicts every example of some files with the signature `serving_default` of a SavedModel.

    Args:
      model_directory: directory of the SavedModel.
      files: TFRecord files of labelled tf.train.Examples.

    Returns:
      The predictions, in the order of the files and their records. An example without an `id` is
      identified by a digest of its image, which does not depend on the order of the records. Repeated ids
      are numbered: `frog`, `frog (2)`.
    """
    # Keep a reference to the loaded object: the signature does not keep the model's variables alive.
    loaded = tf.saved_model.load(model_directory)
    signature = loaded.signatures["serving_default"]
    spec = {
        features.IMAGE: tf.io.FixedLenFeature([], tf.string),
        features.LABEL: tf.io.FixedLenFeature([], tf.int64),
        features.ID: tf.io.FixedLenFeature([], tf.string, default_value=""),
    }
    ids: list[str] = []
    labels, probabilities = [], []
    batch_size = at_a_time(input_size(loaded), BATCH)
    for records in tfrecords.read(files).batch(batch_size).prefetch(1):
        parsed = {name: tensor.numpy() for name, tensor in tf.io.parse_example(records, spec).items()}
        ids += map(_identify, parsed[features.ID], parsed[features.IMAGE])
        labels.append(parsed[features.LABEL])
        probabilities.append(signature(examples=records)["probabilities"].numpy())
    return Predictions(predictions.number_repeats(ids), np.concatenate(labels), np.concatenate(probabilities))


def explain(model_directory: str, encoded: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Computes which pixels contribute most to the logit of the predicted class.

    Args:
      model_directory: directory of a SavedModel that `models.export` wrote.
      encoded: PNG or JPEG images.

    Returns:
      (the images as the network sees them, uint8 [images, height, width, 3]; heat, float32 [images, height,
      width] in [0, 1]). See `models.attribution`.
    """
    loaded = tf.saved_model.load(model_directory)
    signature = loaded.signatures["explain_image_bytes"]
    batch_size = at_a_time(input_size(loaded), BATCH)
    answers = [
        signature(image_bytes=tf.constant(list(encoded[start : start + batch_size])))
        for start in range(0, len(encoded), batch_size)
    ]
    images, heat = (np.concatenate([answer[name] for answer in answers]) for name in ("image", "heat"))
    return images, heat


def input_size(loaded: Any) -> tuple[int, int]:
    """Returns the (height, width) in pixels of the images that the network of an exported model takes."""
    (images,), _ = loaded.logits.concrete_functions[0].structured_input_signature
    return images.shape[1], images.shape[2]


def _identify(example_id: bytes, image: bytes) -> str:
    if example_id:
        return example_id.decode(errors="replace")
    return hashlib.sha256(image).hexdigest()[:_DIGEST_LENGTH]
