import json

import numpy as np
import pytest
from sklearn import metrics

from components.model_report import comparison
from components.model_report.predictions import Predictions
from models import reliability

NAMES = ["cat", "<b>dog</b>", "$ü$"]


def predict(predicted, labels, ids=None, confidence=0.8, num_classes=3):
    """Returns predictions with probability `confidence`; the other classes share the rest equally."""
    rest = (1 - confidence) / (num_classes - 1)
    probabilities = np.where(np.eye(num_classes)[list(predicted)] > 0, confidence, rest)
    ids = [f"id{i}" for i in range(len(labels))] if ids is None else ids
    return Predictions(ids, np.array(labels), probabilities.astype(np.float32))


def random_pair(count, num_classes, seed=0):
    """Returns the predictions of two models of different accuracy that often fail on the same examples."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=count)
    shared = generator.normal(size=(count, num_classes))

    def random_predictions(skill):
        scores = shared + 0.5 * generator.normal(size=(count, num_classes))
        scores[np.arange(count), labels] += skill
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        return Predictions([str(i) for i in range(count)], labels, probabilities.astype(np.float32))

    return random_predictions(1.0), random_predictions(1.3)


def by_name(entries):
    return {entry["name"]: entry for entry in entries}


def test_a_small_case_by_hand():
    labels = [0, 0, 1, 1]
    result = comparison.compare(predict([0, 1, 1, 0], labels), predict([0, 0, 0, 0], labels), NAMES)
    assert (result["examples"], result["only_a"], result["only_b"]) == (4, 0, 0)
    accuracy = by_name(result["metrics"])["accuracy"]
    assert (accuracy["a"], accuracy["b"], accuracy["difference"]) == (0.5, 0.5, 0.0)
    assert result["mcnemar"] == {"only_a_right": 1, "only_b_right": 1, "p_value": 1.0}
    cat, dog, absent = result["classes"]
    assert (cat["support"], cat["recall_a"], cat["recall_b"], cat["recall_difference"]) == (2, 0.5, 1.0, 0.5)
    assert (dog["precision_a"], dog["precision_b"], dog["f1_b"]) == (0.5, 0.0, 0.0)
    assert absent.pop("support") == 0
    assert absent.pop("name") == "$ü$"
    assert len(absent) == 10
    assert set(absent.values()) == {None}
    changed = {"a": "<b>dog</b>", "b": "cat", "confidence_b": pytest.approx(0.8)}
    assert result["became_right"] == [{"id": "id1", "label": "cat", **changed}]
    assert result["became_wrong"] == [{"id": "id2", "label": "<b>dog</b>", **changed}]
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("num_classes", [2, 10, 200])
def test_metrics_agree_with_scikit_learn(num_classes):
    pair = random_pair(500, num_classes)
    names = [f"class {i}" for i in range(num_classes)]
    result = by_name(comparison.compare(*pair, names)["metrics"])
    for side, model in zip("ab", pair, strict=True):
        labels, predicted = model.labels, model.predicted
        macro = {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
        expected = {
            "accuracy": metrics.accuracy_score(labels, predicted),
            "precision_macro": metrics.precision_score(labels, predicted, **macro),
            "recall_macro": metrics.recall_score(labels, predicted, **macro),
            "f1_macro": metrics.f1_score(labels, predicted, **macro),
            "loss": metrics.log_loss(labels, model.probabilities, labels=np.arange(num_classes)),
            "calibration_error": reliability.calibration_error(
                reliability.calibration_bins(labels, model.probabilities)
            ),
        }
        assert {name: entry[side] for name, entry in result.items()} == pytest.approx(expected, abs=1e-6)


def test_the_width_of_intervals_agrees_with_the_variance_of_the_paired_differences():
    a, b = random_pair(4000, 5)
    result = comparison.compare(a, b, list("vwxyz"))
    metrics_by_name = by_name(result["metrics"])
    label_of_each = (np.arange(4000), a.labels)
    per_example = {
        "accuracy": (b.predicted == b.labels).astype(float) - (a.predicted == a.labels),
        "loss": np.log(a.probabilities[label_of_each]) - np.log(b.probabilities[label_of_each]),
    }
    for name, differences in per_example.items():
        low, high = metrics_by_name[name]["interval"]
        assert metrics_by_name[name]["difference"] == pytest.approx(differences.mean(), abs=1e-6)
        # The central limit theorem gives the expected width; 1,000 samples leave an error of about 5 %.
        assert high - low == pytest.approx(2 * 1.96 * differences.std() / np.sqrt(4000), rel=0.15)
        assert low < differences.mean() < high
    for entry in result["classes"]:
        low, high = entry["recall_interval"]
        assert low <= entry["recall_difference"] <= high


def test_a_model_compared_with_itself_shows_no_difference():
    a, _ = random_pair(300, 4)
    result = comparison.compare(a, a, list("wxyz"))
    assert all(entry["difference"] == 0 for entry in result["metrics"])
    assert all(entry["interval"] == [0, 0] for entry in result["metrics"])
    assert result["mcnemar"]["p_value"] == 1
    assert result["became_wrong"] == result["became_right"] == []


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    labels = [0] * 6
    result = comparison.compare(predict([1] * 5 + [0], labels), predict([0] * 6, labels), NAMES)
    # Two-sided: five of five discordant pairs in favour of one model has probability 2 / 2^5.
    assert result["mcnemar"] == {"only_a_right": 0, "only_b_right": 5, "p_value": pytest.approx(2 / 32)}


def test_examples_are_joined_by_id_in_any_order():
    a = predict([0, 1, 2], [0, 1, 1], ["x", "y", "z"])
    b = predict([1, 1, 0], [1, 1, 0], ["z", "y", "only b"])
    result = comparison.compare(a, b, NAMES)
    assert (result["examples"], result["only_a"], result["only_b"]) == (2, 1, 1)
    assert [(entry["id"], entry["a"]) for entry in result["became_right"]] == [("z", "$ü$")]


def test_images_that_became_wrong_are_sorted_by_confidence():
    labels = [0, 0, 0]
    b = predict([1, 1, 1], labels)
    b.probabilities[:, 1] = [0.7, 0.9, 0.8]
    result = comparison.compare(predict(labels, labels), b, NAMES)
    assert [entry["id"] for entry in result["became_wrong"]] == ["id1", "id2", "id0"]


def test_intervals_depend_on_the_seed_only():
    a, b = random_pair(200, 3)
    assert comparison.compare(a, b, NAMES) == comparison.compare(a, b, NAMES)
    assert comparison.compare(a, b, NAMES, seed=1) != comparison.compare(a, b, NAMES)


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (predict([0, 1], [0, 1], ["u", "v"]), "no common id among the 2 images of the first"),
        (predict([0, 1], [0, 1], ["id0", "id0"]), "found duplicates from the second model"),
        (predict([0, 1], [0, 2]), "found 1 that differ, the first of them id1"),
        (
            predict([0, 1], [0, 1], num_classes=4),
            "expected predictions of 3 classes, found 4 from the second",
        ),
    ],
)
def test_models_that_cannot_be_compared_are_refused(b, message):
    with pytest.raises(comparison.ComparisonError, match=message):
        comparison.compare(predict([0, 1], [0, 1]), b, NAMES)
