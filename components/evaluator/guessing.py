"""Compares a model with the guess that always names the largest class, which needs no model.

The share of the largest class among the labels is the accuracy of that guess. A model that knows nothing can
reach it, and by luck go over it. The exact binomial test tells by how much luck alone could.
"""

from __future__ import annotations

import numpy as np
from scipy import stats


def confidence_above_guessing(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Computes the confidence that a model is right more often than always guessing the largest class.

    It is the probability that answers which are right as often as the guess, independently of each other,
    include fewer right ones than the model's: 1 - p of the one-sided exact binomial test. It is at least c
    exactly where the lower bound of the accuracy's one-sided Clopper-Pearson interval (1934) of confidence c
    is not under the share of the largest class.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].

    Returns:
      The confidence, from 0 to 1; 0 where all labels are equal, since no model can then be better.
    """
    correct = int(np.sum(probabilities.argmax(axis=1) == labels))
    return float(stats.binom.cdf(correct - 1, len(labels), np.bincount(labels).max() / len(labels)))


def correct_needed(largest: int, examples: int, confidence: float) -> int:
    """Computes how many right answers show with a confidence that a model is better than guessing.

    Args:
      largest: number of examples of the largest class.
      examples: number of all examples, at least 1.
      confidence: the lowest value of `confidence_above_guessing` to be reached, at least 0 and under 1.

    Returns:
      The number of right answers; more than `examples` if even a model without a mistake does not reach it.
    """
    return int(stats.binom.ppf(confidence, examples, largest / examples)) + 1
