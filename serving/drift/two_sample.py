"""Tests whether two samples of images have the same distribution, with one overall false-alarm rate.

For independent images, each test is exact or nearly so: that of Kolmogorov and Smirnov for the statistics of
the images and the confidence, and permutation tests for the shares of the classes (chi-square) and for the
network's features (maximum mean discrepancy: Gretton et al., A Kernel Two-Sample Test, JMLR 13, 2012). Holm's
correction keeps the probability of any false alarm at the given rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from sklearn.metrics import pairwise

from serving.drift.samples import NUMBERS, DriftError, Sample, TooFewError

CLASSES, FEATURES = "classes", "features"
# Fewer images of either sample find strong drift only.
FEWEST = 100
# Images of either sample whose features are compared: the time and memory of that are quadratic in them.
_MOST_FEATURES = 2000
_BLOCK = 200  # permutations at a time
_SEED = 0
# Standard deviations below which a change of the mean has no direction.
_VISIBLE = 0.01
# Words for a change to a larger and to a smaller mean.
_UP_DOWN = {
    "brightness": ("brighter", "darker"),
    "contrast": ("more contrasted", "less contrasted"),
    "sharpness": ("sharper", "less sharp"),
    "confidence": ("more confident", "less confident"),
}
_MOST_NAMED_CLASSES = 3


@dataclass(frozen=True)
class Outcome:
    """The outcome of one test.

    Attributes:
      name: what was tested: one of NUMBERS, CLASSES or FEATURES.
      p_value: probability of so large a difference if there is no drift.
      p_adjusted: the same, corrected for the number of tests; drift if it is at most the false-alarm rate.
      drifted: whether it is.
      effect: size of the difference. For numbers, the largest difference between the shares of images below
        a value, in [0, 1]; for CLASSES, the share of answers that would have to change, in [0, 1]; for
        FEATURES, how many times as large the discrepancy is as it is on average without drift.
      sentence: the difference in words.
    """

    name: str
    p_value: float
    p_adjusted: float
    drifted: bool
    effect: float
    sentence: str


@dataclass(frozen=True)
class _Raw:
    p_value: float
    effect: float
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """The outcomes of all tests.

    Attributes:
      outcomes: one for each test.
      strangest: indices of images of the window, those whose features are least like the reference's first.
    """

    outcomes: tuple[Outcome, ...]
    strangest: np.ndarray

    @property
    def drifted(self) -> bool:
        """Whether any test found drift."""
        return any(outcome.drifted for outcome in self.outcomes)


def compare(window: Sample, reference: Sample, alpha: float) -> Comparison:
    """Compares a window with a reference.

    Args:
      window: independent images that were logged.
      reference: independent images that represent those the model was tested on.
      alpha: largest probability of reporting any drift if there is none.

    Raises:
      TooFewError: a sample has fewer than FEWEST images.
      DriftError: the features have different lengths.
    """
    for noun, sample in (("the window", window), ("the reference", reference)):
        if len(sample) < FEWEST:
            raise TooFewError(f"{noun} has {len(sample)} images to compare; at least {FEWEST} are needed")
    rng = np.random.default_rng(_SEED)
    tests = len(NUMBERS) + 2
    # The smallest p value that permutations can give is far below the one that is needed.
    permutations = math.ceil(10 * tests / alpha)
    raw = {name: _compare_numbers(name, window.numbers(name), reference.numbers(name)) for name in NUMBERS}
    raw[CLASSES] = _compare_classes(window.classes(), reference.classes(), permutations, rng)
    chosen = [np.sort(rng.permutation(len(sample))[:_MOST_FEATURES]) for sample in (window, reference)]
    raw[FEATURES], likeness = _compare_features(
        window.take(chosen[0]).features(), reference.take(chosen[1]).features(), permutations, rng
    )
    adjusted = holm([test.p_value for test in raw.values()])
    outcomes = [
        Outcome(name, test.p_value, p, p <= alpha, test.effect, test.sentence)
        for (name, test), p in zip(raw.items(), adjusted, strict=True)
    ]
    return Comparison(tuple(outcomes), chosen[0][np.argsort(likeness)])


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p values for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted.tolist()


def _compare_numbers(name: str, window: np.ndarray, reference: np.ndarray) -> _Raw:
    test = scipy.stats.ks_2samp(window, reference, method="asymp")
    mean, before, deviation = window.mean(), reference.mean(), reference.std()
    shift = (mean - before) / deviation if deviation else 0.0
    up, down = _UP_DOWN[name]
    direction = f"{up if shift > 0 else down}: " if abs(shift) >= _VISIBLE else ""
    sentence = f"{direction}mean {mean:.3f} instead of {before:.3f}, {abs(shift):.2f} standard deviations"
    return _Raw(float(test.pvalue), float(test.statistic), sentence)


def _compare_classes(
    window: np.ndarray, reference: np.ndarray, permutations: int, rng: np.random.Generator
) -> _Raw:
    names = sorted({*window, *reference})
    counts = np.array([[np.sum(sample == name) for name in names] for sample in (window, reference)])
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    expected = np.outer(rows, columns) / counts.sum()

    def statistic(tables: np.ndarray) -> np.ndarray:
        return ((tables - expected) ** 2 / expected).sum(axis=(-2, -1))

    # Tables with the same sums, as permuting the images gives them. A tolerance makes equal tables equal.
    least = statistic(counts) * (1 - 1e-9)
    table, larger, drawn = scipy.stats.random_table(rows, columns), 0, 0
    while drawn < permutations:
        drawn += _BLOCK
        larger += int(np.sum(statistic(table.rvs(_BLOCK, random_state=rng)) >= least))
    shares = counts / rows[:, None]
    difference = shares[0] - shares[1]
    deviation = np.abs(difference) / np.sqrt(columns / counts.sum())
    most = np.argsort(-deviation, kind="stable")[:_MOST_NAMED_CLASSES]
    sentence = ", ".join(f"{names[i]} {shares[0, i]:.1%} instead of {shares[1, i]:.1%}" for i in most)
    return _Raw((1 + larger) / (1 + drawn), float(np.abs(difference).sum() / 2), sentence)


def _compare_features(
    window: np.ndarray, reference: np.ndarray, permutations: int, rng: np.random.Generator
) -> tuple[_Raw, np.ndarray]:
    """Compares features; also returns how much each image of the window is like those of the reference."""
    if window.shape[1] != reference.shape[1]:
        raise DriftError(
            f"expected features of one network, found {window.shape[1]} of each image in the window and "
            f"{reference.shape[1]} in the reference"
        )
    features = np.concatenate([window, reference]).astype(np.float64)
    deviations = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(deviations > 0, deviations, 1)
    squares = pairwise.euclidean_distances(features.astype(np.float32), squared=True)
    # The usual choice of the kernel's width: the median distance.
    kernel = np.exp(-squares / (np.median(squares) or 1.0))
    size, total = len(window), len(kernel)

    def discrepancy(weights: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->j", weights, kernel @ weights)

    membership = np.full((total, 1), -1 / len(reference), kernel.dtype)
    membership[:size] = 1 / size
    observed = discrepancy(membership)[0]
    drawn = np.concatenate(
        [
            discrepancy(rng.permuted(np.repeat(membership, _BLOCK, axis=1), axis=0))
            for _ in range(math.ceil(permutations / _BLOCK))
        ]
    )
    p_value = (1 + int(np.sum(drawn >= observed))) / (1 + len(drawn))
    times = float(observed / drawn.mean()) if drawn.mean() else 1.0
    sentence = f"the discrepancy is {times:.1f} times that of images without drift"
    return _Raw(p_value, times, sentence), kernel[:size, size:].mean(axis=1)
