"""TFMA metrics of the predicted class, the one with the highest probability: precision, recall, F1.

TFMA's own `Precision`, `Recall` and `F1Score` cut each class's probability at 0.5, so that an image
whose best class has 0.4 counts as no prediction at all. These are the usual multi-class definitions,
those of scikit-learn's `classification_report`: one class against the rest where the MetricsSpec
binarizes, and the unweighted mean over the classes that occur (macro average) where it does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.metrics.multi_class_confusion_matrix_metrics import (
    multi_class_confusion_matrices,
)


def precision(true_positives: float, false_positives: float, false_negatives: float) -> float:
    """Returns TP / (TP + FP), or 0 when the class was never predicted."""
    del false_negatives
    predicted = true_positives + false_positives
    return true_positives / predicted if predicted else 0.0


def recall(true_positives: float, false_positives: float, false_negatives: float) -> float:
    """Returns TP / (TP + FN), or 0 when the class has no example."""
    del false_positives
    actual = true_positives + false_negatives
    return true_positives / actual if actual else 0.0


def f1(true_positives: float, false_positives: float, false_negatives: float) -> float:
    """Returns the harmonic mean of precision and recall, or 0 when the class does not occur at all."""
    either = 2 * true_positives + false_positives + false_negatives
    return 2 * true_positives / either if either else 0.0


Statistic = Callable[[float, float, float], float]


def from_confusion(
    entries: Iterable[tuple[int, int, float]], statistic: Statistic, class_id: int | None
) -> float:
    """Computes one statistic from a confusion matrix.

    Args:
      entries: (actual class, predicted class, number of examples).
      statistic: `precision`, `recall` or `f1`.
      class_id: the class; None for the macro average over all classes that are actual or predicted.

    Returns:
      The value, between 0 and 1.
    """
    counts: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])  # TP, FP, FN
    for actual, predicted, number in entries:
        if actual == predicted:
            counts[actual][0] += number
        else:
            counts[predicted][1] += number
            counts[actual][2] += number
    if class_id is not None:
        return statistic(*counts[class_id])
    return sum(statistic(*c) for c in counts.values()) / len(counts) if counts else float("nan")


class _PredictedClassMetric(tfma.metrics.Metric):
    """Base: one statistic of the confusion matrix of predicted classes."""

    def __init__(self, statistic: Statistic, name: str):
        def computations(
            name: str,
            sub_key: tfma.metrics.SubKey | None = None,
            eval_config: tfma.EvalConfig | None = None,
            model_name: str = "",
            output_name: str = "",
            example_weighted: bool = False,
        ) -> list[Any]:
            where = {
                "model_name": model_name,
                "output_name": output_name,
                "example_weighted": example_weighted,
            }
            # At threshold 0 every example has a prediction, since its highest probability is above it.
            matrices = multi_class_confusion_matrices(thresholds=[0.0], eval_config=eval_config, **where)
            key = tfma.metrics.MetricKey(name=name, sub_key=sub_key, **where)

            def result(values: dict[Any, Any]) -> dict[Any, float]:
                (matrix,) = values[matrices[-1].keys[-1]].values()
                entries = (
                    (entry.actual_class_id, entry.predicted_class_id, number)
                    for entry, number in matrix.items()
                )
                return {key: from_confusion(entries, statistic, sub_key.class_id if sub_key else None)}

            return [*matrices, tfma.metrics.DerivedMetricComputation(keys=[key], result=result)]

        super().__init__(metric_util.merge_per_key_computations(computations), name=name)


class PredictedClassPrecision(_PredictedClassMetric):
    """Precision of the predicted class."""

    def __init__(self, name: str = "precision"):
        super().__init__(precision, name)


class PredictedClassRecall(_PredictedClassMetric):
    """Recall of the predicted class."""

    def __init__(self, name: str = "recall"):
        super().__init__(recall, name)


class PredictedClassF1(_PredictedClassMetric):
    """F1 of the predicted class."""

    def __init__(self, name: str = "f1"):
        super().__init__(f1, name)


for _metric in (PredictedClassPrecision, PredictedClassRecall, PredictedClassF1):
    metric_types.register_metric(_metric)
