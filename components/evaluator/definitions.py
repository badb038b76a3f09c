"""Definitions of the metrics, computed from labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn import metrics

STATISTICS = ("precision", "recall", "f1")  # of the predicted class
AVERAGES = ("macro", "micro", "weighted")  # over the classes, as scikit-learn calls them
_TOP_K = 5


def top_k(num_classes: int) -> int:
    """Returns the k of top-k accuracy: 5, or half the number of classes where there are fewer than ten."""
    return max(1, min(_TOP_K, num_classes // 2))


def top_k_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Computes the share of examples whose label is among the `top_k` most probable classes.

    Equally probable classes are ranked by their index, the lowest first, which agrees with argmax.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].

    Returns:
      The share, from 0 to 1.
    """
    label_probability = np.take_along_axis(probabilities, labels[:, np.newaxis], axis=1)
    lower_index = np.arange(probabilities.shape[1]) < labels[:, np.newaxis]
    ranked_higher = (probabilities > label_probability) | ((probabilities == label_probability) & lower_index)
    return float(np.mean(ranked_higher.sum(axis=1) < top_k(probabilities.shape[1])))


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Computes the share of examples whose most probable class is their label.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].

    Returns:
      The share, from 0 to 1.
    """
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def classes_never_predicted(labels: np.ndarray, probabilities: np.ndarray) -> int:
    """Counts the classes that have examples and are the most probable class of none.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].

    Returns:
      The number of classes, at least 0.
    """
    return len(np.setdiff1d(labels, probabilities.argmax(axis=1)))


def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Computes the mean negative log-likelihood, with the natural logarithm.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].

    Returns:
      The loss, at least 0.
    """
    return float(metrics.log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts the examples by actual and predicted class.

    Args:
      labels: int64 [examples], the actual classes.
      predicted: int64 [examples], the predicted classes.
      num_classes: number of classes.

    Returns:
      int64 [actual, predicted].
    """
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def statistics(correct: np.ndarray, actual: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Computes precision, recall and F1 of each class from counts of examples.

    Args:
      correct: [..., classes], examples of the class that are predicted as the class.
      actual: [..., classes], all examples of the class.
      predicted: [..., classes], all examples that are predicted as the class.

    Returns:
      `precision`, `recall` and `f1`, each float [..., classes]; 0 where the denominator is 0.
    """

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        return np.divide(numerator, denominator, out=np.zeros(correct.shape), where=denominator > 0)

    return {
        "precision": ratio(correct, predicted),
        "recall": ratio(correct, actual),
        "f1": ratio(2 * correct, actual + predicted),
    }


def average(matrix: np.ndarray, statistic: str, kind: str) -> float:
    """Computes the average over the classes of a statistic.

    Args:
      matrix: int [actual, predicted], the confusion matrix of at least one example.
      statistic: one of `STATISTICS`.
      kind: one of `AVERAGES`. `macro` is the mean over the classes that have examples, `micro` counts every
        example once, and `weighted` weights each class by its number of examples.

    Returns:
      The average, from 0 to 1.
    """
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    if kind == "micro":
        # With one label and one prediction per example, micro precision, recall and F1 equal the accuracy.
        return float(np.trace(matrix) / matrix.sum())
    values = statistics(np.diagonal(matrix), support, predicted)[statistic]
    if kind == "weighted":
        return float(np.average(values, weights=support))
    return float(values[support > 0].mean())


@dataclass(frozen=True)
class Areas:
    """Areas under one kind of curve, of each class against the rest.

    Attributes:
      by_class: area of each class; None where all examples or no examples are of the class.
      averages: the averages in the order of `AVERAGES`: macro (mean over the classes that have an area),
        micro (over all pairs of example and class, pooled) and weighted (mean, weighted by the number of
        examples); None where no class has an area.
    """

    by_class: Sequence[float | None]
    averages: tuple[float | None, float | None, float | None]


def areas(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Areas]:
    """Computes the areas under the curves of each class against the rest.

    They equal scikit-learn's `roc_auc_score` and `average_precision_score`. Those look at every example for
    each class, which takes long with thousands of classes; here, only the examples of the class are looked up
    among the sorted scores.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].

    Returns:
      `roc`, the area under true over false positive rate, and `pr`, that under precision over recall, as
      average precision.
    """
    num_classes = probabilities.shape[1]
    support = np.bincount(labels, minlength=num_classes)
    defined = np.flatnonzero((support > 0) & (support < len(labels)))
    own = np.take_along_axis(probabilities, labels[:, np.newaxis], axis=1)[:, 0]
    by_class: dict[str, list[float | None]] = {curve: [None] * num_classes for curve in _AREAS}
    for class_id in defined:
        positives, ranked = np.sort(own[labels == class_id]), np.sort(probabilities[:, class_id])
        for curve, area in _AREAS.items():
            by_class[curve][class_id] = area(positives, ranked)
    if not defined.size:
        return {curve: Areas(values, (None, None, None)) for curve, values in by_class.items()}
    pooled = np.sort(own), np.sort(probabilities, axis=None)
    result = {}
    for curve, values in by_class.items():
        found = np.array([values[class_id] for class_id in defined])
        weighted = float(np.average(found, weights=support[defined]))
        result[curve] = Areas(values, (float(found.mean()), _AREAS[curve](*pooled), weighted))
    return result


def _area_under_roc(positives: np.ndarray, ranked: np.ndarray) -> float:
    """Computes the share of pairs of a positive and a negative whose scores are in order; ties count half.

    Args:
      positives: scores of the positives, ascending.
      ranked: scores of positives and negatives, ascending.
    """
    count, others = len(positives), len(ranked) - len(positives)
    # Of the pairs of two positives, half are in order.
    in_order = sum(np.searchsorted(ranked, positives, side).sum() for side in ("left", "right")) / 2
    return float((in_order - count**2 / 2) / (count * others))


def _area_under_pr(positives: np.ndarray, ranked: np.ndarray) -> float:
    """Computes the mean over the positives of the precision among the scores that are at least theirs."""
    thresholds, first = np.unique(positives, return_index=True)
    gained = np.diff(first, append=len(positives))
    selected = len(ranked) - np.searchsorted(ranked, thresholds, "left")
    return float(np.average((len(positives) - first) / selected, weights=gained))


_AREAS = {"roc": _area_under_roc, "pr": _area_under_pr}
