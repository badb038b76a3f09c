"""Finds label errors by confident learning (Northcutt, Jiang, Chuang: Confident Learning, JAIR 2021)."""

from __future__ import annotations

import numpy as np
from cleanlab import filter as label_filter


def find(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds examples that more likely belong to another class than to that of their label.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes], from a model that was not trained on these examples.

    Returns:
      Two arrays, int64 [suspects]: the indices of the suspected examples, and for each its most probable
      class. The likeliest errors come first: those with the smallest difference between the probability of
      the label and that of the most probable other class. Both are empty if all examples have one label.
    """
    if len(np.unique(labels)) < 2:
        # The threshold of a class is estimated from its examples. With a single class there is nothing to
        # compare with, and cleanlab raises an error.
        return np.empty(0, np.int64), np.empty(0, np.int64)
    suspects = label_filter.find_label_issues(
        labels,
        probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,  # starting more processes would take longer than the search itself
    )
    suspects = np.asarray(suspects, np.int64)
    return suspects, probabilities[suspects].argmax(axis=1)
