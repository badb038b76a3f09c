import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from sklearn import metrics as sklearn_metrics

from models import features
from pipeline import config, evaluation, metrics

CLASSES = 4


@pytest.fixture(scope="module")
def scored():
    """Labels and probabilities of 300 examples; class 3 is never predicted, many maxima are under 0.5."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, 300)
    logits = generator.normal(size=(300, CLASSES)) + 1.2 * np.eye(CLASSES)[labels]
    logits[:, 3] = -9
    exponentials = np.exp(logits)
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def evaluated(scored):
    """What TFMA measures of them, by the pipeline's own EvalConfig: {class or None: {metric: value}}."""
    import pandas as pd  # noqa: PLC0415

    labels, probabilities = scored
    eval_config = evaluation.eval_config(config.EvaluationConfig(), CLASSES)
    eval_config = tfma.utils.update_eval_config_with_defaults(
        eval_config, has_baseline=False, rubber_stamp=True
    )
    eval_config.model_specs[0].ClearField("signature_name")
    frame = pd.DataFrame({features.LABEL: labels, "probabilities": list(probabilities)})
    result = tfma.analyze_raw_data(frame, eval_config)
    (slice_metrics,) = [m for _, m in result.slicing_metrics]
    by_class = {}
    for sub_key, values in slice_metrics[""].items():
        class_id = int(sub_key.removeprefix("classId:")) if sub_key else None
        by_class[class_id] = {name: value.get("doubleValue") for name, value in values.items()}
    return by_class


def test_per_class_metrics_are_those_of_scikit_learn(scored, evaluated):
    labels, probabilities = scored
    expected = sklearn_metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=range(CLASSES), zero_division=0
    )
    for class_id in range(CLASSES):
        for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
            assert evaluated[class_id][name] == pytest.approx(values[class_id], abs=1e-9)


def test_overall_metrics_are_those_of_scikit_learn(scored, evaluated):
    labels, probabilities = scored
    predicted = probabilities.argmax(axis=1)
    macro = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0
    )
    for name, value in zip(("precision_macro", "recall_macro", "f1_macro"), macro, strict=False):
        assert evaluated[None][name] == pytest.approx(value, abs=1e-9)
    assert evaluated[None]["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    assert evaluated[None]["loss"] == pytest.approx(sklearn_metrics.log_loss(labels, probabilities), abs=1e-6)


def test_statistics_without_any_case_are_zero():
    assert metrics.precision(0, 0, 5) == 0
    assert metrics.recall(0, 5, 0) == 0
    assert metrics.f1(0, 0, 0) == 0
    assert np.isnan(metrics.from_confusion([], metrics.f1, None))
