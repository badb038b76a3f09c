"""TFMA metrics of a multi-class model, by the definitions of the report, which are scikit-learn's.

TFMA's own `Precision`, `Recall` and `F1Score` cut each class's probability at 0.5, so that an image
whose best class has 0.4 counts as no prediction at all; its areas under curves are sums over fixed
thresholds; and the metrics of Keras round to float32 and spend seconds on being compiled. These are of
the predicted class (the one with the highest probability), and exact. They all come from one pass over
the examples, which gathers labels and probabilities: 4 bytes for each example and class.

Where a MetricsSpec binarizes, a metric is that of one class against the rest.
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

from components.evaluator import calibration, definitions

Scores = tuple[np.ndarray, np.ndarray]  # labels int64 [examples], probabilities float32 [examples, classes]

LOWEST = "lowest"
SUPPORT = "support"


def statistic_of(scores: Scores, statistic: str, average: str | None, class_id: int | None) -> float:
    """Computes one statistic of the predicted classes.

    Args:
      scores: of a slice.
      statistic: `precision`, `recall`, `f1` or `support` (the number of a class's examples).
      average: `macro`, `micro`, `weighted` (as in scikit-learn, macro of the classes with an
        example), or `lowest`, that of the class where
        it is lowest; not used with a class.
      class_id: the class; None for the average.

    Returns:
      The value, between 0 and 1, or a number of examples; 0 for a ratio without any case.
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
    # A class without an example has no precision and no recall that could be too low.
    return float(values[support > 0].min())


def area_of(scores: Scores, curve: str, average: str | None, class_id: int | None) -> float:
    """Computes the exact area under a curve; arguments as for `statistic_of`, the curve `roc` or `pr`.

    Returns:
      The area; NaN where there are no examples of a class, or none of the others.
    """
    labels, probabilities = scores
    areas = {"roc": definitions.area_under_roc, "pr": definitions.area_under_pr}[curve]
    if class_id is None:
        area = areas(labels, probabilities).averages[definitions.AVERAGES.index(average)]
    else:
        of_class = probabilities[:, class_id]
        rest_and_class = np.stack([1 - of_class, of_class], axis=1)
        area = areas((labels == class_id).astype(int), rest_and_class).by_class[1]
    return float("nan") if area is None else area


class _FromScores(tfma.metrics.Metric):
    """Base: values that are computed from the labels and probabilities of a slice."""

    def __init__(self, name: str, names: list[str], compute: Callable[[Scores, int | None], list[Any]]):
        """Initializes the metric.

        Args:
          name: of the metric.
          names: of its values.
          compute: computes the values, of a class or (None) of all.
        """

        def computations(
            name: str,
            sub_key: tfma.metrics.SubKey | None = None,
            eval_config: tfma.EvalConfig | None = None,
            model_name: str = "",
            output_name: str = "",
        ) -> list[Any]:
            del name
            where = {"model_name": model_name, "output_name": output_name}
            # A name that begins with an underscore is left out of the results.
            gathered = tfma.metrics.MetricKey(name="_scores", **where)
            gathering = tfma.metrics.MetricComputation(
                keys=[gathered], preprocessors=None, combiner=_Gather(gathered, eval_config, where)
            )
            keys = [tfma.metrics.MetricKey(name=n, sub_key=sub_key, **where) for n in names]

            def result(values: dict[Any, Any]) -> dict[Any, Any]:
                computed = compute(values[gathered], sub_key.class_id if sub_key else None)
                return dict(zip(keys, computed, strict=True))

            return [gathering, tfma.metrics.DerivedMetricComputation(keys=keys, result=result)]

        super().__init__(metric_util.merge_per_key_computations(computations), name=name)


class OfPredictedClass(_FromScores):
    """A statistic of the predicted classes; see `statistic_of`."""

    def __init__(
        self, name: str, statistic: str, average: str | None = None, source_digest: str | None = None
    ):
        """Initializes the metric.

        Args:
          name: of the metric.
          statistic: which one.
          average: how the classes are put together, where the MetricsSpec does not binarize.
          source_digest: of the code, so that an evaluation by other code has another configuration,
            which is all that TFX's cache sees.
        """
        del source_digest
        super().__init__(name, [name], lambda s, class_id: [statistic_of(s, statistic, average, class_id)])


class AreaUnderCurve(_FromScores):
    """The area under a curve; see `area_of`."""

    def __init__(self, name: str, curve: str, average: str | None = None):
        super().__init__(name, [name], lambda s, class_id: [area_of(s, curve, average, class_id)])


class OfProbabilities(_FromScores):
    """A metric of all probabilities: `accuracy`, `loss`, `top_k_accuracy` or `calibration_error`."""

    def __init__(self, name: str, figure: str):
        compute: Callable[[np.ndarray, np.ndarray], float] = {
            "accuracy": definitions.accuracy,
            "loss": definitions.loss,
            "top_k_accuracy": definitions.top_k_accuracy,
            "calibration_error": lambda *s: calibration.calibration_error(calibration.calibration_bins(*s)),
        }[figure]
        super().__init__(name, [name], lambda scores, _: [compute(*scores)])


class ConfusionMatrix(_FromScores):
    """The confusion matrix, as TFMA's `MultiClassConfusionMatrixAtThresholds` at threshold 0 has it."""

    def __init__(self, name: str):
        def compute(scores: Scores, class_id: int | None) -> list[Any]:
            del class_id
            labels, probabilities = scores
            cells = Counter(zip(labels.tolist(), probabilities.argmax(axis=1).tolist(), strict=True))
            entry = multi_class_confusion_matrix_metrics.MatrixEntryKey
            counts = {entry(*cell): float(number) for cell, number in cells.items()}
            return [multi_class_confusion_matrix_metrics.Matrices({0.0: counts})]

        super().__init__(name, [name], compute)


class _Gather(beam.CombineFn):
    """Gathers labels and probabilities."""

    def __init__(
        self, key: tfma.metrics.MetricKey, eval_config: tfma.EvalConfig | None, where: dict[str, str]
    ) -> None:
        self._key = key
        self._arguments = {"eval_config": eval_config, **where, "flatten": False, "example_weighted": False}

    def create_accumulator(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return []

    def add_input(self, accumulator: list[tuple[np.ndarray, np.ndarray]], element: Any) -> list[Any]:
        (scored,) = metric_util.to_label_prediction_example_weight(element, **self._arguments)
        label, probabilities, _ = scored
        accumulator.append((label.ravel(), probabilities.ravel()[np.newaxis]))
        return accumulator

    def merge_accumulators(self, accumulators: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        return [scored for accumulator in accumulators for scored in accumulator]

    def compact(self, accumulator: list[tuple[np.ndarray, np.ndarray]]) -> list[Any]:
        # Before it goes to another worker.
        return [self._concatenate(accumulator)] if accumulator else []

    def extract_output(self, accumulator: list[tuple[np.ndarray, np.ndarray]]) -> dict[Any, Scores]:
        return {self._key: self._concatenate(accumulator)}

    def _concatenate(self, accumulator: list[tuple[np.ndarray, np.ndarray]]) -> Scores:
        labels, probabilities = (np.concatenate(part) for part in zip(*accumulator, strict=True))
        return labels.astype(np.int64), probabilities


for _metric in (OfPredictedClass, AreaUnderCurve, OfProbabilities, ConfusionMatrix):
    metric_types.register_metric(_metric)
