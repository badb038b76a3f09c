"""TFMA metrics of a multi-class model, by the report's definitions, which are those of scikit-learn.

TFMA's own metrics define these values differently. `Precision`, `Recall` and `F1Score` threshold each class's
probability at 0.5, so that an image whose best class has 0.4 counts as no prediction at all. Its areas under
curves are sums over fixed thresholds. The metrics of Keras round to float32 and take seconds to compile. The
metrics here are exact and evaluate the predicted class, which is the one with the highest probability. They
all share one pass over the examples, which gathers labels and probabilities: 4 bytes per example and class.

Where a MetricsSpec binarizes, a metric is computed for one class against the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import (
    metric_types,
    metric_util,
    multi_class_confusion_matrix_metrics,
)
from tensorflow_model_analysis.proto import config_pb2

from components.evaluator import calibration, definitions, guessing

Scores = tuple[np.ndarray, np.ndarray]  # labels int64 [examples], probabilities float32 [examples, classes]

LOWEST = "lowest"
SUPPORT = "support"

# Metrics of the labels and probabilities of all classes.
PROBABILITY_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": definitions.accuracy,
    "loss": definitions.loss,
    "top_k_accuracy": definitions.top_k_accuracy,
    "calibration_error": lambda *scores: calibration.calibration_error(calibration.calibration_bins(*scores)),
    "confidence_above_guessing": guessing.confidence_above_guessing,
    "classes_never_predicted": definitions.classes_never_predicted,
}


def compute_statistic(scores: Scores, statistic: str, average: str | None, class_id: int | None) -> float:
    """Computes a statistic of the predicted classes.

    Args:
      scores: labels and probabilities of the examples.
      statistic: `precision`, `recall`, `f1` or `support` (number of examples of a class).
      average: one of `definitions.AVERAGES`, or `LOWEST` for the lowest value of all classes that have
        examples; ignored if `class_id` is given.
      class_id: index of the class; None computes the average.

    Returns:
      The value, from 0 to 1, or a number of examples; 0 for a ratio whose denominator is 0.
    """
    labels, probabilities = scores
    matrix = definitions.confusion_matrix(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    if class_id is None and average in definitions.AVERAGES:
        return definitions.average(matrix, statistic, average)
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    values = (
        support
        if statistic == SUPPORT
        else definitions.statistics(np.diagonal(matrix), support, predicted)[statistic]
    )
    if class_id is not None:
        return float(values[class_id])
    # The 0 of a class without examples is a placeholder, not a low precision or recall.
    return float(values[support > 0].min())


def compute_area(scores: Scores, curve: str, average: str | None, class_id: int | None) -> float:
    """Computes the exact area under a curve.

    Args:
      scores: labels and probabilities of the examples.
      curve: `roc` or `pr`.
      average: one of `definitions.AVERAGES`; ignored if `class_id` is given.
      class_id: index of the class; None computes the average.

    Returns:
      The area, from 0 to 1; NaN where all examples or no examples are of the class.
    """
    labels, probabilities = scores
    areas = {"roc": definitions.area_under_roc, "pr": definitions.area_under_pr}[curve]
    if class_id is None:
        area = areas(labels, probabilities).averages[definitions.AVERAGES.index(average)]
    else:
        class_probability = probabilities[:, class_id]
        rest_and_class = np.stack([1 - class_probability, class_probability], axis=1)
        area = areas((labels == class_id).astype(int), rest_and_class).by_class[1]
    return float("nan") if area is None else area


class _ScoresMetric(tfma.metrics.Metric):
    """Base class of the metrics that are computed from the labels and probabilities of a slice."""

    def __init__(self, name: str, names: list[str], compute: Callable[[Scores, int | None], list[Any]]):
        """Initializes the metric.

        Args:
          name: name of the metric.
          names: names of its values.
          compute: computes the values, in the order of `names`, from scores and a class (None for all
            classes).
        """

        def computations(
            name: str,
            sub_key: tfma.metrics.SubKey | None = None,
            eval_config: config_pb2.EvalConfig | None = None,
            model_name: str = "",
            output_name: str = "",
        ) -> list[Any]:
            del name
            model_output = {"model_name": model_name, "output_name": output_name}
            # TFMA leaves metrics whose name begins with an underscore out of its results.
            scores_key = tfma.metrics.MetricKey(name="_scores", **model_output)
            gather_scores = tfma.metrics.MetricComputation(
                keys=[scores_key],
                preprocessors=None,
                combiner=_GatherScores(scores_key, eval_config, model_output),
            )
            keys = [tfma.metrics.MetricKey(name=n, sub_key=sub_key, **model_output) for n in names]

            def result(values: dict[Any, Any]) -> dict[Any, Any]:
                computed = compute(values[scores_key], sub_key.class_id if sub_key else None)
                return dict(zip(keys, computed, strict=True))

            return [gather_scores, tfma.metrics.DerivedMetricComputation(keys=keys, result=result)]

        super().__init__(metric_util.merge_per_key_computations(computations), name=name)


class PredictedClassStatistic(_ScoresMetric):
    """A statistic of the predicted classes, from `compute_statistic`."""

    def __init__(
        self, name: str, statistic: str, average: str | None = None, source_digest: str | None = None
    ):
        """Initializes the metric.

        Args:
          name: name of the metric.
          statistic: `precision`, `recall`, `f1` or `support`.
          average: average over the classes, used where the MetricsSpec does not binarize.
          source_digest: digest of the evaluation's code. It is unused here, but makes the EvalConfig change
            with the code; TFX's cache compares nothing but the configuration.
        """
        del source_digest
        super().__init__(
            name, [name], lambda scores, class_id: [compute_statistic(scores, statistic, average, class_id)]
        )


class AreaUnderCurve(_ScoresMetric):
    """The area under a curve, from `compute_area`."""

    def __init__(self, name: str, curve: str, average: str | None = None):
        """Initializes the metric.

        Args:
          name: name of the metric.
          curve: `roc` or `pr`.
          average: average over the classes, used where the MetricsSpec does not binarize.
        """
        super().__init__(
            name, [name], lambda scores, class_id: [compute_area(scores, curve, average, class_id)]
        )


class ProbabilityMetric(_ScoresMetric):
    """A metric of the probabilities of all classes."""

    def __init__(self, name: str, figure: str):
        """Initializes the metric.

        Args:
          name: name of the metric.
          figure: one of `PROBABILITY_METRICS`.
        """
        super().__init__(name, [name], lambda scores, _: [PROBABILITY_METRICS[figure](*scores)])


class ConfusionMatrix(_ScoresMetric):
    """The confusion matrix, as `MultiClassConfusionMatrixAtThresholds` of TFMA returns it at threshold 0."""

    def __init__(self, name: str):
        """Initializes the metric.

        Args:
          name: name of the metric.
        """

        def compute(scores: Scores, class_id: int | None) -> list[Any]:
            del class_id
            labels, probabilities = scores
            cells = Counter(zip(labels.tolist(), probabilities.argmax(axis=1).tolist(), strict=True))
            entry = multi_class_confusion_matrix_metrics.MatrixEntryKey
            counts = {entry(*cell): float(count) for cell, count in cells.items()}
            return [multi_class_confusion_matrix_metrics.Matrices({0.0: counts})]

        super().__init__(name, [name], compute)


class _GatherScores(beam.CombineFn):
    """Gathers the labels and probabilities of all examples of a slice."""

    def __init__(
        self,
        key: tfma.metrics.MetricKey,
        eval_config: config_pb2.EvalConfig | None,
        model_output: dict[str, str],
    ) -> None:
        self._key = key
        self._arguments = {
            "eval_config": eval_config,
            **model_output,
            "flatten": False,
            "example_weighted": False,
        }

    def create_accumulator(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return []

    def add_input(self, accumulator: list[tuple[np.ndarray, np.ndarray]], element: Any) -> list[Any]:
        (example,) = metric_util.to_label_prediction_example_weight(element, **self._arguments)
        label, probabilities, _ = example
        accumulator.append((label.ravel(), probabilities.ravel()[np.newaxis]))
        return accumulator

    def merge_accumulators(self, accumulators: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        return [scores for accumulator in accumulators for scores in accumulator]

    def compact(self, accumulator: list[tuple[np.ndarray, np.ndarray]]) -> list[Any]:
        # Beam calls this before it sends an accumulator to another worker.
        return [self._concatenate(accumulator)] if accumulator else []

    def extract_output(self, accumulator: list[tuple[np.ndarray, np.ndarray]]) -> dict[Any, Scores]:
        return {self._key: self._concatenate(accumulator)}

    def _concatenate(self, accumulator: list[tuple[np.ndarray, np.ndarray]]) -> Scores:
        labels, probabilities = (np.concatenate(part) for part in zip(*accumulator, strict=True))
        return labels.astype(np.int64), probabilities


for _metric in (PredictedClassStatistic, AreaUnderCurve, ProbabilityMetric, ConfusionMatrix):
    metric_types.register_metric(_metric)
