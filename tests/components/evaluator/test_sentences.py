import numpy as np
import pytest

from components.evaluator import sentences
from components.evaluator.sentences import Counts

CONFIDENCE, CLASSES = "evaluation.min_confidence_above_guessing", "evaluation.max_classes_never_predicted"


def _counts(actual, predicted, correct, names=("healthy", "sick", "unclear")):
    return Counts(names, np.array(actual), np.array(predicted), correct)


@pytest.mark.parametrize(
    ("counts", "value", "end"),
    [
        (
            _counts([190, 10, 0], [200, 0, 0], 190),
            0.4169,
            "accuracy 0.9500 (190 of 200 images) is not above the share of the largest class, 0.9500 "
            "('healthy'), beyond what chance explains: confidence 0.4169 is under {}, 0.9900; "
            "197 right would be enough",
        ),
        (
            _counts([3, 3, 0], [3, 3, 0], 6),
            0.9844,
            "; 6 right would not be enough either, so more test images are needed",
        ),
        (
            _counts([0, 1, 0], [0, 1, 0], 1),
            0.0,
            "accuracy 1.0000 (1 of 1 image) is not above the share of the largest class, 1.0000 "
            "('sick'), beyond what chance explains: confidence 0.0000 is under {}, 0.9900; "
            "1 right would not be enough either, so test images of other classes are needed",
        ),
    ],
)
def test_a_model_no_better_than_guessing_is_told_how_many_right_answers_would_do(counts, value, end):
    sentence = sentences.describe_guessing(counts, value, CONFIDENCE, 0.99, passed=False)
    assert sentence.endswith(end.format(CONFIDENCE))


def test_a_model_better_than_guessing_is_described_with_its_accuracy_and_the_largest_share():
    counts = _counts([100, 50, 50], [90, 60, 50], 150)
    assert sentences.describe_guessing(counts, 0.99999, CONFIDENCE, 0.99, passed=True) == (
        "accuracy 0.7500 (150 of 200 images) is above the share of the largest class, 0.5000 ('healthy'), "
        f"beyond what chance explains: confidence 1.0000 is at least {CONFIDENCE}, 0.9900"
    )


def test_classes_that_are_never_predicted_are_named_with_their_images():
    assert sentences.describe_never_predicted(_counts([9, 1, 0], [10, 0, 0], 9), CLASSES, 0) == (
        "1 of the 2 classes with test images is never predicted in 10 images: 'sick' (1 image); "
        f"{CLASSES} allows 0"
    )
    assert sentences.describe_never_predicted(_counts([9, 1, 0], [8, 1, 1], 9), CLASSES, 2) == (
        f"each class with test images is predicted at least once in 10 images; {CLASSES} allows 2"
    )


def test_only_the_first_of_many_classes_are_named():
    names = [f"c{i}" for i in range(12)]
    counts = _counts([2] * 12, [24] + [0] * 11, 2, names)
    assert sentences.describe_never_predicted(counts, CLASSES, 3).endswith(
        f"'c4' (2 images), 'c5' (2 images), and 6 more; {CLASSES} allows 3"
    )
