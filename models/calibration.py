"""Calibrates the exported model on the val split: a temperature, and which probabilities are high enough.

A network that was trained with label smoothing is too modest, one that was trained for long too sure. A
temperature that divides its logits corrects both, and cannot change which class is the most probable (Guo,
Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import optimize, special

from models import preprocessing, reliability, views
from models.data.images import Images, at_a_time
from settings.export import ExportConfig, fewest_for_sets

_LOG = logging.getLogger(__name__)

# A temperature outside of these makes every answer certain, or all classes of an image equally probable.
LOWEST, HIGHEST = 0.05, 20.0
# A fitted temperature this close to a bound counts as at the bound, as a share of it.
_NEAR = 0.01
# Standard deviation of the logarithm of the temperature before any image is seen, around 0. With it, 20
# images gave a model of configs/quick.yaml a calibration error of 3.3 % on CIFAR-10, and 50 images 2.5 %
# (means of 50 draws); without it 4.7 and 2.9 %. From 500 images on, there was no difference.
_PRIOR = 0.5
# Parts of the val split, each of which is calibrated by a temperature that was fitted on the others.
_PARTS = 5
# The share of right answers for which `abstention` gives a threshold.
ACCURACY = 0.99
# Share of images whose class `prediction_set` holds, where the settings name none.
COVERAGE = 0.95
_BATCH = 64  # images whose logits are computed at a time, or fewer if they are large


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What the exported model does with its logits.

    Attributes:
      temperature: what the logits are divided by, above 0.
      least_probability: lowest probability, from 0 to 1, of a class in `prediction_set` besides the most
        probable one.
      described: how both were found, as JSON-compatible values: `method`, `temperature`, `at_bound` and
        `images`; `before` and `after`, the results of `reliability.measure` on one view of the images of the
        val split; `abstention` and `prediction_set`, from the functions of these names, the latter with
        `served`, whether the exported model has the sets.
    """

    temperature: float = 1.0
    least_probability: float = 0.0
    described: dict[str, Any] = dataclasses.field(default_factory=dict)


def fit(model: keras.Model, images: Images, config: ExportConfig) -> Calibration:
    """Calibrates a network on images that it was not trained on.

    Args:
      model: the trained network, from float32 [batch, height, width, 3] in [0, 1] to logits.
      images: the val split.
      config: whether to calibrate, and the views that the served model averages. The temperature is fitted
        on one view: it is also the right one for the average of several, and for formats that have one.

    Returns:
      The calibration. `after` is measured on images that the temperature was not fitted on: a fifth of the
      split at a time is calibrated by the temperature of the others.
    """
    uncalibrated, labels = logits(model, images), images.labels
    temperature, applied = 1.0, uncalibrated
    if config.calibration == "temperature":
        temperature = fit_temperature(uncalibrated, labels)
        applied = _cross_fitted(uncalibrated, labels)
    before, after = (
        reliability.measure(labels, special.softmax(values, axis=1)) for values in (uncalibrated, applied)
    )
    served = uncalibrated / temperature
    if config.views > 1:
        served = logits(model, images, temperature, config)
    probabilities = special.softmax(served, axis=1)
    at_bound = not LOWEST * (1 + _NEAR) < temperature < HIGHEST * (1 - _NEAR)
    if config.calibration == "none":
        error = before["calibration_error"]
        _LOG.info("not calibrated: calibration error %.4f on %d images", error, len(labels))
    else:
        _LOG.info(
            "calibration: temperature %.4g, %d images, calibration error %.4f before and %.4f after",
            *(temperature, len(labels), before["calibration_error"], after["calibration_error"]),
        )
    if at_bound:
        _LOG.warning(
            "the temperature, %.4g, is at its bound: look at the accuracy on the val split", temperature
        )
    sets = prediction_set(labels, probabilities, config.prediction_set or COVERAGE)
    least_probability = sets["least_probability"] if sets else 0.0
    if config.prediction_set is not None and least_probability == 1:
        _LOG.warning(
            "export.prediction_set=%g: every set has one class, because the most probable class alone is "
            "right for %.4f of the val images; a share above that gives sets of several classes",
            *(config.prediction_set, np.mean(probabilities.argmax(axis=1) == labels)),
        )
    return Calibration(
        temperature,
        least_probability,
        {
            "method": config.calibration,
            "temperature": temperature,
            "at_bound": at_bound,
            "images": len(labels),
            "before": before,
            "after": after,
            "abstention": abstention(labels, probabilities),
            "prediction_set": sets and {**sets, "served": config.prediction_set is not None},
        },
    )


def logits(
    model: keras.Model, images: Images, temperature: float = 1.0, config: ExportConfig | None = None
) -> np.ndarray:
    """Computes logits as the served model does.

    Args:
      model: the network.
      images: images of the network's input size.
      temperature: what the logits are divided by.
      config: the views that are averaged; None looks at the image alone.

    Returns:
      float64 [images, classes].
    """

    def calibrated(inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(inputs, training=False), tf.float32) / temperature

    @tf.function(input_signature=[tf.TensorSpec([None, *images.shape], tf.uint8)], autograph=False)
    def evaluate(pixels: tf.Tensor) -> tf.Tensor:
        inputs = preprocessing.scale(pixels)
        first = calibrated(inputs)
        if config is None:
            return first
        return views.average(calibrated, inputs, first, config.views, config.extra_views_below)

    batch = at_a_time(images.shape[:2], _BATCH)
    starts = range(0, len(images), batch)
    values = [evaluate(tf.constant(images.pixels[start : start + batch])).numpy() for start in starts]
    return np.concatenate(values).astype(np.float64)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Finds the most probable temperature: that with the lowest negative log-likelihood, if images are many.

    Few images move it less far from 1, by a normal distribution of its logarithm that is assumed beforehand.
    Without that, the best temperature of images that are all answered correctly would be 0.

    Args:
      logits: float [images, classes], of at least one image.
      labels: int64 [images].

    Returns:
      The temperature, from `LOWEST` to `HIGHEST`.
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = special.log_softmax(logits / math.exp(log_temperature), axis=1)
        return 0.5 * (log_temperature / _PRIOR) ** 2 - float(scaled[rows, labels].sum())

    found = optimize.minimize_scalar(loss, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded")
    return math.exp(found.x)


def _cross_fitted(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns logits, each divided by a temperature that was fitted without its part of the images."""
    part = np.random.default_rng(0).permutation(len(labels)) % _PARTS
    calibrated = logits.copy()
    for number in np.unique(part):
        own, others = part == number, part != number
        if others.any():
            calibrated[own] /= fit_temperature(logits[others], labels[others])
    return calibrated


def abstention(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Finds the lowest confidence from which on answers are right often enough.

    Args:
      labels: int64 [images].
      probabilities: float [images, classes].

    Returns:
      `accuracy`, `ACCURACY`; `threshold`, the lowest confidence such that this share of the images that reach
      it is answered correctly, None if there is none; `answered`, the share of the images that reach it; and
      `images`, their number.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = np.cumsum((probabilities.argmax(axis=1) == labels)[order])
    counts = np.arange(1, len(labels) + 1)
    # Images of the same confidence are answered together.
    is_last = np.append(confidence[order][1:] < confidence[order][:-1], True)
    enough = np.flatnonzero(is_last & (right >= ACCURACY * counts))
    if not len(enough):
        return {"accuracy": ACCURACY, "threshold": None, "answered": 0.0, "images": 0}
    last = int(enough[-1])
    return {
        "accuracy": ACCURACY,
        "threshold": float(confidence[order][last]),
        "answered": float((last + 1) / len(labels)),
        "images": last + 1,
    }


def prediction_set(labels: np.ndarray, probabilities: np.ndarray, coverage: float) -> dict[str, Any] | None:
    """Finds how probable a class has to be to belong to the set of possible answers.

    The most probable class always belongs to it. This is split conformal prediction, with the probability of
    the label as the score, or 1 where the label is the most probable class (Sadinle, Lei, Wasserman: Least
    Ambiguous Set-Valued Classifiers with Bounded Error Levels, JASA 2019).

    Args:
      labels: int64 [images].
      probabilities: float [images, classes].
      coverage: share of new images, between 0 and 1, whose class the set has to hold at least.

    Returns:
      `coverage`, and `least_probability` of a class in the set besides the most probable one: 1 if that one
      is right often enough alone. None if there are fewer than `fewest_for_sets`.
    """
    if len(labels) < fewest_for_sets(coverage):
        return None
    rows = np.arange(len(labels))
    score = np.where(probabilities.argmax(axis=1) == labels, 1.0, probabilities[rows, labels])
    position = math.floor((1 - coverage) * (len(labels) + 1) + 1e-9) - 1
    return {"coverage": coverage, "least_probability": float(np.sort(score)[position])}
