"""Computes the metrics of a report from labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.evaluator import definitions, intervals
from components.evaluator.definitions import Areas
from components.model_report.predictions import Predictions
from models import reliability

_MOST_CONFUSED = 10  # pairs of classes


def compute(predictions: Predictions, class_names: Sequence[str]) -> dict[str, Any]:
    """Computes the part of `metrics.json` that follows from a model's predictions.

    Macro averages are over the classes that have an example. Confidence intervals are Wilson's for the
    precision and recall of a class, that of `reliability.measure` for the calibration error, and bootstrap
    percentile intervals for all other metrics. A ratio whose
    denominator is 0, such as the precision of a class that is never predicted, is 0. The metrics of a class
    without examples are None.

    Args:
      predictions: predictions for a split with at least one example.
      class_names: names of the classes, in the order of their indices.

    Returns:
      The metrics, as values that JSON can hold, by the keys that README.md in this folder lists.
    """
    labels, probabilities, predicted = predictions.labels, predictions.probabilities, predictions.predicted
    matrix = definitions.confusion_matrix(labels, predicted, len(class_names))
    bins = reliability.calibration_bins(labels, probabilities)
    areas = definitions.areas(labels, probabilities)
    roc_auc, pr_auc = areas["roc"], areas["pr"]
    by_class = _per_class(matrix, class_names, roc_auc, pr_auc)
    measured = reliability.measure(labels, probabilities)
    by_class["intervals"]["calibration_error"] = measured["intervals"]["calibration_error"]
    return {
        "examples": len(labels),
        "accuracy": definitions.accuracy(labels, probabilities),
        "top_k": definitions.top_k(len(class_names)),
        "top_k_accuracy": definitions.top_k_accuracy(labels, probabilities),
        "loss": definitions.loss(labels, probabilities),
        "calibration_error": reliability.calibration_error(bins),
        **{
            f"{statistic}_{kind}": definitions.average(matrix, statistic, kind)
            for kind in definitions.AVERAGES
            for statistic in definitions.STATISTICS
        },
        **{
            f"roc_auc_{average}": value
            for average, value in zip(definitions.AVERAGES, roc_auc.averages, strict=True)
        },
        **{
            f"pr_auc_{average}": value
            for average, value in zip(definitions.AVERAGES, pr_auc.averages, strict=True)
        },
        "confidence_level": intervals.LEVEL,
        **by_class,
        "confusion_matrix": matrix.tolist(),
        "calibration": bins,
        "most_confused": most_confused(matrix, class_names),
    }


def _per_class(
    matrix: np.ndarray, class_names: Sequence[str], roc_auc: Areas, pr_auc: Areas
) -> dict[str, Any]:
    """Returns `classes`, and `intervals` of the metrics that a confusion matrix determines."""
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    measured = definitions.statistics(np.diagonal(matrix), support, predicted)
    bootstrap = _BootstrapStatistics(matrix)
    classes = [
        {
            "name": name,
            "support": int(support[i]),
            "predicted": int(predicted[i]),
            **{key: float(values[i]) if support[i] else None for key, values in measured.items()},
            "roc_auc": roc_auc.by_class[i],
            "pr_auc": pr_auc.by_class[i],
            "intervals": {
                "precision": intervals.proportion(matrix[i, i], predicted[i]) if support[i] else None,
                "recall": intervals.proportion(matrix[i, i], support[i]),
                "f1": intervals.interval(bootstrap.f1[:, i]) if support[i] else None,
            },
        }
        for i, name in enumerate(class_names)
    ]
    return {
        "intervals": {
            "accuracy": intervals.interval(bootstrap.accuracy),
            **{f"{key}_macro": intervals.interval(values) for key, values in bootstrap.macro.items()},
        },
        "classes": classes,
    }


class _BootstrapStatistics:
    """Metrics of bootstrap samples of a confusion matrix.

    Attributes:
      accuracy: float [samples].
      f1: F1 of each class, float [samples, classes]; NaN where a sample has no example of the class.
      macro: `precision`, `recall` and `f1`, each float [samples]: means over the classes that have an
        example in the sample.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        actual, predicted = np.nonzero(matrix)
        counts = intervals.resample(matrix[actual, predicted])
        samples, number = len(counts), len(matrix)
        right, support, predictions = (np.zeros((samples, number)) for _ in range(3))
        diagonal = actual == predicted
        right[:, actual[diagonal]] = counts[:, diagonal]
        for cell in range(len(actual)):
            support[:, actual[cell]] += counts[:, cell]
            predictions[:, predicted[cell]] += counts[:, cell]
        self.accuracy = right.sum(axis=1) / max(1, matrix.sum())
        measured = definitions.statistics(right, support, predictions)
        self.f1 = np.where(support > 0, measured["f1"], np.nan)
        self.macro = {key: values.mean(axis=1, where=support > 0) for key, values in measured.items()}


def most_confused(matrix: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Lists the pairs of classes that are confused most often.

    Args:
      matrix: int [actual, predicted], the confusion matrix.
      class_names: names of the classes, in the order of their indices.

    Returns:
      Up to ten pairs of different classes, the most frequent mistake first: names `actual` and `predicted`,
      `count`, and `share`, the count divided by the number of the actual class's examples.
    """
    matrix = np.asarray(matrix)
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSED]
    return [
        {
            "actual": class_names[actual],
            "predicted": class_names[predicted],
            "count": int(wrong[actual, predicted]),
            "share": float(wrong[actual, predicted] / matrix[actual].sum()),
        }
        for actual, predicted in zip(*np.unravel_index(order, matrix.shape), strict=True)
        if wrong[actual, predicted]
    ]
