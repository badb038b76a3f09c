"""The figures of merit of a model, from labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.evaluator import calibration, definitions, intervals
from components.evaluator.definitions import Areas
from components.model_report.predictions import Predictions

_MOST_CONFUSED = 10


def compute(predictions: Predictions, class_names: Sequence[str]) -> dict[str, Any]:
    """Computes what `metrics.json` says of a model's predictions.

    The README lists the keys. Macro averages are over the classes that have an example. Intervals are
    Wilson's of a class's precision and recall, and bootstrap percentile intervals of all else. A ratio
    without any case (the precision of a class that is never predicted, say) is 0; what a class without
    any example would have is None.

    Args:
      predictions: of a split.
      class_names: names by class.

    Returns:
      The metrics, as values that JSON can hold.
    """
    labels, probabilities, predicted = predictions.labels, predictions.probabilities, predictions.predicted
    matrix = definitions.confusion_matrix(labels, predicted, len(class_names))
    bins = calibration.calibration_bins(labels, probabilities)
    roc_auc, pr_auc = (
        definitions.area_under_roc(labels, probabilities),
        definitions.area_under_pr(labels, probabilities),
    )
    return {
        "examples": len(labels),
        "accuracy": definitions.accuracy(labels, probabilities),
        "top_k": definitions.top_k(len(class_names)),
        "top_k_accuracy": definitions.top_k_accuracy(labels, probabilities),
        "loss": definitions.loss(labels, probabilities),
        "calibration_error": calibration.calibration_error(bins),
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
        **_per_class(matrix, class_names, roc_auc, pr_auc),
        "confusion_matrix": matrix.tolist(),
        "calibration": bins,
        "most_confused": most_confused(matrix, class_names),
    }


def _per_class(
    matrix: np.ndarray, class_names: Sequence[str], roc_auc: Areas, pr_auc: Areas
) -> dict[str, Any]:
    """The classes, and the confidence intervals of what a confusion matrix tells."""
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    measured = definitions.statistics(np.diagonal(matrix), support, predicted)
    drawn = _Drawn(matrix)
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
                "f1": intervals.interval(drawn.f1[:, i]) if support[i] else None,
            },
        }
        for i, name in enumerate(class_names)
    ]
    return {
        "intervals": {
            "accuracy": intervals.interval(drawn.accuracy),
            **{f"{key}_macro": intervals.interval(values) for key, values in drawn.macro.items()},
        },
        "classes": classes,
    }


class _Drawn:
    """Statistics of bootstrap draws of a confusion matrix.

    Attributes:
      accuracy: float [samples].
      f1: of each class, float [samples, classes]; NaN where the draw has no example of it.
      macro: `precision`, `recall`, `f1`, float [samples], means over the classes with an example.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        actual, predicted = np.nonzero(matrix)
        counts = intervals.resample(matrix[actual, predicted])
        samples, number = len(counts), len(matrix)
        right, in_class, as_class = (np.zeros((samples, number)) for _ in range(3))
        diagonal = actual == predicted
        right[:, actual[diagonal]] = counts[:, diagonal]
        for cell in range(len(actual)):
            in_class[:, actual[cell]] += counts[:, cell]
            as_class[:, predicted[cell]] += counts[:, cell]
        self.accuracy = right.sum(axis=1) / max(1, matrix.sum())
        measured = definitions.statistics(right, in_class, as_class)
        self.f1 = np.where(in_class > 0, measured["f1"], np.nan)
        self.macro = {key: values.mean(axis=1, where=in_class > 0) for key, values in measured.items()}


def most_confused(matrix: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Lists the most frequent mistakes, most first.

    Returns:
      `actual`, `predicted` (names), `count`, `share` (of the actual class's examples); up to ten.
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
