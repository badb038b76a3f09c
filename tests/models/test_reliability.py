import numpy as np
import pytest

from models import reliability


def two_classes(confidences):
    """Returns probabilities of two classes, with the given ones for class 0."""
    confidences = np.asarray(confidences)
    return np.stack([confidences, 1 - confidences], axis=1)


def test_bins_and_error_in_closed_form():
    # Bin (0.6, 0.6667] has three examples, two of them correct; the last bin has one, which is wrong.
    probabilities = two_classes([0.61, 0.62, 0.63, 0.99])
    bins = reliability.calibration_bins(np.array([0, 0, 1, 1]), probabilities)
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
    assert reliability.calibration_error(bins) == pytest.approx((3 * (2 / 3 - 0.62) + 1 * 0.99) / 4)


def test_a_bin_includes_its_upper_edge_and_the_first_bin_also_zero():
    edges = np.linspace(0, 1, 16)
    assert reliability.bin_of(edges).tolist() == [0, *range(15)]
    assert reliability.bin_of(np.nextafter(edges[:-1], 1)).tolist() == list(range(15))
    # The rounding of a float32 softmax may exceed 1.
    assert reliability.bin_of(np.array([np.nextafter(np.float32(1), np.float32(2))])) == [14]


def test_intervals_contain_the_figure_and_are_those_of_the_standard_errors():
    generator = np.random.default_rng(0)
    confidences = generator.uniform(0.5, 1, 4000)
    labels = (generator.uniform(size=4000) > confidences - 0.2).astype(np.int64)
    probabilities = two_classes(confidences)
    measured = reliability.measure(labels, probabilities)
    bins = reliability.calibration_bins(labels, probabilities)
    assert measured["calibration_error"] == pytest.approx(reliability.calibration_error(bins))
    losses = -np.log(probabilities[np.arange(4000), labels])
    assert measured["loss"] == pytest.approx(losses.mean())
    margin = 1.96 * losses.std() / np.sqrt(4000)
    expected = [measured["loss"] - margin, measured["loss"] + margin]
    assert measured["intervals"]["loss"] == pytest.approx(expected, abs=0.1 * margin)
    # The classes are right 20 points less often than the confidence says: the error is a mean of gaps.
    low, high = measured["intervals"]["calibration_error"]
    gaps = (probabilities.argmax(axis=1) == labels) - confidences
    margin = 1.96 * gaps.std() / np.sqrt(4000)
    assert (low, high) == pytest.approx((0.2 - margin, 0.2 + margin), abs=0.02)
    # A label whose probability is 0 has a finite loss.
    assert reliability.measure(np.array([1]), two_classes([1.0]))["loss"] == pytest.approx(15.942, abs=1e-3)


def test_a_calibrated_model_has_almost_no_error():
    generator = np.random.default_rng(0)
    confidences = generator.uniform(0.5, 1, 100_000)
    labels = (generator.uniform(size=100_000) > confidences).astype(np.int64)
    calibrated = reliability.calibration_bins(labels, two_classes(confidences))
    assert reliability.calibration_error(calibrated) < 0.01
    # The same predictions with a confidence of 1: a quarter of them is wrong.
    certain = reliability.calibration_bins(labels, two_classes(np.ones(100_000)))
    assert reliability.calibration_error(certain) == pytest.approx(0.25, abs=0.01)
