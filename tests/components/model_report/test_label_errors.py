import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from components.model_report import label_errors


def find(labels, rows):
    """Returns the suspects as a list of (index, suggested class), likeliest error first."""
    suspects = label_errors.find(np.array(labels), np.array(rows, np.float32))
    return list(zip(*(values.tolist() for values in suspects), strict=True))


def test_a_suspect_has_another_class_that_reaches_its_threshold():
    # The threshold of class 0 is (0.9 + 0.5) / 2 = 0.7, that of class 1 (0.8 + 0.6 + 0.2) / 3 = 0.533.
    assert find([0, 0, 1, 1, 1], [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.4, 0.6], [0.8, 0.2]]) == [(4, 0)]
    # Here the threshold of class 0 is 0.8, and the last row is below it.
    assert find([0, 0, 1, 1, 1], [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.75, 0.25]]) == []


def test_the_widest_margin_comes_first():
    # The thresholds are 0.575 and 0.6.
    rows = [[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.1, 0.9], [0.1, 0.9], [0.6, 0.4], [0.8, 0.2]]
    assert find([0, 0, 0, 0, 1, 1, 1, 1], rows) == [(3, 1), (7, 0), (2, 1), (6, 0)]


def test_an_example_whose_label_is_most_probable_is_not_suspected():
    # The first row reaches the threshold of class 1, 0.3, but not that of class 0, 0.75.
    assert find([0, 0, 1], [[0.6, 0.4], [0.9, 0.1], [0.7, 0.3]]) == []


def test_a_confident_and_correct_model_suspects_nothing():
    labels = np.arange(50) % 5
    assert find(labels, np.where(np.eye(5)[labels] > 0, 0.96, 0.01)) == []


def test_a_class_without_examples_is_never_suggested():
    # In two rows class 2, which has no examples, is the most probable; no row suggests another class.
    assert find([0, 1, 0, 1], [[0.1, 0.0, 0.9], [0.0, 0.1, 0.9], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]]) == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_flipped_labels_of_digits_are_found(seed):
    generator = np.random.default_rng(seed)
    pixels, digits = load_digits(return_X_y=True)
    flipped = generator.uniform(size=len(digits)) < 0.05
    labels = np.where(flipped, (digits + generator.integers(1, 10, len(digits))) % 10, digits)
    model = LogisticRegression(C=0.001, max_iter=1000)
    probabilities = cross_val_predict(model, pixels, labels, cv=3, method="predict_proba")
    suspects, suggested = label_errors.find(labels, probabilities)
    assert np.mean(flipped[suspects]) > 0.7  # precision; chance would be 0.05
    assert np.isin(np.flatnonzero(flipped), suspects).mean() > 0.6  # recall
    # Nearly all of the likeliest suspects are errors, and nearly all suggestions are the true class.
    assert np.mean(flipped[suspects[:30]]) > 0.9
    assert np.mean(suggested[flipped[suspects]] == digits[suspects[flipped[suspects]]]) > 0.9
