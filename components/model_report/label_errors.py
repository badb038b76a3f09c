"""Likely label errors by confident learning (Northcutt, Jiang, Chuang: Confident Learning, JAIR 2021)."""

from __future__ import annotations

import numpy as np
from cleanlab import filter as label_filter


def find(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds examples that are more likely of another class than their label says.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes], of a model that was not trained on these examples.

    Returns:
      Indices of the suspects, int64 [suspects], the most likely errors first, which is where the label
      is least probable beside the best other class; and that class of each, int64 [suspects].
    """
    if len(np.unique(labels)) < 2:
        # What is probable of another class is known from its examples only; cleanlab refuses.
        return np.empty(0, np.int64), np.empty(0, np.int64)
    suspects = label_filter.find_label_issues(
        labels,
        probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,  # more processes would take longer to start than this takes
    )
    suspects = np.asarray(suspects, np.int64)
    return suspects, probabilities[suspects].argmax(axis=1)
