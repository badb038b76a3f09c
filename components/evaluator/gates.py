"""What is measured on the test split, and what blesses a model: TFMA's EvalConfig and what came of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import tensorflow_model_analysis as tfma

from components.evaluator import intervals, tfma_metrics
from components.evaluator.definitions import AVERAGES, STATISTICS
from datasets import features
from settings.evaluation import EvaluationConfig

METRICS_MODULE = "components.evaluator.tfma_metrics"
_CURVES = ("roc", "pr")
# Two evaluations of one model may differ in the last bit; that is not a change.
_ROUNDING = 1e-9

Kind = Literal["floor", "ceiling", "drop"]


@dataclasses.dataclass(frozen=True)
class _Rule:
    """A gate as the configuration knows it: `setting` bounds `metric`, of each class or of all."""

    setting: str
    kind: Kind
    metric: str
    per_class: bool = False
    # The metric that TFMA compares with the bound, where it is not `metric` itself.
    gated: str | None = None


_RULES = (
    _Rule("min_accuracy", "floor", "accuracy"),
    _Rule("min_f1_macro", "floor", "f1_macro"),
    _Rule("max_calibration_error", "ceiling", "calibration_error"),
    _Rule("max_accuracy_drop", "drop", "accuracy"),
    _Rule("min_class_precision", "floor", "precision", per_class=True, gated="precision_lowest"),
    _Rule("min_class_recall", "floor", "recall", per_class=True, gated="recall_lowest"),
    _Rule("max_class_precision_drop", "drop", "precision", per_class=True),
    _Rule("max_class_recall_drop", "drop", "recall", per_class=True),
)


@dataclasses.dataclass(frozen=True)
class Gate:
    """What became of a gate.

    Attributes:
      name: of the metric.
      class_name: of the class, of a gate that every class has to pass; None otherwise.
      setting: the key in the configuration.
      kind: `floor`, `ceiling`, or `drop` (against the last blessed model).
      value: what was measured; of a drop, how far the metric is under the last blessed model's, negative
        where it is over it.
      limit: the lowest or highest value that passes.
      passed: whether it did.
    """

    name: str
    class_name: str | None
    setting: str
    kind: Kind
    value: float
    limit: float
    passed: bool

    @property
    def sentence(self) -> str:
        """The gate in words, with the figure and its limit."""
        what = self.name.replace("_", " ")
        if self.class_name is not None:
            what = f"{what} of {self.class_name!r}"
        if self.kind == "drop":
            if self.passed and self.value <= 0:
                return f"{what} is not under the last blessed model's"
            limit = f"{self.setting} allows {self.limit:.4f}"
            return f"{what} is {self.value:.4f} under the last blessed model's; {limit}"
        words = {
            ("floor", True): "is at least",
            ("floor", False): "is under",
            ("ceiling", True): "is at most",
            ("ceiling", False): "is over",
        }
        return f"{what} {self.value:.4f} {words[self.kind, self.passed]} {self.setting}, {self.limit:.4f}"

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as values that JSON can hold, the class under `class`."""
        values = {"class": self.class_name, "sentence": self.sentence}
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "class_name"} | values


def eval_config(config: EvaluationConfig, num_classes: int, source_digest: str) -> tfma.EvalConfig:
    """Builds the evaluation of a model against the gates and, where there is one, against a baseline.

    Args:
      config: the gates and the slices.
      num_classes: number of classes; precision, recall, F1 and areas are measured for each.
      source_digest: of the code of the metrics; see `pipeline.metrics.OfPredictedClass`.

    Returns:
      The configuration of TFX's Evaluator. Without a baseline, only the absolute gates count.
    """
    overall = [
        _metric("ExampleCount", "example_count"),
        *(
            _own("OfProbabilities", figure, figure=figure)
            for figure in ("accuracy", "loss", "top_k_accuracy", "calibration_error")
        ),
        _own("ConfusionMatrix", "confusion_matrix"),
    ]
    for average in AVERAGES:
        overall += [
            _own("OfPredictedClass", f"{statistic}_{average}", statistic=statistic, average=average)
            for statistic in STATISTICS
        ]
        overall += [
            _own("AreaUnderCurve", f"{curve}_auc_{average}", curve=curve, average=average)
            for curve in _CURVES
        ]
    overall += [
        _own("OfPredictedClass", f"{statistic}_lowest", statistic=statistic, average=tfma_metrics.LOWEST)
        for statistic in ("precision", "recall")
    ]
    per_class = [
        _own("OfPredictedClass", name, statistic=name, source_digest=source_digest)
        for name in (*STATISTICS, tfma_metrics.SUPPORT)
    ]
    per_class += [_own("AreaUnderCurve", f"{curve}_auc", curve=curve) for curve in _CURVES]
    for rule in _RULES:
        limit = getattr(config, rule.setting)
        if limit is not None:
            measured = per_class if rule.per_class and not rule.gated else overall
            name = rule.gated or rule.metric
            gated = next(m for m in measured if json.loads(m.config)["name"] == name)
            _add_threshold(gated, rule.kind, limit)
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name="serving_default", label_key=features.LABEL, prediction_key="probabilities"
            )
        ],
        slicing_specs=[
            tfma.SlicingSpec(),
            *(tfma.SlicingSpec(feature_keys=[name]) for name in config.slices),
        ],
        metrics_specs=[
            tfma.MetricsSpec(metrics=overall),
            tfma.MetricsSpec(
                metrics=per_class, binarize=tfma.BinarizationOptions(class_ids={"values": range(num_classes)})
            ),
        ],
    )


def _metric(class_name: str, name: str, **arguments: Any) -> tfma.MetricConfig:
    return tfma.MetricConfig(class_name=class_name, config=json.dumps({"name": name, **arguments}))


def _own(class_name: str, name: str, **arguments: Any) -> tfma.MetricConfig:
    metric = _metric(class_name, name, **arguments)
    metric.module = METRICS_MODULE
    return metric


def _add_threshold(metric: tfma.MetricConfig, kind: Kind, limit: float) -> None:
    # Of the whole split: a plain threshold would have to hold in every slice.
    if not metric.per_slice_thresholds:
        metric.per_slice_thresholds.add(slicing_specs=[tfma.SlicingSpec()])
    threshold = metric.per_slice_thresholds[0].threshold
    if kind == "floor":
        threshold.value_threshold.lower_bound.value = limit
    elif kind == "ceiling":
        threshold.value_threshold.upper_bound.value = limit
    else:
        threshold.change_threshold.direction = tfma.MetricDirection.HIGHER_IS_BETTER
        threshold.change_threshold.absolute.value = -limit - _ROUNDING


class Evaluation:
    """What the Evaluator wrote: metrics, slices, and what became of each gate.

    Attributes:
      has_baseline: whether the model was compared with an earlier one.
      blessed: whether every gate was passed.
    """

    def __init__(self, directory: str, class_names: Sequence[str]) -> None:
        """Reads an evaluation.

        Args:
          directory: the Evaluator's output.
          class_names: by label.
        """
        self._class_names = class_names
        result = tfma.load_eval_result(directory, model_name="")
        self.has_baseline = len(result.config.model_specs) > 1
        if self.has_baseline:
            result = tfma.load_eval_result(directory, model_name=tfma.CANDIDATE_KEY)
            self._baseline = _by_slice(tfma.load_eval_result(directory, model_name=tfma.BASELINE_KEY))[()]
        self._parts = _by_slice(result)
        self._limits = _limits(result.config)
        validation = tfma.load_validation_result(directory)
        self.blessed = validation.validation_ok
        self._failures = {
            (failure.metric_key.name, _class_id(failure.metric_key), kind)
            for part in validation.metric_validations_per_slice
            for failure in part.failures
            for kind, _ in _bounds(failure.metric_threshold)
        }

    def metric(self, name: str, class_id: int | None = None) -> float:
        """Returns a metric of the whole split; NaN where it is not defined."""
        return self._parts[()][class_id][name]

    def gates(self) -> list[Gate]:
        """Says what became of each gate that was applied.

        Returns:
          For a gate that every class has to pass, the classes that failed it; if none did, the class
          that came closest.

        Raises:
          RuntimeError: the gates and TFMA's verdict contradict each other.
        """
        gates: list[Gate] = []
        for rule in _RULES:
            limit = self._limits.get((rule.gated or rule.metric, rule.kind))
            if limit is None or (rule.kind == "drop" and not self.has_baseline):
                continue
            rows = [self._gate(rule, limit, class_id) for class_id in self._classes_of(rule)]
            closest = sorted(rows, key=lambda gate: gate.value, reverse=rule.kind == "drop")[:1]
            gates += [gate for gate in rows if not gate.passed] or closest
        if all(gate.passed for gate in gates) != self.blessed:
            raise RuntimeError(f"TFMA's verdict, blessed: {self.blessed}, does not follow from {gates}")
        return gates

    def slices(self) -> list[dict[str, Any]]:
        """Lists the parts of the split, by feature: `feature`, `value`, `examples`, `accuracy`,
        `interval` (of the accuracy, [low, high]), `f1_macro`, `loss`.
        """
        rows = []
        for part in sorted(self._parts, key=str):
            for feature, value in part:
                measured = self._parts[part][None]
                examples = int(measured["example_count"])
                right = round(measured["accuracy"] * examples)
                rows.append(
                    {
                        "feature": feature,
                        "value": str(value),
                        "examples": examples,
                        "accuracy": measured["accuracy"],
                        "interval": intervals.proportion(right, examples),
                        "f1_macro": measured["f1_macro"],
                        "loss": measured["loss"],
                    }
                )
        return rows

    def _classes_of(self, rule: _Rule) -> list[int | None]:
        if not rule.per_class:
            return [None]
        # A class without an example has no precision and no recall.
        return [i for i in range(len(self._class_names)) if self.metric(tfma_metrics.SUPPORT, i)]

    def _gate(self, rule: _Rule, limit: float, class_id: int | None) -> Gate:
        value = self.metric(rule.metric, class_id)
        if rule.kind == "drop":
            value = self._baseline[class_id][rule.metric] - value
        failed = value < limit if rule.gated else (rule.metric, class_id, rule.kind) in self._failures
        return Gate(
            name=rule.metric,
            class_name=None if class_id is None else self._class_names[class_id],
            setting=f"evaluation.{rule.setting}",
            kind=rule.kind,
            value=value,
            limit=limit,
            passed=not failed,
        )


_Values = dict[int | None, dict[str, float]]  # class or None for all -> metric -> value


def _by_slice(result: tfma.EvalResult) -> dict[tuple[Any, ...], _Values]:
    """Puts TFMA's nested dictionaries in order; what is no number (the confusion matrix) is left out."""
    parts = {}
    for part, by_output in result.slicing_metrics:
        values: _Values = {}
        for sub_key, by_name in by_output[""].items():
            class_id = int(sub_key.removeprefix("classId:")) if sub_key else None
            values[class_id] = {
                # JSON has no number for NaN; TFMA makes it a string.
                name: float(value["doubleValue"])
                for name, value in by_name.items()
                if "doubleValue" in value
            }
        parts[part] = values
    return parts


def _limits(config: tfma.EvalConfig) -> dict[tuple[str, Kind], float]:
    return {
        (json.loads(metric.config)["name"], kind): limit
        for spec in config.metrics_specs
        for metric in spec.metrics
        for part in metric.per_slice_thresholds
        for kind, limit in _bounds(part.threshold)
    }


def _bounds(threshold: tfma.MetricThreshold) -> Iterator[tuple[Kind, float]]:
    """Reads what `_add_threshold` wrote."""
    if threshold.value_threshold.HasField("lower_bound"):
        yield "floor", threshold.value_threshold.lower_bound.value
    if threshold.value_threshold.HasField("upper_bound"):
        yield "ceiling", threshold.value_threshold.upper_bound.value
    if threshold.HasField("change_threshold"):
        yield "drop", max(0.0, -threshold.change_threshold.absolute.value - _ROUNDING)


def _class_id(key: Any) -> int | None:
    return key.sub_key.class_id.value if key.sub_key.HasField("class_id") else None
