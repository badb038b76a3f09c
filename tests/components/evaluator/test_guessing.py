import numpy as np
import pytest
from scipy import stats

from components.evaluator import guessing


def _confidence(labels, predicted):
    labels = np.array(labels)
    return guessing.confidence_above_guessing(labels, np.eye(labels.max() + 1)[predicted])


@pytest.mark.parametrize(
    ("labels", "correct"),
    [
        ([0] * 190 + [1] * 10, 190),  # always the largest class
        ([0, 1] * 100, 100),
        ([0, 1] * 100, 112),
        ([0, 0, 1, 1, 2, 2], 6),
        ([0, 1] * 1000, 1900),
    ],
)
def test_the_confidence_is_that_at_which_the_interval_begins_at_the_largest_share(labels, correct):
    predicted = np.array(labels)
    predicted[correct:] = 1 - np.minimum(predicted[correct:], 1)
    confidence = _confidence(labels, predicted)
    share = np.bincount(labels).max() / len(labels)
    test = stats.binomtest(correct, len(labels), share, alternative="greater")
    assert confidence == pytest.approx(1 - test.pvalue, abs=1e-12)
    if confidence < 1 - 1e-9:
        low = test.proportion_ci(confidence, method="exact").low
        assert low == pytest.approx(share)


def test_models_that_know_nothing_have_a_low_confidence():
    assert _confidence([0] * 190 + [1] * 10, [0] * 200) < 0.5
    assert _confidence([0, 1] * 100, [0] * 200) < 0.5
    # If all images show one class, no model can be better.
    assert _confidence([1] * 50, [1] * 50) == 0


def test_a_model_without_mistakes_needs_only_a_few_images():
    assert _confidence([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2]) == pytest.approx(1 - 3**-6)
    assert _confidence([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 1]) < 0.99
    assert _confidence([0] * 190 + [1] * 10, [0] * 190 + [1] * 10) > 0.9999


@pytest.mark.parametrize(
    ("largest", "examples", "confidence"), [(190, 200, 0.99), (100, 200, 0.99), (7, 20, 0.5), (3, 9, 0.0)]
)
def test_the_number_of_right_answers_needed_is_the_lowest_that_passes(largest, examples, confidence):
    def reached(correct):
        return stats.binomtest(correct, examples, largest / examples, alternative="greater").pvalue

    needed = guessing.correct_needed(largest, examples, confidence)
    assert 0 <= needed <= examples
    assert 1 - reached(needed) >= confidence
    assert needed == 0 or 1 - reached(needed - 1) < confidence


def test_with_too_few_images_no_number_of_right_answers_is_enough():
    assert guessing.correct_needed(3, 6, 0.99) > 6
    assert guessing.correct_needed(19, 20, 0.99) > 20
    assert guessing.correct_needed(50, 50, 0.5) > 50
