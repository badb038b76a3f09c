import json
import math
import time

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from components.evaluator import definitions
from components.model_report import scores
from components.model_report.predictions import Predictions

pytestmark = pytest.mark.filterwarnings("error")
NAMES = ["cat", "dog", "never seen"]


def constant_confidence(labels, predicted, num_classes, probability=0.8):
    """Returns predictions in which every predicted class has the same probability."""
    chosen = np.eye(num_classes, dtype=bool)[predicted]
    rest = (1 - probability) / max(1, num_classes - 1)
    probabilities = np.where(chosen, probability, rest).astype(np.float32)
    return Predictions([str(i) for i in range(len(labels))], np.asarray(labels), probabilities)


def random(count, num_classes, seed=0):
    """Returns predictions that are better than chance; each class is rarer than the one before."""
    generator = np.random.default_rng(seed)
    weights = 1 / np.arange(1, num_classes + 1)
    labels = generator.choice(num_classes, count, p=weights / weights.sum())
    scores = generator.normal(size=(count, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Predictions([str(i) for i in range(count)], labels, probabilities.astype(np.float32))


def compute(predictions):
    """Computes the metrics and checks that JSON can hold them, which excludes NaN."""
    computed = scores.compute(predictions, [f"class {i}" for i in range(predictions.probabilities.shape[1])])
    assert json.loads(json.dumps(computed, allow_nan=False)) == computed
    return computed


@pytest.fixture
def five():
    """Three cats, one predicted as dog; two dogs, one predicted as cat; no example of the third class."""
    return constant_confidence([0, 0, 0, 1, 1], [0, 0, 1, 1, 0], 3)


def test_metrics_in_closed_form(five):
    computed = scores.compute(five, NAMES)
    assert computed["examples"] == 5
    assert computed["accuracy"] == 3 / 5
    # With three classes, k is half of them, rounded down.
    assert (computed["top_k"], computed["top_k_accuracy"]) == (1, 3 / 5)
    assert computed["loss"] == pytest.approx(-(3 * np.log(0.8) + 2 * np.log(0.1)) / 5, abs=1e-6)
    assert computed["calibration_error"] == pytest.approx(0.8 - 3 / 5, abs=1e-6)
    assert computed["confusion_matrix"] == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    # The third class has no examples and is never predicted, so the averages leave it out.
    for name in ("precision", "recall", "f1"):
        assert computed[f"{name}_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)
        assert computed[f"{name}_micro"] == pytest.approx(3 / 5)
        assert computed[f"{name}_weighted"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2) / 5)


def test_classes_in_closed_form(five):
    cat, dog, never_seen = scores.compute(five, NAMES)["classes"]
    intervals = cat.pop("intervals")
    assert cat == {
        "name": "cat",
        "support": 3,
        "predicted": 3,
        **dict.fromkeys(("precision", "recall", "f1"), pytest.approx(2 / 3)),
        # Of the six pairs of a cat and a dog, two are ranked correctly, three are tied, one is reversed.
        "roc_auc": pytest.approx((2 + 3 / 2) / 6),
        # Precision is 2/3 at the first step, which reaches a recall of 2/3, and 3/5 at the second.
        "pr_auc": pytest.approx(2 / 3 * 2 / 3 + 1 / 3 * 3 / 5),
    }
    assert all(low < 2 / 3 < high for low, high in intervals.values())
    assert dog["f1"] == pytest.approx(1 / 2)
    assert never_seen == {
        "name": "never seen",
        "support": 0,
        "predicted": 0,
        **dict.fromkeys(("precision", "recall", "f1", "roc_auc", "pr_auc")),
        "intervals": {"precision": None, "recall": None, "f1": None},
    }


@pytest.mark.parametrize("num_classes", [2, 3, 12])
def test_everything_agrees_with_scikit_learn(num_classes):
    predictions = random(600, num_classes)
    computed = compute(predictions)
    labels, probabilities, predicted = predictions.labels, predictions.probabilities, predictions.predicted
    one_hot = np.eye(num_classes, dtype=int)[labels]
    assert computed["accuracy"] == sklearn_metrics.accuracy_score(labels, predicted)
    assert computed["loss"] == pytest.approx(sklearn_metrics.log_loss(labels, probabilities))
    assert computed["confusion_matrix"] == sklearn_metrics.confusion_matrix(labels, predicted).tolist()
    for name, score in {
        "precision": sklearn_metrics.precision_score,
        "recall": sklearn_metrics.recall_score,
        "f1": sklearn_metrics.f1_score,
    }.items():
        for average in ("macro", "micro", "weighted"):
            assert computed[f"{name}_{average}"] == pytest.approx(score(labels, predicted, average=average))
        by_class = score(labels, predicted, average=None)
        assert [each[name] for each in computed["classes"]] == pytest.approx(by_class)
    for name, score in {
        "roc_auc": sklearn_metrics.roc_auc_score,
        "pr_auc": sklearn_metrics.average_precision_score,
    }.items():
        for average in ("macro", "micro", "weighted"):
            expected = score(one_hot, probabilities, average=average)
            assert computed[f"{name}_{average}"] == pytest.approx(expected)
        by_class = score(one_hot, probabilities, average=None)
        assert [each[name] for each in computed["classes"]] == pytest.approx(by_class)
    assert [each["support"] for each in computed["classes"]] == np.bincount(labels).tolist()
    assert [each["predicted"] for each in computed["classes"]] == np.bincount(predicted).tolist()


def test_top_k_accuracy_agrees_with_scikit_learn():
    predictions = random(600, 12)
    computed = compute(predictions)
    expected = sklearn_metrics.top_k_accuracy_score(
        predictions.labels, predictions.probabilities, k=computed["top_k"]
    )
    assert (computed["top_k"], computed["top_k_accuracy"]) == (5, expected)


@pytest.mark.parametrize(("num_classes", "expected"), [(2, 1), (3, 1), (4, 2), (9, 4), (10, 5), (200, 5)])
def test_k_is_five_or_half_the_classes(num_classes, expected):
    assert definitions.top_k(num_classes) == expected


def test_intervals_agree_with_the_normal_approximation():
    predictions = random(10_000, 3)
    computed = compute(predictions)

    def check(interval, share, count):
        margin = 1.96 * math.sqrt(share * (1 - share) / count)
        # With 1,000 samples, the ends of the interval vary by about a twentieth of the margin.
        assert interval == pytest.approx([share - margin, share + margin], abs=0.2 * margin)

    check(computed["intervals"]["accuracy"], computed["accuracy"], 10_000)
    for each in computed["classes"]:
        check(each["intervals"]["recall"], each["recall"], each["support"])
        check(each["intervals"]["precision"], each["precision"], each["predicted"])
    # The recalls of different classes are nearly independent, so that their variances add up.
    variances = [each["recall"] * (1 - each["recall"]) / each["support"] for each in computed["classes"]]
    margin = 1.96 * math.sqrt(sum(variances)) / 3
    expected = [computed["recall_macro"] - margin, computed["recall_macro"] + margin]
    assert computed["intervals"]["recall_macro"] == pytest.approx(expected, abs=0.2 * margin)


def test_intervals_contain_the_metric():
    computed = compute(random(500, 12))
    names = {"accuracy", "precision_macro", "recall_macro", "f1_macro", "calibration_error"}
    assert set(computed["intervals"]) == names
    measured = [(computed[name], interval) for name, interval in computed["intervals"].items()]
    for each in computed["classes"]:
        measured += [(each[name], interval) for name, interval in each["intervals"].items()]
    assert all(0 <= low < value < high <= 1 for value, (low, high) in measured)


def test_a_bootstrap_sample_ignores_classes_without_examples():
    # About a third of the samples have no example of class 1, and none has an example of class 2.
    computed = compute(constant_confidence([0, 0, 0, 1], [0, 0, 0, 1], 3))
    assert computed["classes"][1]["intervals"]["f1"] == [1, 1]
    of_the_matrix = (name for name in computed["intervals"] if name != "calibration_error")
    assert {tuple(computed["intervals"][name]) for name in of_the_matrix} == {(1, 1)}


def test_averages_leave_out_classes_without_examples():
    # Class 1 has no examples but is predicted; class 3 has no examples and is never predicted.
    predictions = constant_confidence([0, 0, 0, 2, 2, 2], [0, 0, 1, 2, 2, 0], 4)
    computed = compute(predictions)
    for i in (1, 3):
        each = computed["classes"][i]
        assert [each[key] for key in ("precision", "recall", "f1", "roc_auc", "pr_auc")] == [None] * 5
        assert each["intervals"] == {"precision": None, "recall": None, "f1": None}
    assert computed["classes"][1]["predicted"] == 1
    one_hot = np.eye(4, dtype=int)[predictions.labels]
    present = [0, 2]
    for average, classes in (("macro", present), ("micro", None), ("weighted", None)):
        expected = sklearn_metrics.f1_score(
            predictions.labels, predictions.predicted, labels=classes, average=average, zero_division=0
        )
        assert computed[f"f1_{average}"] == pytest.approx(expected)
    for average in ("macro", "weighted"):
        for name, score in {
            "roc_auc": sklearn_metrics.roc_auc_score,
            "pr_auc": sklearn_metrics.average_precision_score,
        }.items():
            expected = score(one_hot[:, present], predictions.probabilities[:, present], average=average)
            assert computed[f"{name}_{average}"] == pytest.approx(expected)
    assert computed["roc_auc_micro"] == pytest.approx(
        sklearn_metrics.roc_auc_score(one_hot, predictions.probabilities, average="micro")
    )
    assert computed["recall_macro"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    low, high = computed["intervals"]["recall_macro"]
    assert low < computed["recall_macro"] < high


def test_a_model_that_predicts_one_class_only():
    computed = compute(constant_confidence([0, 0, 1, 2], [1, 1, 1, 1], 3))
    assert computed["accuracy"] == 1 / 4
    assert [each["recall"] for each in computed["classes"]] == [0, 1, 0]
    assert [each["precision"] for each in computed["classes"]] == [0, 1 / 4, 0]
    assert [each["predicted"] for each in computed["classes"]] == [0, 4, 0]
    # All probabilities are equal, so the model ranks nothing.
    assert [each["roc_auc"] for each in computed["classes"]] == [0.5] * 3
    assert [each["pr_auc"] for each in computed["classes"]] == [1 / 2, 1 / 4, 1 / 4]
    # Neither of the two examples is right; the upper end of Wilson's interval is then z^2 / (n + z^2).
    assert computed["classes"][0]["intervals"]["recall"] == pytest.approx(
        [0, 1.96**2 / (2 + 1.96**2)], abs=1e-4
    )
    assert computed["most_confused"] == [
        {"actual": "class 0", "predicted": "class 1", "count": 2, "share": 1},
        {"actual": "class 2", "predicted": "class 1", "count": 1, "share": 1},
    ]


def test_a_perfect_model_has_perfect_metrics():
    computed = compute(constant_confidence([0, 1, 2, 2], [0, 1, 2, 2], 3, probability=1.0))
    averaged = [key for key in computed if key.endswith(("_macro", "_micro", "_weighted"))]
    assert len(averaged) == 5 * 3
    assert {computed[key] for key in [*averaged, "accuracy", "top_k_accuracy"]} == {1}
    assert computed["loss"] == pytest.approx(0, abs=1e-6)
    assert computed["calibration_error"] == 0
    assert computed["most_confused"] == []
    assert computed["intervals"]["f1_macro"] == [1, 1]


def test_examples_of_a_single_class_have_no_area_under_a_curve():
    computed = compute(constant_confidence([1, 1, 1], [1, 1, 0], 2))
    assert [each["roc_auc"] for each in computed["classes"]] == [None, None]
    averages = [f"{name}_{average}" for name in ("roc_auc", "pr_auc") for average in definitions.AVERAGES]
    assert [computed[name] for name in averages] == [None] * 6
    assert computed["classes"][1]["recall"] == pytest.approx(2 / 3)


def test_200_classes_take_a_few_seconds():
    start = time.monotonic()
    computed = compute(random(10_000, 200))
    assert time.monotonic() - start < 30
    assert len(computed["classes"]) == 200
    assert len(computed["most_confused"]) == 10


def test_most_confused_pairs_are_sorted_mistakes():
    matrix = np.array([[8, 1, 1], [3, 9, 0], [1, 0, 0]])
    assert scores.most_confused(matrix, NAMES) == [
        {"actual": "dog", "predicted": "cat", "count": 3, "share": 3 / 12},
        # Pairs with the same count are in the order of the classes.
        {"actual": "cat", "predicted": "dog", "count": 1, "share": 1 / 10},
        {"actual": "cat", "predicted": "never seen", "count": 1, "share": 1 / 10},
        {"actual": "never seen", "predicted": "cat", "count": 1, "share": 1},
    ]


def test_a_ratio_with_denominator_zero_is_zero():
    ratios = definitions.statistics(np.array([0, 2, 0]), np.array([0, 4, 3]), np.array([0, 3, 0]))
    assert ratios["precision"] == pytest.approx([0, 2 / 3, 0])
    assert ratios["recall"] == pytest.approx([0, 1 / 2, 0])
    assert ratios["f1"] == pytest.approx([0, 4 / 7, 0])
