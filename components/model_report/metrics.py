"""The figures of a report, from labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics


def compute(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Computes what `metrics.json` holds of a split.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].
      class_names: names by class.

    Returns:
      `examples`, `accuracy`, `loss` (mean negative log-likelihood, natural logarithm), `precision_macro`,
      `recall_macro`, `f1_macro` (unweighted means over the classes that are actual or predicted);
      `classes`: for each `name`, `precision`, `recall`, `f1`, `support` (number of examples);
      `confusion_matrix`: rows are actual, columns predicted classes, counts. A ratio without any case
      (a class that is never predicted, say) is 0.
    """
    predicted = probabilities.argmax(axis=1)
    every_class = np.arange(len(class_names))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every_class, zero_division=0
    )
    precision_macro, recall_macro, f1_macro, _ = metrics.precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0
    )
    return {
        "examples": len(labels),
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "loss": float(metrics.log_loss(labels, probabilities, labels=every_class)),
        "precision_macro": float(precision_macro),
        "recall_macro": float(recall_macro),
        "f1_macro": float(f1_macro),
        "classes": [
            {
                "name": name,
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(class_names)
        ],
        "confusion_matrix": metrics.confusion_matrix(labels, predicted, labels=every_class).tolist(),
    }
