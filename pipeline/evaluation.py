"""What is measured on the test split, and what blesses a model: TFMA's EvalConfig."""

from __future__ import annotations

import json

import tensorflow_model_analysis as tfma

from models import features
from pipeline.config import EvaluationConfig

_METRICS_MODULE = "pipeline.metrics"
_PER_CLASS = {
    "precision": "PredictedClassPrecision",
    "recall": "PredictedClassRecall",
    "f1": "PredictedClassF1",
}
# Accuracies of two evaluations of one model may differ in the last bit; that is not a change.
_ROUNDING = 1e-9


def eval_config(config: EvaluationConfig, num_classes: int) -> tfma.EvalConfig:
    """Builds the evaluation of a model against the gates and, where there is one, against a baseline.

    Args:
      config: the gates.
      num_classes: number of classes; precision, recall and F1 are measured for each.

    Returns:
      The configuration of TFX's Evaluator. Without a baseline, only the absolute gates count.
    """
    accuracy = tfma.MetricConfig(
        class_name="SparseCategoricalAccuracy",
        config=json.dumps({"name": "accuracy"}),
        threshold=tfma.MetricThreshold(
            value_threshold=tfma.GenericValueThreshold(lower_bound={"value": config.min_accuracy}),
            change_threshold=tfma.GenericChangeThreshold(
                direction=tfma.MetricDirection.HIGHER_IS_BETTER,
                absolute={"value": -config.max_accuracy_drop - _ROUNDING},
            ),
        ),
    )
    overall = [
        tfma.MetricConfig(class_name="ExampleCount"),
        accuracy,
        tfma.MetricConfig(class_name="SparseCategoricalCrossentropy", config=json.dumps({"name": "loss"})),
        tfma.MetricConfig(
            class_name="MultiClassConfusionMatrixAtThresholds",
            config=json.dumps({"name": "confusion_matrix", "thresholds": [0.0]}),
        ),
    ]
    macro = [_predicted_class_metric(name, f"{name}_macro") for name in _PER_CLASS]
    per_class = tfma.MetricsSpec(
        metrics=[_predicted_class_metric(name, name) for name in _PER_CLASS],
        binarize=tfma.BinarizationOptions(class_ids={"values": range(num_classes)}),
    )
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name="serving_default", label_key=features.LABEL, prediction_key="probabilities"
            )
        ],
        slicing_specs=[tfma.SlicingSpec()],
        metrics_specs=[tfma.MetricsSpec(metrics=[*overall, *macro]), per_class],
    )


def _predicted_class_metric(statistic: str, name: str) -> tfma.MetricConfig:
    return tfma.MetricConfig(
        class_name=_PER_CLASS[statistic], module=_METRICS_MODULE, config=json.dumps({"name": name})
    )


def failed_gates(evaluation_directory: str) -> list[str]:
    """Says why a model was not blessed.

    Args:
      evaluation_directory: the Evaluator's output.

    Returns:
      One sentence for each failed gate, with the measured figure and its limit; empty when blessed.
    """
    result = tfma.load_validation_result(evaluation_directory)
    sentences = []
    for on_slice in result.metric_validations_per_slice:
        for failure in on_slice.failures:
            name = failure.metric_key.name
            value = failure.metric_value.double_value.value
            threshold = failure.metric_threshold
            if threshold.HasField("value_threshold"):
                floor = threshold.value_threshold.lower_bound.value
                sentences.append(f"{name} {value:.4f} is under evaluation.min_accuracy, {floor:.4f}")
            else:
                allowed = -threshold.change_threshold.absolute.value - _ROUNDING
                sentences.append(
                    f"{name} is {-value:.4f} under the last blessed model's; "
                    f"evaluation.max_accuracy_drop allows {max(allowed, 0):.4f}"
                )
    if not result.validation_ok and not sentences:
        sentences.append(
            f"the evaluation was incomplete: {result.missing_thresholds or result.missing_slices}"
        )
    return sentences
