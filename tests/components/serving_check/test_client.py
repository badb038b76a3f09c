import errno
import os
import threading

import numpy as np
import pytest
import tensorflow as tf

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


def test_a_model_that_abstains_names_no_class():
    unsure = {"abstained": np.array([True, False]), "class_name": np.array([b"", b"dog"], object)}
    assert client.find_problems(_answer(**unsure), 2, NAMES) == []


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
        (_answer(abstained=np.array([True, False])), "class_name is not the name of the class"),
        (_answer(class_name=np.array([b"", b"dog"], object)), "class_name is not the name of the class"),
        (_answer(top_k_probabilities=np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)), "in order"),
        (_answer(top_k_names=np.array([[b"cat", b"dog"]] * 2, object)), "the most probable classes"),
        ({"logits": np.zeros((2, 2))}, "output probabilities, class_id, class_name, top_k_names, top"),
    ],
)
def test_each_problem_is_reported(answer, problem):
    assert problem in " ".join(client.find_problems(answer, 2, NAMES))


@pytest.mark.parametrize(
    ("error", "is_of_machine"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (OSError("SavedModel file does not exist"), False),
        (tf.errors.InvalidArgumentError(None, None, "bad graph"), False),
    ],
)
def test_a_lack_of_memory_or_space_is_no_fault_of_the_model(error, is_of_machine):
    assert client.is_of_machine(error) is is_of_machine


def test_the_client_does_not_outlive_its_parent(monkeypatch):
    reading, writing = os.pipe()
    stdin = os.dup(0)
    os.dup2(reading, 0)
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    thread = threading.Thread(target=client._end_with_parent)
    thread.start()
    thread.join(0.1)
    assert (thread.is_alive(), ended) == (True, [])
    os.close(writing)
    thread.join()
    os.dup2(stdin, 0)
    for descriptor in (stdin, reading):
        os.close(descriptor)
    assert ended == [client.NO_VERDICT]
