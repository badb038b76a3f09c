import collections

import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from scipy import stats
from sklearn import metrics as sklearn_metrics
from tensorflow_model_analysis.metrics import metric_specs

from components.evaluator import definitions, gates, tfma_metrics
from datasets import features
from settings.evaluation import EvaluationConfig

CLASSES = 4


@pytest.fixture(scope="module")
def scored():
    """Labels and probabilities of 300 examples; class 3 is never predicted, and many maxima are below 0.5."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, 300)
    logits = generator.normal(size=(300, CLASSES)) + 1.2 * np.eye(CLASSES)[labels]
    logits[:, 3] = -9
    exponentials = np.exp(logits)
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def evaluated(scored):
    """TFMA's metrics of `scored`, with the pipeline's EvalConfig: class id or None -> metric -> value."""
    import pandas as pd  # noqa: PLC0415

    labels, probabilities = scored
    eval_config = gates.eval_config(EvaluationConfig(slices=(), corruptions=0), CLASSES, "digest")
    eval_config = tfma.utils.update_eval_config_with_defaults(
        eval_config, has_baseline=False, rubber_stamp=True
    )
    eval_config.model_specs[0].ClearField("signature_name")
    frame = pd.DataFrame({features.LABEL: labels, "probabilities": list(probabilities)})
    return gates._metrics_by_slice(tfma.analyze_raw_data(frame, eval_config))[()]


def test_per_class_metrics_equal_those_of_scikit_learn(scored, evaluated):
    labels, probabilities = scored
    expected = sklearn_metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=range(CLASSES), zero_division=0
    )
    for class_id in range(CLASSES):
        for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            assert evaluated[class_id][name] == pytest.approx(values[class_id], abs=1e-9)
        scores = labels == class_id, probabilities[:, class_id]
        assert evaluated[class_id]["roc_auc"] == pytest.approx(
            sklearn_metrics.roc_auc_score(*scores), abs=1e-6
        )
        assert evaluated[class_id]["pr_auc"] == pytest.approx(
            sklearn_metrics.average_precision_score(*scores), abs=1e-6
        )


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_averages_equal_those_of_scikit_learn(scored, evaluated, average):
    labels, probabilities = scored
    *expected, _ = sklearn_metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), average=average, zero_division=0
    )
    for name, value in zip(("precision", "recall", "f1"), expected, strict=True):
        assert evaluated[None][f"{name}_{average}"] == pytest.approx(value, abs=1e-9)
    one_hot = np.eye(CLASSES)[labels]
    for name, area in [
        ("roc_auc", sklearn_metrics.roc_auc_score),
        ("pr_auc", sklearn_metrics.average_precision_score),
    ]:
        expected_area = area(one_hot, probabilities, average=average)
        assert evaluated[None][f"{name}_{average}"] == pytest.approx(expected_area, abs=1e-6)


def test_overall_metrics_equal_those_of_scikit_learn(scored, evaluated):
    labels, probabilities = scored
    predicted = probabilities.argmax(axis=1)
    accuracy = sklearn_metrics.accuracy_score(labels, predicted)
    assert evaluated[None]["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert evaluated[None]["loss"] == pytest.approx(sklearn_metrics.log_loss(labels, probabilities), abs=1e-6)
    top_2 = sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=2)
    assert evaluated[None]["top_k_accuracy"] == pytest.approx(top_2, abs=1e-6)


def test_the_comparison_with_guessing_equals_that_of_scipy(scored, evaluated):
    labels, probabilities = scored
    correct = int((labels == probabilities.argmax(axis=1)).sum())
    test = stats.binomtest(correct, 300, np.bincount(labels).max() / 300, alternative="greater")
    assert 0.99 < evaluated[None]["confidence_above_guessing"] < 1
    assert evaluated[None]["confidence_above_guessing"] == pytest.approx(1 - test.pvalue, abs=1e-12)


def test_a_class_that_is_never_predicted_is_counted(evaluated):
    assert evaluated[None]["classes_never_predicted"] == 1


def test_the_calibration_error_equals_a_sum_over_explicit_bins(scored, evaluated):
    labels, probabilities = scored
    correct, confidence = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert evaluated[None]["calibration_error"] == pytest.approx(expected, abs=1e-6)


def _scores(*pairs):
    """Returns scores of three classes from (actual, predicted) pairs."""
    actual, predicted = np.array(pairs).T
    return tfma_metrics.Scores(actual, np.eye(3, dtype=np.float32)[predicted])


def test_the_lowest_value_ignores_classes_without_examples():
    scores = _scores(*[(0, 0)] * 8, *[(0, 1)] * 2, (1, 1), (1, 0), (0, 2))
    assert tfma_metrics.average_statistic(scores, "recall", tfma_metrics.LOWEST) == 0.5
    lowest = tfma_metrics.average_statistic(scores, "precision", tfma_metrics.LOWEST)
    assert lowest == pytest.approx(1 / 3)


def test_a_class_without_examples_has_zero_statistics_and_no_area():
    scores = _scores((0, 0), (0, 0), (0, 1))
    assert scores.statistics["precision"][2] == 0
    assert scores.statistics["support"][2] == 0
    assert scores.areas["roc"].by_class == [None, None, None]
    # Classes 1 and 2 have no examples, so the mean leaves them out, although class 1 is predicted.
    assert tfma_metrics.average_statistic(scores, "recall", "macro") == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_areas_with_ties_and_missing_classes_equal_those_of_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, 200)  # classes 5 and 6 have no examples
    probabilities = generator.integers(0, 8, (200, 7)).astype(np.float32) / 8
    areas = definitions.areas(labels, probabilities)
    one_hot = np.eye(7, dtype=int)[labels]
    for curve, area in (
        ("roc", sklearn_metrics.roc_auc_score),
        ("pr", sklearn_metrics.average_precision_score),
    ):
        expected = [area(one_hot[:, i], probabilities[:, i]) for i in range(5)]
        assert areas[curve].by_class[:5] == pytest.approx(expected, abs=1e-12)
        assert areas[curve].by_class[5:] == [None, None]
        macro, micro, weighted = areas[curve].averages
        assert macro == pytest.approx(np.mean(expected), abs=1e-12)
        assert micro == pytest.approx(area(one_hot.ravel(), probabilities.ravel()), abs=1e-12)
        assert weighted == pytest.approx(np.average(expected, weights=np.bincount(labels)), abs=1e-12)


def test_the_cost_of_a_class_does_not_grow_with_their_number(monkeypatch):
    """Each table of a slice is computed once, and each metric is one computation for TFMA."""
    calls = collections.Counter()
    for name in ("confusion_matrix", "areas"):
        original = getattr(definitions, name)
        monkeypatch.setattr(
            definitions, name, lambda *a, name=name, original=original: calls.update([name]) or original(*a)
        )
    classes = 300
    config = gates.eval_config(EvaluationConfig(corruptions=0), classes, "digest")
    computations = metric_specs.to_computations(config.metrics_specs, config)
    derived = [c for c in computations if isinstance(c, tfma.metrics.DerivedMetricComputation)]
    assert (
        len(derived) == sum(len(spec.metrics) for spec in config.metrics_specs) - 1
    )  # the number of examples
    labels = np.arange(600) % classes
    (key,) = {k for c in computations for k in c.keys if k.name == "_scores"}
    values = {key: tfma_metrics.Scores(labels, np.eye(classes, dtype=np.float32)[labels])}
    for computation in derived:
        values.update(computation.result(values))
    assert calls == {"confusion_matrix": 1, "areas": 1}
    by_class = [k for k in values if k.sub_key]
    assert len(by_class) == 6 * classes
    assert all(values[k] == (2 if k.name == "support" else 1) for k in by_class)
