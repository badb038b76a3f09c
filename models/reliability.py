"""Measures whether the probability of the predicted class matches the share of correct predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Number of bins in Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks (ICML 2017).
BINS = 15
_EDGES = np.linspace(0, 1, BINS + 1)
_SAMPLES = 1000  # Number of bootstrap samples.
_STANDARD_ERRORS = 1.96  # to both sides, of an interval with a confidence level of 95 %


def bin_of(confidences: np.ndarray) -> np.ndarray:
    """Returns the bin of each confidence.

    A bin is the interval (lower, upper], with its upper edge and without its lower one; only the first bin
    includes its lower edge, 0.

    Args:
      confidences: float [examples] in [0, 1], probabilities of the predicted classes.

    Returns:
      int64 [examples] from 0 to `BINS` - 1.
    """
    # The search leaves out the outer edges, so that a softmax output that rounding takes above 1 falls into
    # the last bin.
    return np.searchsorted(_EDGES[1:-1], confidences, side="left")


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, Any]]:
    """Sorts examples into bins of equal width by the probability of their predicted class.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].

    Returns:
      A dictionary for each bin: its edges `lower` and `upper`, the number of its examples `count`, and over
      these examples the mean probability of the predicted class `confidence` and the `accuracy`. The last two
      are None in a bin without examples.
    """
    confidences = probabilities.max(axis=1)
    bins = bin_of(confidences)
    counts = np.bincount(bins, minlength=BINS)
    confidence_sums = np.bincount(bins, weights=confidences, minlength=BINS)
    correct = np.bincount(bins[probabilities.argmax(axis=1) == labels], minlength=BINS)
    return [
        {
            "lower": float(_EDGES[i]),
            "upper": float(_EDGES[i + 1]),
            "count": int(count),
            "confidence": float(confidence_sums[i] / count) if count else None,
            "accuracy": float(correct[i] / count) if count else None,
        }
        for i, count in enumerate(counts)
    ]


def calibration_error(bins: Sequence[dict[str, Any]]) -> float:
    """Computes the expected calibration error (Guo et al., 2017, equation 3).

    Args:
      bins: from `calibration_bins`, of at least one example.

    Returns:
      The mean of |accuracy - confidence| over the bins, weighted by their number of examples; from 0 to 1.
    """
    filled = [b for b in bins if b["count"]]
    gaps = sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in filled)
    return gaps / sum(b["count"] for b in filled)


def measure(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Measures how well probabilities are calibrated.

    The intervals are 1.96 of the bootstrap's standard errors to both sides. The percentiles of the bootstrap
    would lie above a small calibration error, because resampling adds noise to the bins, which raises it.

    Args:
      labels: int64 [examples], at least one.
      probabilities: float [examples, classes].

    Returns:
      `loss`, the mean negative log-likelihood, and `calibration_error`, the expected calibration error; and
      `intervals`, the 95 % interval [low, high] of each of both.
    """
    count = len(labels)
    rows = np.arange(count)
    confidences = probabilities.max(axis=1).astype(np.float64)
    # What each example adds to the sums: to its bin, correctness (0 or 1) minus confidence; and the loss,
    # clipped like that of scikit-learn's log_loss.
    addends = np.zeros((count, BINS + 1))
    addends[rows, bin_of(confidences)] = (probabilities.argmax(axis=1) == labels) - confidences
    smallest = np.finfo(np.float32).eps
    addends[:, BINS] = -np.log(np.maximum(probabilities[rows, labels].astype(np.float64), smallest))

    def figures(sums: np.ndarray) -> dict[str, Any]:
        means = sums / count
        return {"loss": means[..., BINS], "calibration_error": np.abs(means[..., :BINS]).sum(axis=-1)}

    generator = np.random.default_rng(0)
    sums = np.stack(
        [
            np.bincount(generator.integers(count, size=count), minlength=count) @ addends
            for _ in range(_SAMPLES)
        ]
    )
    measured, spread = figures(addends.sum(axis=0)), figures(sums)
    halves = {name: _STANDARD_ERRORS * values.std() for name, values in spread.items()}
    return {
        **{name: float(value) for name, value in measured.items()},
        "intervals": {
            # Both figures are at least 0.
            name: [float(max(0.0, value - halves[name])), float(value + halves[name])]
            for name, value in measured.items()
        },
    }
