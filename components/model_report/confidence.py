"""Evaluates what the val split says of a model's confidence, on the images of a report, and words it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import special

from components.evaluator import intervals
from components.model_report.predictions import Predictions
from models import reliability

_POINTS = 20  # of the curve of accuracy against the share of images answered


def evaluate(
    predictions: Predictions, fitted: Mapping[str, Any] | None, abstain_below: float | None
) -> dict[str, Any]:
    """Evaluates the calibration, the abstention and the sets of classes that were fitted on the val split.

    Args:
      predictions: the calibrated predictions for a split that nothing was fitted on.
      fitted: `calibration` of `history.json`, see `models.calibration.Calibration`; None if the Trainer has
        not recorded any.
      abstain_below: the setting `export.abstain_below`.

    Returns:
      The values of `calibration_fit`, `abstention` and `prediction_set` in `metrics.json`, as README.md in
      this folder describes them.
    """
    confidence = predictions.probabilities.max(axis=1)
    right = predictions.predicted == predictions.labels

    def answered_from(threshold: float | None) -> dict[str, Any] | None:
        if threshold is None:
            return None
        answered = confidence >= threshold
        count, correct = int(answered.sum()), int(right[answered].sum())
        return {
            "threshold": threshold,
            "answered": count / len(right),
            "accuracy": correct / count if count else None,
            "interval": intervals.proportion(correct, count),
        }

    ranks = np.ceil(np.linspace(0, len(right), _POINTS + 1)[1:]).astype(int) - 1
    thresholds = np.sort(confidence)[::-1][ranks]
    target, sets = (fitted["abstention"], fitted["prediction_set"]) if fitted else (None, None)
    return {
        "calibration_fit": _compare(predictions, fitted) if fitted else None,
        "abstention": {
            "curve": [answered_from(float(threshold)) for threshold in thresholds],
            "configured": answered_from(abstain_below),
            "target": target and {"val": dict(target), "evaluated": answered_from(target["threshold"])},
        },
        "prediction_set": sets and _cover(predictions, sets),
    }


def _compare(predictions: Predictions, fitted: Mapping[str, Any]) -> dict[str, Any]:
    """Measures the predictions with and without the temperature."""
    labels, probabilities = predictions.labels, predictions.probabilities
    # Dividing logits by a temperature is undone by raising the probabilities to its power.
    uncalibrated = special.softmax(fitted["temperature"] * _log(probabilities), axis=1)
    return {
        **{key: fitted[key] for key in ("method", "temperature", "at_bound", "images")},
        "val": {key: fitted[key] for key in ("before", "after")},
        "evaluated": {
            "before": reliability.measure(labels, uncalibrated),
            "after": reliability.measure(labels, probabilities),
        },
    }


def _cover(predictions: Predictions, fitted: Mapping[str, Any]) -> dict[str, Any]:
    """Counts how often the sets of classes hold the actual class, and how large they are."""
    probabilities = predictions.probabilities
    rows = np.arange(len(probabilities))
    held = probabilities >= fitted["least_probability"]
    held[rows, predictions.predicted] = True
    covered, sizes = held[rows, predictions.labels], held.sum(axis=1)
    return {
        **fitted,
        "covered": float(covered.mean()),
        "interval": intervals.proportion(int(covered.sum()), len(covered)),
        "mean_size": float(sizes.mean()),
        "single": float(np.mean(sizes == 1)),
    }


def _log(probabilities: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):  # a probability of 0 stays 0
        return np.log(probabilities.astype(np.float64))
