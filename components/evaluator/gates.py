"""The gates that bless a model: builds TFMA's EvalConfig from them, and reads the evaluation's results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from components.evaluator import intervals, sentences, tfma_metrics
from components.evaluator.definitions import AVERAGES, STATISTICS
from components.evaluator.sentences import Kind
from datasets import features
from settings.evaluation import EvaluationConfig

METRICS_MODULE = "components.evaluator.tfma_metrics"
_CURVES = ("roc", "pr")
# Tolerance of a drop: two evaluations of the same model may differ in the last bit.
_ROUNDING = 1e-9

_ABOVE_GUESSING = "confidence_above_guessing"
_NEVER_PREDICTED = "classes_never_predicted"
_CORRUPTED = "corrupted_accuracy"


@dataclasses.dataclass(frozen=True)
class _Rule:
    """A gate of the configuration.

    Attributes:
      setting: name of the field of EvaluationConfig that holds the limit.
      kind: how `metric` is compared with the limit; see `Gate`.
      metric: name of the metric.
      per_class: whether every class has to pass by itself.
      tfma_metric: name of the metric that TFMA compares with the limit; None stands for `metric`.
    """

    setting: str
    kind: Kind
    metric: str
    per_class: bool = False
    tfma_metric: str | None = None


_RULES = (
    _Rule("min_accuracy", "floor", "accuracy"),
    _Rule("min_confidence_above_guessing", "floor", _ABOVE_GUESSING),
    _Rule("max_classes_never_predicted", "ceiling", _NEVER_PREDICTED),
    _Rule("min_f1_macro", "floor", "f1_macro"),
    _Rule("max_calibration_error", "ceiling", "calibration_error"),
    _Rule("min_corrupted_accuracy", "floor", _CORRUPTED),
    _Rule("max_accuracy_drop", "drop", "accuracy"),
    _Rule("min_class_precision", "floor", "precision", per_class=True, tfma_metric="precision_lowest"),
    _Rule("min_class_recall", "floor", "recall", per_class=True, tfma_metric="recall_lowest"),
    _Rule("max_class_precision_drop", "drop", "precision", per_class=True),
    _Rule("max_class_recall_drop", "drop", "recall", per_class=True),
)


@dataclasses.dataclass(frozen=True)
class Gate:
    """The result of a gate.

    Attributes:
      name: name of the metric.
      class_name: name of the class, if every class has to pass the gate; None otherwise.
      setting: key of the limit in the configuration.
      kind: `floor` (lowest value), `ceiling` (highest value), or `drop` (largest difference to the last
        blessed model).
      value: the measured value. For a drop, the last blessed model's value minus this model's, which is
        negative if this model is better.
      limit: the lowest value that passes a floor, or the highest that passes a ceiling or drop.
      passed: whether the model passed the gate.
      sentence: describes the result, with the value and the limit.
    """

    name: str
    class_name: str | None
    setting: str
    kind: Kind
    value: float
    limit: float
    passed: bool
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes as a JSON object, `class_name` under the key `class`."""
        return {"class" if k == "class_name" else k: v for k, v in dataclasses.asdict(self).items()}


def eval_config(config: EvaluationConfig, num_classes: int, source_digest: str) -> config_pb2.EvalConfig:
    """Builds the configuration that evaluates a model by the gates.

    Args:
      config: the gates and the slices.
      num_classes: number of classes; precision, recall, F1 and areas under curves are measured for each.
      source_digest: digest of the evaluation's code; see `tfma_metrics.PredictedClassStatistic`.

    Returns:
      The configuration of TFX's Evaluator. The drop gates apply only if the Evaluator has a baseline model.
    """
    overall = [
        _metric_config("ExampleCount", "example_count"),
        *(
            _project_metric("ProbabilityMetric", figure, figure=figure)
            for figure in tfma_metrics.PROBABILITY_METRICS
        ),
        _project_metric("ConfusionMatrix", "confusion_matrix"),
    ]
    for average in AVERAGES:
        overall += [
            _project_metric(
                "PredictedClassStatistic", f"{statistic}_{average}", statistic=statistic, average=average
            )
            for statistic in STATISTICS
        ]
        overall += [
            _project_metric("AreaUnderCurve", f"{curve}_auc_{average}", curve=curve, average=average)
            for curve in _CURVES
        ]
    overall += [
        _project_metric(
            "PredictedClassStatistic", f"{statistic}_lowest", statistic=statistic, average=tfma_metrics.LOWEST
        )
        for statistic in ("precision", "recall")
    ]
    if config.corruptions:
        overall.append(_project_metric("GivenMetric", _CORRUPTED, images=config.corruptions))
    per_class = [
        _project_metric("PredictedClassStatistic", name, statistic=name, source_digest=source_digest)
        for name in (*STATISTICS, tfma_metrics.SUPPORT)
    ]
    per_class += [_project_metric("AreaUnderCurve", f"{curve}_auc", curve=curve) for curve in _CURVES]
    for rule in _RULES:
        limit = getattr(config, rule.setting)
        if limit is not None:
            candidates = per_class if rule.per_class and not rule.tfma_metric else overall
            name = rule.tfma_metric or rule.metric
            metric = next(m for m in candidates if json.loads(m.config)["name"] == name)
            _add_threshold(metric, rule.kind, limit)
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name="serving_default", label_key=features.LABEL, prediction_key="probabilities"
            )
        ],
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(config_pb2.SlicingSpec(feature_keys=[name]) for name in config.slices),
        ],
        metrics_specs=[
            config_pb2.MetricsSpec(metrics=overall),
            config_pb2.MetricsSpec(
                metrics=per_class,
                binarize=config_pb2.BinarizationOptions(class_ids={"values": range(num_classes)}),
            ),
        ],
    )


def corrupted_images(config: config_pb2.EvalConfig) -> int:
    """Returns on how many corrupted images a configuration from `eval_config` asks to measure a model."""
    metric = _corrupted_metric(config)
    return json.loads(metric.config)["images"] if metric else 0


def set_corrupted_accuracy(
    config: config_pb2.EvalConfig, accuracy: float, worst: str, worst_accuracy: float
) -> None:
    """Adds the accuracy on corrupted images, which TFMA does not measure, to a configuration.

    Args:
      config: the configuration, from `eval_config`, which asks for corrupted images; it is changed.
      accuracy: mean accuracy over all corruptions and strengths.
      worst: name of the corruption with the lowest accuracy, for the sentence of the gate.
      worst_accuracy: mean accuracy over the strengths of that corruption.
    """
    metric = _corrupted_metric(config)
    assert metric is not None
    note = f"lowest with {worst}, {worst_accuracy:.4f}"
    metric.config = json.dumps({**json.loads(metric.config), "value": accuracy, "note": note})


def _corrupted_metric(config: config_pb2.EvalConfig) -> config_pb2.MetricConfig | None:
    metrics = (metric for spec in config.metrics_specs for metric in spec.metrics)
    return next((metric for metric in metrics if metric.class_name == "GivenMetric"), None)


def _metric_config(class_name: str, name: str, **arguments: Any) -> config_pb2.MetricConfig:
    return config_pb2.MetricConfig(class_name=class_name, config=json.dumps({"name": name, **arguments}))


def _project_metric(class_name: str, name: str, **arguments: Any) -> config_pb2.MetricConfig:
    metric = _metric_config(class_name, name, **arguments)
    metric.module = METRICS_MODULE
    return metric


def _add_threshold(metric: config_pb2.MetricConfig, kind: Kind, limit: float) -> None:
    # Restricts the threshold to the whole split; otherwise TFMA would apply it to every slice.
    if not metric.per_slice_thresholds:
        metric.per_slice_thresholds.add(slicing_specs=[config_pb2.SlicingSpec()])
    threshold = metric.per_slice_thresholds[0].threshold
    if kind == "floor":
        threshold.value_threshold.lower_bound.value = limit
    elif kind == "ceiling":
        threshold.value_threshold.upper_bound.value = limit
    else:
        threshold.change_threshold.direction = config_pb2.MetricDirection.HIGHER_IS_BETTER
        threshold.change_threshold.absolute.value = -limit - _ROUNDING


class Evaluation:
    """The results of an evaluation: metrics, slices and gates.

    Attributes:
      has_baseline: whether the model was compared with a baseline model.
      blessed: whether the model passed every gate.
    """

    def __init__(self, directory: str, class_names: Sequence[str]) -> None:
        """Reads an evaluation.

        Args:
          directory: path of the Evaluator's output artifact `evaluation`.
          class_names: names of the classes, in the order of the labels.
        """
        self._class_names = class_names
        result = tfma.load_eval_result(directory, model_name="")
        self.has_baseline = len(result.config.model_specs) > 1
        if self.has_baseline:
            result = tfma.load_eval_result(directory, model_name=tfma.CANDIDATE_KEY)
            baseline_result = tfma.load_eval_result(directory, model_name=tfma.BASELINE_KEY)
            self._baseline = _metrics_by_slice(baseline_result)[()]
        self._slices = _metrics_by_slice(result)
        self._counts = _counts(result, class_names)
        self._limits = _limits(result.config)
        given = _corrupted_metric(result.config)
        self._corrupted_note = json.loads(given.config)["note"] if given else ""
        validation = tfma.load_validation_result(directory)
        self.blessed = validation.validation_ok
        self._failures = {
            (failure.metric_key.name, _class_id(failure.metric_key), kind)
            for slice_validation in validation.metric_validations_per_slice
            for failure in slice_validation.failures
            for kind, _ in _bounds(failure.metric_threshold)
        }

    def metric(self, name: str, class_id: int | None = None) -> float:
        """Returns a metric of the whole split.

        Args:
          name: name of the metric.
          class_id: index of the class; None returns the metric of all classes.

        Returns:
          The value; NaN where the metric is undefined.
        """
        return self._slices[()][class_id][name]

    def gates(self) -> list[Gate]:
        """Returns the result of each gate that was applied.

        Returns:
          One result for a gate of the whole split. For a gate that every class has to pass, the results of
          the classes that failed it; if no class failed, that of the class closest to the limit.

        Raises:
          RuntimeError: the results contradict TFMA's verdict.
        """
        gates: list[Gate] = []
        for rule in _RULES:
            limit = self._limits.get((rule.tfma_metric or rule.metric, rule.kind))
            if limit is None or (rule.kind == "drop" and not self.has_baseline):
                continue
            rows = [self._gate(rule, limit, class_id) for class_id in self._classes_of(rule)]
            closest = sorted(rows, key=lambda gate: gate.value, reverse=rule.kind == "drop")[:1]
            gates += [gate for gate in rows if not gate.passed] or closest
        if all(gate.passed for gate in gates) != self.blessed:
            raise RuntimeError(
                "the gates contradict TFMA's verdict: expected the model to be blessed if and only if it "
                f"passes all gates; found blessed={self.blessed} and {gates}"
            )
        return gates

    def slices(self) -> list[dict[str, Any]]:
        """Returns the metrics of each slice, sorted by feature and value.

        Returns:
          A dictionary for each slice: the `feature` and its `value`, the number of `examples`, the `accuracy`
          with its confidence `interval` ([low, high]), `f1_macro` and `loss`.
        """
        rows = []
        for slice_key in sorted(self._slices, key=str):
            for feature, value in slice_key:
                measured = self._slices[slice_key][None]
                examples = int(measured["example_count"])
                correct = round(measured["accuracy"] * examples)
                rows.append(
                    {
                        "feature": feature,
                        "value": str(value),
                        "examples": examples,
                        "accuracy": measured["accuracy"],
                        "interval": intervals.proportion(correct, examples),
                        "f1_macro": measured["f1_macro"],
                        "loss": measured["loss"],
                    }
                )
        return rows

    def _classes_of(self, rule: _Rule) -> list[int | None]:
        if not rule.per_class:
            return [None]
        # Precision and recall are undefined for a class without examples.
        return [i for i in range(len(self._class_names)) if self.metric(tfma_metrics.SUPPORT, i)]

    def _gate(self, rule: _Rule, limit: float, class_id: int | None) -> Gate:
        value = self.metric(rule.metric, class_id)
        if rule.kind == "drop":
            value = self._baseline[class_id][rule.metric] - value
        # TFMA validates a floor of every class by the lowest value of all classes, and does not report which
        # classes are below it, so each class is compared here.
        failed = value < limit if rule.tfma_metric else (rule.metric, class_id, rule.kind) in self._failures
        class_name = None if class_id is None else self._class_names[class_id]
        setting = f"evaluation.{rule.setting}"
        if rule.metric == _ABOVE_GUESSING:
            sentence = sentences.describe_guessing(self._counts, value, setting, limit, not failed)
        elif rule.metric == _NEVER_PREDICTED:
            sentence = sentences.describe_never_predicted(self._counts, setting, limit)
        else:
            subject = rule.metric.replace("_", " ")
            if class_name is not None:
                subject = f"{subject} of {class_name!r}"
            sentence = sentences.describe(rule.kind, subject, value, setting, limit, not failed)
            if rule.metric == _CORRUPTED:
                sentence += f"; {self._corrupted_note}"
        return Gate(rule.metric, class_name, setting, rule.kind, value, limit, not failed, sentence)


_Values = dict[int | None, dict[str, float]]  # class id, or None for all classes -> metric -> value


def _metrics_by_slice(result: tfma.EvalResult) -> dict[tuple[Any, ...], _Values]:
    """Converts TFMA's nested dictionaries to slice key -> values.

    Metrics that are not numbers (the confusion matrix) are left out. The key of the whole split is ().
    """
    by_slice = {}
    for slice_key, by_output in result.slicing_metrics:
        values: _Values = {}
        for sub_key, by_name in by_output[""].items():
            class_id = int(sub_key.removeprefix("classId:")) if sub_key else None
            values[class_id] = {
                # `float` also parses NaN, which TFMA writes as a string, since JSON has no number for it.
                name: float(value["doubleValue"])
                for name, value in by_name.items()
                if "doubleValue" in value
            }
        by_slice[slice_key] = values
    return by_slice


def _counts(result: tfma.EvalResult, class_names: Sequence[str]) -> sentences.Counts:
    """Counts the images of the whole split by the confusion matrix, of which TFMA leaves out what is 0."""
    whole_split = next(by_output for slice_key, by_output in result.slicing_metrics if not slice_key)
    (matrix,) = whole_split[""][""]["confusion_matrix"]["multiClassConfusionMatrixAtThresholds"]["matrices"]
    cells = [
        (entry.get("actualClassId", 0), entry.get("predictedClassId", 0), entry["numWeightedExamples"])
        for entry in matrix["entries"]
    ]
    actual, predicted, examples = np.array(cells, np.int64).T
    return sentences.Counts(
        class_names,
        actual=np.bincount(actual, examples, len(class_names)).astype(np.int64),
        predicted=np.bincount(predicted, examples, len(class_names)).astype(np.int64),
        correct=int(examples[actual == predicted].sum()),
    )


def _limits(config: config_pb2.EvalConfig) -> dict[tuple[str, Kind], float]:
    """Reads the limits of an EvalConfig: (name of the metric, kind) -> limit."""
    return {
        (json.loads(metric.config)["name"], kind): limit
        for spec in config.metrics_specs
        for metric in spec.metrics
        for slice_threshold in metric.per_slice_thresholds
        for kind, limit in _bounds(slice_threshold.threshold)
    }


def _bounds(threshold: config_pb2.MetricThreshold) -> Iterator[tuple[Kind, float]]:
    """Yields the kinds and limits that `_add_threshold` stored in a threshold."""
    if threshold.value_threshold.HasField("lower_bound"):
        yield "floor", threshold.value_threshold.lower_bound.value
    if threshold.value_threshold.HasField("upper_bound"):
        yield "ceiling", threshold.value_threshold.upper_bound.value
    if threshold.HasField("change_threshold"):
        yield "drop", max(0.0, -threshold.change_threshold.absolute.value - _ROUNDING)


def _class_id(key: Any) -> int | None:
    return key.sub_key.class_id.value if key.sub_key.HasField("class_id") else None
