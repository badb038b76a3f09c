import numpy as np
import pytest

from components.serving_check import client

NAMES = ["cat", "dog"]


def _answer(**changes):
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    return {
        "probabilities": probabilities,
        "class_id": np.array([0, 1]),
        "class_name": np.array([b"cat", b"dog"], object),
        "top_k_names": np.array([[b"cat", b"dog"], [b"dog", b"cat"]], object),
        "top_k_probabilities": np.array([[0.9, 0.1], [0.8, 0.2]], np.float32),
    } | changes


def test_a_correct_answer_has_no_problems():
    assert client.find_problems(_answer(), 2, NAMES) == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (_answer(probabilities=np.array([[0.9, 0.3], [0.2, 0.8]])), "do not sum to 1"),
        (_answer(probabilities=np.array([[np.nan, 0.1], [0.2, 0.8]])), "not finite"),
        (_answer(probabilities=np.array([[1.1, -0.1], [0.2, 0.8]])), "negative"),
        (_answer(probabilities=np.ones((2, 3)) / 3), "have the shape (2, 3), expected (2, 2)"),
        (_answer(class_id=np.array([1, 1]), class_name=np.array([b"dog", b"dog"], object)), "highest"),
        (
            _answer(class_name=np.array([b"dog", b"cat"], object)),
            "class_name is not the name of the class that class_id gives",
        ),
        (_answer(top_k_probabilities=np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)), "in order"),
        (_answer(top_k_names=np.array([[b"cat", b"dog"]] * 2, object)), "the most probable classes"),
        ({"logits": np.zeros((2, 2))}, "output probabilities, class_id, class_name, top_k_names, top"),
    ],
)
def test_each_problem_is_reported(answer, problem):
    assert problem in " ".join(client.find_problems(answer, 2, NAMES))
