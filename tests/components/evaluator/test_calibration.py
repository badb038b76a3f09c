import numpy as np
import pytest

from components.evaluator import calibration


def two_classes(confidences):
    """Returns probabilities of two classes, with the given ones for class 0."""
    confidences = np.asarray(confidences)
    return np.stack([confidences, 1 - confidences], axis=1)


def test_bins_and_error_in_closed_form():
    # Bin (0.6, 0.6667] has three examples, two of them correct; the last bin has one, which is wrong.
    probabilities = two_classes([0.61, 0.62, 0.63, 0.99])
    bins = calibration.calibration_bins(np.array([0, 0, 1, 1]), probabilities)
    assert len(bins) == 15
    assert bins[9] == {
        "lower": pytest.approx(9 / 15),
        "upper": pytest.approx(10 / 15),
        "count": 3,
        "confidence": pytest.approx(0.62),
        "accuracy": pytest.approx(2 / 3),
    }
    assert bins[14]["accuracy"] == 0
    assert bins[0] == {
        "lower": 0.0,
        "upper": pytest.approx(1 / 15),
        "count": 0,
        "confidence": None,
        "accuracy": None,
    }
    assert sum(b["count"] for b in bins) == 4
    assert calibration.calibration_error(bins) == pytest.approx((3 * (2 / 3 - 0.62) + 1 * 0.99) / 4)


def test_a_bin_includes_its_upper_edge_and_the_first_bin_also_zero():
    edges = np.linspace(0, 1, 16)
    assert calibration.bin_of(edges).tolist() == [0, *range(15)]
    assert calibration.bin_of(np.nextafter(edges[:-1], 1)).tolist() == list(range(15))
    # The rounding of a float32 softmax may exceed 1.
    assert calibration.bin_of(np.array([np.nextafter(np.float32(1), np.float32(2))])) == [14]


def test_a_calibrated_model_has_almost_no_error():
    generator = np.random.default_rng(0)
    confidences = generator.uniform(0.5, 1, 100_000)
    labels = (generator.uniform(size=100_000) > confidences).astype(np.int64)
    calibrated = calibration.calibration_bins(labels, two_classes(confidences))
    assert calibration.calibration_error(calibrated) < 0.01
    # The same predictions with a confidence of 1: a quarter of them is wrong.
    certain = calibration.calibration_bins(labels, two_classes(np.ones(100_000)))
    assert calibration.calibration_error(certain) == pytest.approx(0.25, abs=0.01)
