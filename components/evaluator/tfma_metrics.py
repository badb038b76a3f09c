"""TFMA metrics of a multi-class model, by the report's definitions, which are those of scikit-learn.

TFMA's own metrics define these values differently. `Precision`, `Recall` and `F1Score` threshold each class's
probability at 0.5, so that an image whose best class has 0.4 counts as no prediction at all. Its areas under
curves are sums over fixed thresholds. The metrics of Keras round to float32 and take seconds to compile. The
metrics here are exact and evaluate the predicted class, which is the one with the highest probability. They
all share one pass over the examples, which gathers labels and probabilities: 4 bytes per example and class.

Where a MetricsSpec binarizes, a metric is computed for one class against the rest.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Sequence
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

from components.evaluator import definitions, guessing
from models import reliability

_LOG = logging.getLogger(__name__)
_MANY_CLASSES = 200  # whose metrics take long enough to say so

LOWEST = "lowest"
SUPPORT = "support"

# Metrics of the labels and probabilities of all classes.
PROBABILITY_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": definitions.accuracy,
    "loss": definitions.loss,
    "top_k_accuracy": definitions.top_k_accuracy,
    "calibration_error": lambda *scores: reliability.calibration_error(reliability.calibration_bins(*scores)),
    "confidence_above_guessing": guessing.confidence_above_guessing,
    "classes_never_predicted": definitions.classes_never_predicted,
}


class Scores:
    """The labels and probabilities of a slice, and what several metrics need of them, computed once.

    Args:
      labels: int64 [examples].
      probabilities: float32 [examples, classes].
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        self.labels, self.probabilities = labels, probabilities

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """The confusion matrix, int64 [actual, predicted]."""
        predicted, num_classes = self.probabilities.argmax(axis=1), self.probabilities.shape[1]
        if num_classes >= _MANY_CLASSES:
            _LOG.info("metrics of %d classes in a slice of %d images", num_classes, len(self.labels))
        return definitions.confusion_matrix(self.labels, predicted, num_classes)

    @functools.cached_property
    def statistics(self) -> dict[str, np.ndarray]:
        """`precision`, `recall`, `f1` and `support` (number of examples), each [classes]."""
        support, predicted = self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        ratios = definitions.statistics(np.diagonal(self.matrix), support, predicted)
        return {**ratios, SUPPORT: support}

    @functools.cached_property
    def areas(self) -> dict[str, definitions.Areas]:
        """The areas under the curves, by the name of the curve."""
        return definitions.areas(self.labels, self.probabilities)


def average_statistic(scores: Scores, statistic: str, average: str) -> float:
    """Computes an average over the classes of a statistic of the predicted classes.

    Args:
      scores: labels and probabilities of the examples.
      statistic: `precision`, `recall` or `f1`.
      average: one of `definitions.AVERAGES`, or `LOWEST` for the lowest value of all classes that have
        examples.

    Returns:
      The value, from 0 to 1.
    """
    if average in definitions.AVERAGES:
        return definitions.average(scores.matrix, statistic, average)
    # The 0 of a class without examples is a placeholder, not a low precision or recall.
    return float(scores.statistics[statistic][scores.statistics[SUPPORT] > 0].min())


class _ScoresMetric(tfma.metrics.Metric):
    """Base class of the metrics that are computed from the labels and probabilities of a slice.

    TFMA's helper for metrics of several classes would make a computation of each class. Here, a metric is one
    computation, whatever the number of classes, because TFMA pickles and runs each of them by itself.
    """

    def __init__(
        self,
        name: str,
        overall: Callable[[Scores], Any],
        by_class: Callable[[Scores], Sequence[Any]] | None = None,
    ):
        """Initializes the metric.

        Args:
          name: name of the metric.
          overall: computes the value of all classes.
          by_class: computes the value of each class, where the MetricsSpec binarizes; None if it must not.
        """

        def computations(
            name: str,
            eval_config: config_pb2.EvalConfig | None = None,
            model_names: Sequence[str] | None = None,
            output_names: Sequence[str] | None = None,
            sub_keys: Sequence[tfma.metrics.SubKey | None] | None = None,
        ) -> list[Any]:
            found: list[Any] = []
            for model_name, output_name in itertools.product(model_names or [""], output_names or [""]):
                model_output = {"model_name": model_name, "output_name": output_name}
                # TFMA leaves metrics whose name begins with an underscore out of its results.
                scores_key = tfma.metrics.MetricKey(name="_scores", **model_output)
                combiner = _GatherScores(scores_key, eval_config, model_output)
                found.append(
                    tfma.metrics.MetricComputation(keys=[scores_key], preprocessors=None, combiner=combiner)
                )
                keys = {
                    sub_key.class_id if sub_key else None: tfma.metrics.MetricKey(
                        name=name, sub_key=sub_key, **model_output
                    )
                    for sub_key in sub_keys or [None]
                }
                derive = _Derive(scores_key, keys, overall, by_class)
                found.append(
                    tfma.metrics.DerivedMetricComputation(keys=list(keys.values()), result=derive.result)
                )
            return found

        super().__init__(computations, name=name)


class _Derive:
    """Computes the values of a metric from the scores of a slice."""

    def __init__(
        self,
        scores_key: tfma.metrics.MetricKey,
        keys: dict[int | None, tfma.metrics.MetricKey],
        overall: Callable[[Scores], Any],
        by_class: Callable[[Scores], Sequence[Any]] | None,
    ) -> None:
        self._scores_key = scores_key
        self._keys = keys  # class id, or None for all classes -> key
        self._overall = overall
        self._by_class = by_class

    def result(self, values: dict[Any, Any]) -> dict[Any, Any]:
        scores = values[self._scores_key]
        if None in self._keys:
            return {self._keys[None]: self._overall(scores)}
        assert self._by_class is not None
        computed = self._by_class(scores)
        return {key: computed[class_id] for class_id, key in self._keys.items() if class_id is not None}


class PredictedClassStatistic(_ScoresMetric):
    """A statistic of the predicted classes."""

    def __init__(
        self, name: str, statistic: str, average: str | None = None, source_digest: str | None = None
    ):
        """Initializes the metric.

        Args:
          name: name of the metric.
          statistic: `precision`, `recall`, `f1` or `support`.
          average: average over the classes, as in `average_statistic`, used where the MetricsSpec does not
            binarize.
          source_digest: digest of the evaluation's code. It is unused here, but makes the EvalConfig change
            with the code; TFX's cache compares nothing but the configuration.
        """
        del source_digest
        super().__init__(
            name,
            lambda scores: average_statistic(scores, statistic, average or ""),
            lambda scores: scores.statistics[statistic].astype(float).tolist(),
        )


class AreaUnderCurve(_ScoresMetric):
    """The exact area under a curve, from 0 to 1; NaN where all examples or no examples are of the class."""

    def __init__(self, name: str, curve: str, average: str | None = None):
        """Initializes the metric.

        Args:
          name: name of the metric.
          curve: `roc` or `pr`.
          average: one of `definitions.AVERAGES`, used where the MetricsSpec does not binarize.
        """

        def or_nan(area: float | None) -> float:
            return float("nan") if area is None else area

        super().__init__(
            name,
            lambda scores: or_nan(scores.areas[curve].averages[definitions.AVERAGES.index(average or "")]),
            lambda scores: [or_nan(area) for area in scores.areas[curve].by_class],
        )


class ProbabilityMetric(_ScoresMetric):
    """A metric of the probabilities of all classes."""

    def __init__(self, name: str, figure: str):
        """Initializes the metric.

        Args:
          name: name of the metric.
          figure: one of `PROBABILITY_METRICS`.
        """
        super().__init__(
            name, lambda scores: PROBABILITY_METRICS[figure](scores.labels, scores.probabilities)
        )


class GivenMetric(tfma.metrics.Metric):
    """A metric of the whole split that was measured beforehand, so that TFMA compares it with its gate.

    It has the same value for each slice, and for the baseline model, of which it was not measured.
    """

    def __init__(self, name: str, images: int, value: float, note: str):
        """Initializes the metric.

        Args:
          name: name of the metric.
          images: number of images to measure it on. It is unused here: `gates.corrupted_images` reads it.
          value: the measured value.
          note: what the sentence of the gate says besides. It is unused here: `gates.Evaluation` reads it.
        """
        del images, note

        def computations(
            name: str,
            eval_config: config_pb2.EvalConfig | None = None,
            model_names: Sequence[str] | None = None,
            output_names: Sequence[str] | None = None,
        ) -> list[Any]:
            del eval_config
            keys = [
                tfma.metrics.MetricKey(name=name, model_name=model_name, output_name=output_name)
                for model_name, output_name in itertools.product(model_names or [""], output_names or [""])
            ]
            return [
                tfma.metrics.DerivedMetricComputation(
                    keys=keys, result=lambda values: dict.fromkeys(keys, value)
                )
            ]

        super().__init__(computations, name=name)


class ConfusionMatrix(_ScoresMetric):
    """The confusion matrix, as `MultiClassConfusionMatrixAtThresholds` of TFMA returns it at threshold 0."""

    def __init__(self, name: str):
        """Initializes the metric.

        Args:
          name: name of the metric.
        """

        def compute(scores: Scores) -> Any:
            actual, predicted = np.nonzero(scores.matrix)
            cells = zip(
                actual.tolist(), predicted.tolist(), scores.matrix[actual, predicted].tolist(), strict=True
            )
            entry = multi_class_confusion_matrix_metrics.MatrixEntryKey
            counts = {entry(label, found): float(count) for label, found, count in cells}
            return multi_class_confusion_matrix_metrics.Matrices({0.0: counts})

        super().__init__(name, compute)


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
        return {self._key: Scores(*self._concatenate(accumulator))}

    def _concatenate(self, accumulator: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        labels, probabilities = (np.concatenate(part) for part in zip(*accumulator, strict=True))
        return labels.astype(np.int64), probabilities


for _metric in (PredictedClassStatistic, AreaUnderCurve, ProbabilityMetric, GivenMetric, ConfusionMatrix):
    metric_types.register_metric(_metric)
