import math

import numpy as np
import pytest

from components.evaluator import intervals

pytestmark = pytest.mark.filterwarnings("error")


def test_a_bootstrap_sample_has_as_many_examples_as_the_counts():
    counts = np.array([50, 0, 30, 20])
    drawn = intervals.resample(counts)
    assert (drawn.shape, drawn.dtype) == ((1000, 4), np.int64)
    assert set(drawn.sum(axis=1)) == {100}
    # A cell without examples stays empty in every sample.
    assert not drawn[:, 1].any()


def test_samples_have_the_mean_and_covariance_of_a_multinomial():
    counts = np.array([50, 30, 20])
    drawn = intervals.resample(counts, samples=20_000)
    share = counts / 100
    np.testing.assert_allclose(drawn.mean(axis=0), counts, atol=0.15)
    covariance = 100 * (np.diag(share) - np.outer(share, share))
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=1)


def test_samples_depend_on_the_seed_only():
    counts = np.array([5, 5])
    np.testing.assert_array_equal(intervals.resample(counts, 50), intervals.resample(counts, 50))
    assert (intervals.resample(counts, 50, seed=1) != intervals.resample(counts, 50, seed=2)).any()


@pytest.mark.parametrize("counts", [np.zeros(3, np.int64), np.zeros(0, np.int64)])
def test_samples_of_no_examples_are_zero(counts):
    np.testing.assert_array_equal(intervals.resample(counts, 4), np.zeros((4, len(counts))))


def test_an_interval_excludes_the_same_share_at_both_ends():
    values = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert intervals.interval(values) == pytest.approx([25, 975])
    assert intervals.interval(values, level=0.5) == pytest.approx([250, 750])


def test_an_interval_ignores_samples_without_a_value():
    values = np.repeat([math.nan, 3.0, math.nan], 100)
    assert intervals.interval(values) == [3, 3]
    assert intervals.interval(np.concatenate([np.arange(1001.0), values[:100]])) == pytest.approx([25, 975])
    assert intervals.interval(np.full(10, math.nan)) is None


def test_proportion_is_wilsons_interval():
    assert intervals.proportion(0, 0) is None
    assert intervals.proportion(1, 1) == pytest.approx([1 / (1 + 1.96**2), 1], abs=1e-4)
    # Wilson's formula for 10 of 20 gives 0.5 +- z sqrt(n / 4 + z^2 / 4) / (n + z^2).
    margin = 1.96 * (20 / 4 + 1.96**2 / 4) ** 0.5 / (20 + 1.96**2)
    assert intervals.proportion(10, 20) == pytest.approx([0.5 - margin, 0.5 + margin], abs=1e-4)
