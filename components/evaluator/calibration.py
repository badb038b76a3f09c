"""Whether a model is right as often as it says: calibration of the predicted class's probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# As in Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks (ICML 2017).
BINS = 15
_EDGES = np.linspace(0, 1, BINS + 1)


def bin_of(confidences: np.ndarray) -> np.ndarray:
    """Returns the bin of each confidence; bins are (lower, upper], and the first one holds 0, too.

    Args:
      confidences: float [examples] in [0, 1].

    Returns:
      int64 [examples] from 0 to `BINS` - 1.
    """
    # Without the outer edges, so that a softmax that rounding takes above 1 falls into the last bin.
    return np.searchsorted(_EDGES[1:-1], confidences, side="left")


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, Any]]:
    """Sorts examples into bins of equal width by the probability of their predicted class.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].

    Returns:
      For each bin `lower` and `upper` edge, `count` of examples, and over these the mean `confidence`
      (probability of the predicted class) and `accuracy`; both None where there is no example.
    """
    confidences = probabilities.max(axis=1)
    bins = bin_of(confidences)
    counts = np.bincount(bins, minlength=BINS)
    confidence_sums = np.bincount(bins, weights=confidences, minlength=BINS)
    right = np.bincount(bins[probabilities.argmax(axis=1) == labels], minlength=BINS)
    return [
        {
            "lower": float(_EDGES[i]),
            "upper": float(_EDGES[i + 1]),
            "count": int(count),
            "confidence": float(confidence_sums[i] / count) if count else None,
            "accuracy": float(right[i] / count) if count else None,
        }
        for i, count in enumerate(counts)
    ]


def calibration_error(bins: Sequence[dict[str, Any]]) -> float:
    """Returns the expected calibration error, between 0 and 1 (Guo et al., 2017, equation 3).

    Args:
      bins: from `calibration_bins`, of at least one example.

    Returns:
      The mean over examples of their bin's |accuracy - confidence|.
    """
    filled = [b for b in bins if b["count"]]
    gaps = sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in filled)
    return gaps / sum(b["count"] for b in filled)
