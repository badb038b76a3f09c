"""Confidence intervals of proportions, and by the bootstrap (Efron, 1979) of other statistics of counts.

Whatever a statistic only needs counts for (a confusion matrix, right and wrong answers), drawing the
examples anew with replacement is a multinomial draw of the counts, which takes no loop over examples.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

LEVEL = 0.95
_SAMPLES = 1000


def resample(counts: np.ndarray, samples: int = _SAMPLES, seed: int = 0) -> np.ndarray:
    """Draws as many examples as there are, with replacement, `samples` times.

    Args:
      counts: int [cells], how many examples fall into each cell.
      samples: how often.
      seed: of the draws.

    Returns:
      int64 [samples, cells]; each row sums to `counts.sum()`.
    """
    total = counts.sum()
    if not total:
        return np.zeros((samples, len(counts)), np.int64)
    return np.random.default_rng(seed).multinomial(total, counts / total, size=samples)


def interval(values: np.ndarray, level: float = LEVEL) -> list[float] | None:
    """Returns the percentile interval of a statistic.

    Args:
      values: float [samples], the statistic of each draw; NaN where a draw has no value.
      level: the share of the draws that lie inside.

    Returns:
      [low, high]; None if no draw has a value.
    """
    defined = values[~np.isnan(values)]
    if not defined.size:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def proportion(successes: int, total: int, level: float = LEVEL) -> list[float] | None:
    """Returns Wilson's interval (1927) of a proportion, which has a width even where all or none succeed.

    Args:
      successes: how many did.
      total: of how many.
      level: how often such an interval holds the true proportion.

    Returns:
      [low, high]; None of nothing.
    """
    if not total:
        return None
    found = stats.binomtest(successes, total).proportion_ci(level, method="wilson")
    return [float(found.low), float(found.high)]
