"""Measures how well a model does on corrupted images of the test split."""

from __future__ import annotations

import io
import json
import logging
import posixpath
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tfx.dsl.io import fileio

from components import tfrecords
from components.evaluator import intervals
from components.model_report.inference import input_size
from datasets import features
from models import corruptions, durations, reliability
from models.data.images import at_a_time

_LOG = logging.getLogger(__name__)
# Files in the Evaluator's output artifact `evaluation`.
_FIGURES, _EXAMPLE = "corruptions.json", "corruption_example.png"
_BATCH = 256  # images that are corrupted at a time, or fewer if they are large
_SEED = 0  # of the choice of the images


def measure(model_directory: str, files: Sequence[str], count: int) -> tuple[dict[str, Any], np.ndarray]:
    """Measures a model on images of a split that are corrupted in every way and strength.

    The images are corrupted at the size of the network's input.

    Args:
      model_directory: directory of a SavedModel that `models.export` wrote.
      files: TFRecord files of labelled tf.train.Examples.
      count: number of images, at least 1; all of the split if it has fewer. See `choose`.

    Returns:
      (the value of the key `corruptions` of the report's `metrics.json`, which its README.md describes; and
      the image of its `example` as the network sees it, uint8 [height, width, 3]).
    """
    pace = durations.Pace()
    # Keep a reference to the loaded object: the signature does not keep the model's variables alive.
    loaded = tf.saved_model.load(model_directory)
    signature = loaded.signatures["serve_images"]
    batch_size = at_a_time(input_size(loaded), _BATCH)
    labels = _read_labels(files)
    chosen = choose(labels, count)

    def predict(images: np.ndarray) -> np.ndarray:
        return signature(images=tf.constant(images))["probabilities"].numpy()

    clean, corrupted, done = [], [], 0
    for encoded in _read_images(files, chosen, len(labels)).batch(batch_size).prefetch(1):
        images = loaded.pixels(encoded).numpy()
        clean.append(predict(images))
        corrupted.append(
            np.stack([predict(corruptions.corrupt(images, *cell)) for cell in corruptions.CELLS])
        )
        done += len(images)
        if pace.is_due():
            left = durations.describe_left((len(chosen) - done) * pace.elapsed / done)
            _LOG.info("corrupted %s of %s images, %s left", f"{done:,}", f"{len(chosen):,}", left)
    measured = summarize(labels[chosen], np.concatenate(clean), np.concatenate(corrupted, axis=1))
    _LOG.info("measured %d corruptions of %s images", len(corruptions.CELLS), f"{len(chosen):,}")
    typical = chosen[[measured["example"].pop("index")]]
    (example,) = loaded.pixels(next(iter(_read_images(files, typical, len(labels)).batch(1)))).numpy()
    return {"available": len(labels), **measured}, example


def choose(labels: np.ndarray, count: int) -> np.ndarray:
    """Chooses images at random, as many of each class as there are, or as the other classes have.

    Args:
      labels: int64 [examples].
      count: number of images to choose.

    Returns:
      Their indices, int64 [min(count, examples)], in ascending order.
    """
    order = np.random.default_rng(_SEED).permutation(len(labels))
    rank = np.empty(len(labels), np.int64)  # of each image among those of its class
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    return np.sort(order[np.argsort(rank[order], kind="stable")][:count])


def summarize(labels: np.ndarray, clean: np.ndarray, corrupted: np.ndarray) -> dict[str, Any]:
    """Computes the figures of `measure` from predictions.

    Args:
      labels: int64 [examples].
      clean: probabilities without corruption, float32 [examples, classes].
      corrupted: probabilities in the order of `corruptions.CELLS`, float32 [corruptions, examples, classes].

    Returns:
      The result of `measure` without `available`, and under the key `index` of `example` which image that is:
      the one whose number of right answers is closest to the mean.
    """
    predicted, cells = corrupted.argmax(axis=2), len(corruptions.CELLS)
    right = (predicted == labels).sum(axis=0)  # of the corruptions of each image
    # An image is resampled with all of its corruptions, since they are not independent of each other.
    resampled = intervals.resample(np.bincount(right, minlength=cells + 1))
    typical = int(np.abs(right - right.mean()).argmin())
    means = resampled @ np.arange(cells + 1) / (cells * len(labels))
    return {
        "images": len(labels),
        "accuracy": float(right.mean() / cells),
        "intervals": {"accuracy": intervals.interval(means)},
        "clean": _measure(labels, clean),
        "measured": [
            {
                "name": name,
                "strength": strength,
                "description": corruptions.describe(name, strength),
                **_measure(labels, probabilities),
            }
            for (name, strength), probabilities in zip(corruptions.CELLS, corrupted, strict=True)
        ],
        "example": {
            "index": typical,
            "label": int(labels[typical]),
            "predicted": predicted[:, typical].tolist(),
        },
    }


def lowest(measured: dict[str, Any]) -> tuple[str, float]:
    """Returns the corruption with the lowest mean accuracy over its strengths, and that accuracy.

    Args:
      measured: the result of `measure`.
    """
    accuracies = corruptions.by_name([row["accuracy"] for row in measured["measured"]])
    means = {name: statistics.fmean(values) for name, values in accuracies.items()}
    return min(means.items(), key=lambda item: item[1])


def _measure(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    calibration = reliability.measure(labels, probabilities)
    right = int(np.sum(probabilities.argmax(axis=1) == labels))
    return {
        "accuracy": right / len(labels),
        "confidence": float(probabilities.max(axis=1).mean()),
        "calibration_error": calibration["calibration_error"],
        "intervals": {
            "accuracy": intervals.proportion(right, len(labels)),
            "calibration_error": calibration["intervals"]["calibration_error"],
        },
    }


def write(directory: str, measured: dict[str, Any], example: np.ndarray) -> None:
    """Writes the result of `measure` into the Evaluator's output artifact `evaluation`.

    Args:
      directory: path or URI of the artifact.
      measured: the figures.
      example: the image of the example, uint8 [height, width, 3].
    """
    png = io.BytesIO()
    Image.fromarray(example).save(png, "PNG")
    with fileio.open(posixpath.join(directory, _EXAMPLE), "wb") as file:
        file.write(png.getvalue())
    with fileio.open(posixpath.join(directory, _FIGURES), "w") as file:
        file.write(json.dumps(measured, indent=2))


def read(directory: str) -> tuple[dict[str, Any], np.ndarray] | None:
    """Reads what `write` wrote.

    Args:
      directory: path or URI of the artifact `evaluation`.

    Returns:
      The result of `measure`; None if the model was not measured on corrupted images.
    """
    if not fileio.exists(posixpath.join(directory, _FIGURES)):
        return None
    with fileio.open(posixpath.join(directory, _FIGURES)) as file:
        measured = json.load(file)
    with fileio.open(posixpath.join(directory, _EXAMPLE), "rb") as file:
        return measured, np.asarray(Image.open(io.BytesIO(file.read())))


def _read_labels(files: Sequence[str]) -> np.ndarray:
    spec = {features.LABEL: tf.io.FixedLenFeature([], tf.int64)}
    batches = tfrecords.read(files).batch(_BATCH).map(lambda batch: tf.io.parse_example(batch, spec))
    return np.concatenate([batch[features.LABEL] for batch in batches.as_numpy_iterator()])


def _read_images(files: Sequence[str], chosen: np.ndarray, total: int) -> tf.data.Dataset:
    """Returns a dataset of the encoded images with the chosen indices, scalar strings, in their order."""
    mask = np.zeros(total, bool)
    mask[chosen] = True
    is_chosen, spec = tf.constant(mask), {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}
    return (
        tfrecords.read(files)
        .enumerate()
        .filter(lambda index, _: is_chosen[index])
        .map(lambda _, record: tf.io.parse_single_example(record, spec)[features.IMAGE])
    )
