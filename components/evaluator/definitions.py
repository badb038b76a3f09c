"""What each metric is: from labels and probabilities to numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import metrics

STATISTICS = ("precision", "recall", "f1")  # of the predicted class
AVERAGES = ("macro", "micro", "weighted")  # over the classes, as scikit-learn calls them
_TOP_K = 5


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


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the share of examples whose most probable class is their label."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the mean negative log-likelihood, by the natural logarithm."""
    return float(metrics.log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))


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


def average(matrix: np.ndarray, statistic: str, kind: str) -> float:
    """Computes the average over the classes of a statistic.

    Args:
      matrix: int [actual, predicted], the confusion matrix of at least one example.
      statistic: one of `STATISTICS`.
      kind: one of `AVERAGES`. `macro` is the mean over the classes with an example, `micro` counts every
        example once, and `weighted` weighs each class by its number of examples.
    """
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    if kind == "micro":
        # With one label and one prediction per example, micro precision, recall and F1 are all the accuracy.
        return float(np.trace(matrix) / matrix.sum())
    values = statistics(np.diagonal(matrix), support, predicted)[statistic]
    if kind == "weighted":
        return float(np.average(values, weights=support))
    return float(values[support > 0].mean())


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
