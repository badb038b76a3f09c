"""Confidence intervals of proportions, and by the bootstrap (Efron, 1979) of other statistics of counts.

A statistic that depends on counts only (a confusion matrix, numbers of correct and wrong predictions) can be
bootstrapped without a loop over examples: resampling the examples with replacement is a multinomial draw of
the counts.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

LEVEL = 0.95  # Confidence level of all intervals.
_SAMPLES = 1000  # Number of bootstrap samples.


def resample(counts: np.ndarray, samples: int = _SAMPLES, seed: int = 0) -> np.ndarray:
    """Draws bootstrap samples of counts.

    Each sample draws `counts.sum()` examples with replacement.

    Args:
      counts: int [cells], number of examples in each cell.
      samples: number of bootstrap samples.
      seed: seed of the random generator.

    Returns:
      int64 [samples, cells]; each row sums to `counts.sum()`.
    """
    total = counts.sum()
    if not total:
        return np.zeros((samples, len(counts)), np.int64)
    return np.random.default_rng(seed).multinomial(total, counts / total, size=samples)


def interval(values: np.ndarray, level: float = LEVEL) -> list[float] | None:
    """Computes the bootstrap's percentile interval of a statistic.

    Args:
      values: float [samples], the statistic of each bootstrap sample; NaN where it is undefined.
      level: share of the defined values that lie inside the interval.

    Returns:
      [low, high]; None if the statistic is undefined for all samples.
    """
    defined = values[~np.isnan(values)]
    if not defined.size:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def proportion(successes: int, total: int, level: float = LEVEL) -> list[float] | None:
    """Computes Wilson's interval (1927) of a proportion.

    Its width is positive even where all trials or none succeed.

    Args:
      successes: number of successes.
      total: number of trials.
      level: share of such intervals that contain the true proportion.

    Returns:
      [low, high]; None if `total` is 0.
    """
    if not total:
        return None
    wilson = stats.binomtest(successes, total).proportion_ci(level, method="wilson")
    return [float(wilson.low), float(wilson.high)]
