"""The figures of merit of a model, from labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from components.model_report import calibration, intervals
from components.model_report.predictions import Predictions

AVERAGES = ("macro", "micro", "weighted")
_TOP_K = 5
_MOST_CONFUSED = 10


def top_k(num_classes: int) -> int:
    """Returns the k of top-k accuracy: 5, or half the classes where they are fewer than ten."""
    return max(1, min(_TOP_K, num_classes // 2))


def top_k_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the share of examples whose label is among the `top_k` most probable classes.

    Of equally probable classes the first is taken first, as the predicted class is.
    """
    of_label = np.take_along_axis(probabilities, labels[:, np.newaxis], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, np.newaxis]
    before = (probabilities > of_label) | ((probabilities == of_label) & earlier)
    return float(np.mean(before.sum(axis=1) < top_k(probabilities.shape[1])))


def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the mean negative log-likelihood, by the natural logarithm."""
    return float(metrics.log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))


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
    matrix = confusion_matrix(labels, predicted, len(class_names))
    bins = calibration.calibration_bins(labels, probabilities)
    roc_auc, pr_auc = area_under_roc(labels, probabilities), area_under_pr(labels, probabilities)
    return {
        "examples": len(labels),
        "accuracy": float(np.mean(predicted == labels)),
        "top_k": top_k(len(class_names)),
        "top_k_accuracy": top_k_accuracy(labels, probabilities),
        "loss": loss(labels, probabilities),
        "calibration_error": calibration.calibration_error(bins),
        **_averages(labels, predicted),
        **{f"roc_auc_{average}": value for average, value in zip(AVERAGES, roc_auc.averages, strict=True)},
        **{f"pr_auc_{average}": value for average, value in zip(AVERAGES, pr_auc.averages, strict=True)},
        "confidence_level": intervals.LEVEL,
        **_per_class(matrix, class_names, roc_auc, pr_auc),
        "confusion_matrix": matrix.tolist(),
        "calibration": bins,
        "most_confused": most_confused(matrix, class_names),
    }


def _averages(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    values = {}
    for average in AVERAGES:
        # By default scikit-learn counts a class without an example, once it is predicted, as 0.
        of_classes = np.unique(labels) if average == "macro" else None
        *statistics, _ = metrics.precision_recall_fscore_support(
            labels, predicted, labels=of_classes, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), statistics, strict=True):
            values[f"{name}_{average}"] = float(value)
    return values


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts the examples by actual and predicted class, int64 [actual, predicted]."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def statistics(right: np.ndarray, actual: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Computes precision, recall and F1 from counts.

    Args:
      right: examples of each class that are predicted to be of it, [..., classes].
      actual: all of the class's examples, likewise.
      predicted: all examples that are predicted to be of it, likewise.

    Returns:
      `precision`, `recall`, `f1`, float [..., classes]; 0 for a ratio without any case.
    """

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        return np.divide(numerator, denominator, out=np.zeros(right.shape), where=denominator > 0)

    return {
        "precision": ratio(right, predicted),
        "recall": ratio(right, actual),
        "f1": ratio(2 * right, actual + predicted),
    }


def _per_class(
    matrix: np.ndarray, class_names: Sequence[str], roc_auc: Areas, pr_auc: Areas
) -> dict[str, Any]:
    """The classes, and the confidence intervals of what a confusion matrix tells."""
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    measured = statistics(np.diagonal(matrix), support, predicted)
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
        measured = statistics(right, in_class, as_class)
        self.f1 = np.where(in_class > 0, measured["f1"], np.nan)
        self.macro = {key: values.mean(axis=1, where=in_class > 0) for key, values in measured.items()}


class Areas:
    """Areas under one kind of curve, one class against the rest.

    Attributes:
      by_class: of each class; None where the examples are all of the class, or none is.
      averages: macro (mean over the classes that have one), micro (all pairs of example and class
        pooled), weighted (mean, weighted by the number of examples); None where there is none.
    """

    def __init__(self, area: Any, labels: np.ndarray, probabilities: np.ndarray) -> None:
        one_hot = labels[:, np.newaxis] == np.arange(probabilities.shape[1])
        support = one_hot.sum(axis=0)
        defined = (support > 0) & (support < len(labels))
        values = {i: float(area(one_hot[:, i], probabilities[:, i])) for i in np.flatnonzero(defined)}
        self.by_class = [values.get(i) for i in range(probabilities.shape[1])]
        self.averages: tuple[float | None, float | None, float | None] = (None, None, None)
        if values:
            areas = np.array(list(values.values()))
            self.averages = (
                float(areas.mean()),
                float(area(one_hot.ravel(), probabilities.ravel())),
                float(np.average(areas, weights=support[list(values)])),
            )


def area_under_roc(labels: np.ndarray, probabilities: np.ndarray) -> Areas:
    """Computes the areas under the curves of true over false positive rate."""
    return Areas(metrics.roc_auc_score, labels, probabilities)


def area_under_pr(labels: np.ndarray, probabilities: np.ndarray) -> Areas:
    """Computes the areas under the curves of precision over recall, as average precision."""
    return Areas(metrics.average_precision_score, labels, probabilities)


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
