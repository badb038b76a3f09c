"""Compares the predictions of two models on the same examples, with paired confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse, stats

from components.evaluator import definitions, intervals
from components.model_report.predictions import Predictions
from models import reliability

# Name of a metric in JSON -> its name on the page and on the terminal.
LABELS = {
    "accuracy": "Accuracy",
    "precision_macro": "Precision, macro",
    "recall_macro": "Recall, macro",
    "f1_macro": "F1, macro",
    "calibration_error": "Calibration error",
    "loss": "Loss",
}
# For all other metrics, higher is better.
LOWER_IS_BETTER = ("loss", "calibration_error")
# Bootstrap samples.
_SAMPLES = 1000
# Bootstrap samples in memory at a time: 8 MB for 10,000 examples.
_CHUNK = 100


class ComparisonError(ValueError):
    """Raised when predictions cannot be compared; the message says why."""


def compare(a: Predictions, b: Predictions, class_names: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Compares the predictions of two models on the examples that both have predicted.

    The confidence intervals come from a paired bootstrap: both models are measured on the same resampled
    examples, so that the difference between the models is not hidden by the variation between examples.

    Args:
      a: predictions of the earlier model.
      b: predictions of the later model.
      class_names: names of the classes of both models, in the order of their indices.
      seed: seed of the bootstrap.

    Returns:
      A dictionary that JSON can hold:
      `examples`: number of examples in common; `only_a`, `only_b`: numbers of examples of one model alone.
      `metrics`: for accuracy, precision_macro, recall_macro, f1_macro, loss and calibration_error the
        `name`, the values `a` and `b`, the `difference` (b - a) and the `interval` of the difference.
        Macro averages are over the classes that have an example.
      `mcnemar`: `only_a_right`, `only_b_right` and the exact two-sided `p_value`.
      `classes`: for each class `name`, `support`, and for recall, precision and f1 the values with the
        suffixes `_a`, `_b` and `_difference`, and `recall_interval`, the interval of the difference of
        recall. All values but `name` and `support` are None if the class has no example.
      `became_wrong`, `became_right`: the examples that only a, or only b, predicts correctly, sorted by the
        confidence of b, highest first. Each has its `id`, the class names `label`, `a` and `b` (actual and
        predicted by each model), and `confidence_b`.

    Raises:
      ComparisonError: the numbers of classes differ, ids are not unique, no example is in common, or an
        example has two different labels.
    """
    ids, labels, probabilities_a, probabilities_b = _join(a, b, len(class_names))
    addends_a, addends_b = _addends(labels, probabilities_a), _addends(labels, probabilities_b)
    each_once = np.ones((1, len(ids)), np.int64)
    measured_a, measured_b = _measure(each_once, addends_a), _measure(each_once, addends_b)
    differences = _bootstrap_differences(addends_a, addends_b, seed)
    predicted_a, predicted_b = probabilities_a.argmax(axis=1), probabilities_b.argmax(axis=1)
    right_a, right_b = predicted_a == labels, predicted_b == labels

    def describe_examples(selected: np.ndarray) -> list[dict[str, Any]]:
        confidence = probabilities_b.max(axis=1)
        indices = np.flatnonzero(selected)
        return [
            {
                "id": ids[i],
                "label": class_names[labels[i]],
                "a": class_names[predicted_a[i]],
                "b": class_names[predicted_b[i]],
                "confidence_b": float(confidence[i]),
            }
            for i in indices[np.argsort(-confidence[indices], kind="stable")]
        ]

    return {
        "examples": len(ids),
        "only_a": len(a.ids) - len(ids),
        "only_b": len(b.ids) - len(ids),
        "metrics": [
            {
                "name": name,
                "a": float(measured_a[name][0]),
                "b": float(measured_b[name][0]),
                "difference": float(measured_b[name][0] - measured_a[name][0]),
                "interval": intervals.interval(differences[name]),
            }
            for name in _METRICS
        ],
        "mcnemar": _mcnemar(int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))),
        "classes": [
            _describe_class(i, name, measured_a, measured_b, differences["recall"][:, i])
            for i, name in enumerate(class_names)
        ],
        "became_wrong": describe_examples(right_a & ~right_b),
        "became_right": describe_examples(right_b & ~right_a),
    }


def _join(
    a: Predictions, b: Predictions, num_classes: int
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Returns the ids, labels, and probabilities by a and by b of the common examples, in the order of a."""
    for name, side in (("first", a), ("second", b)):
        if side.probabilities.shape[1] != num_classes:
            raise ComparisonError(
                f"expected predictions of {num_classes} classes, "
                f"found {side.probabilities.shape[1]} from the {name} model"
            )
        if len(set(side.ids)) != len(side.ids):
            raise ComparisonError(f"expected unique ids of examples, found duplicates from the {name} model")
    positions = {example_id: i for i, example_id in enumerate(b.ids)}
    pairs = [(i, positions[example_id]) for i, example_id in enumerate(a.ids) if example_id in positions]
    if not pairs:
        raise ComparisonError(
            "expected models that were tested on some of the same images, "
            f"found no common id among the {len(a.ids)} images of the first model "
            f"and the {len(b.ids)} of the second"
        )
    in_a, in_b = np.array(pairs).T
    if (differing := np.flatnonzero(a.labels[in_a] != b.labels[in_b])).size:
        raise ComparisonError(
            "expected the same label from both models for every common example, "
            f"found {differing.size} that differ, the first of them {a.ids[in_a[differing[0]]]}"
        )
    return [a.ids[i] for i in in_a], a.labels[in_a], a.probabilities[in_a], b.probabilities[in_b]


_METRICS = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "loss", "calibration_error")


# Every metric is a function of sums over the examples. A bootstrap sample is a weight for each example, so
# that the sums of many samples are one matrix product.
def _addends(labels: np.ndarray, probabilities: np.ndarray) -> sparse.csr_array:
    """Returns what each example adds to the sums from which the metrics are computed.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].

    Returns:
      float64 [examples, 3 * classes + bins + 1]. The columns are, for each class, the actual examples; for
      each class, the predicted ones; for each class, the correctly predicted ones; for each calibration
      bin, correctness (0 or 1) minus confidence; and the loss.
    """
    count, num_classes = probabilities.shape
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(float)
    right = (predicted == labels).astype(float)
    # Clip like scikit-learn's log_loss, so that a mistake with probability 0 for the label has a finite loss.
    smallest = np.finfo(probabilities.dtype).eps
    loss = -np.log(np.maximum(probabilities[np.arange(count), labels], smallest), dtype=float)
    columns_and_values = [
        (labels, np.ones(count)),
        (num_classes + predicted, np.ones(count)),
        (2 * num_classes + labels, right),
        (3 * num_classes + reliability.bin_of(confidence), right - confidence),
        (np.full(count, 3 * num_classes + reliability.BINS), loss),
    ]
    columns, values = (np.concatenate(arrays) for arrays in zip(*columns_and_values, strict=True))
    rows = np.tile(np.arange(count), len(columns_and_values))
    return sparse.csr_array((values, (rows, columns)), (count, 3 * num_classes + reliability.BINS + 1))


def _measure(weights: np.ndarray, addends: sparse.csr_array) -> dict[str, np.ndarray]:
    """Computes the metrics of samples of the examples.

    Args:
      weights: int [samples, examples], how often each example is in a sample.
      addends: from `_addends`.

    Returns:
      The metrics of `_METRICS`, float [samples]; and `support`, `precision`, `recall` and `f1` of each
      class, [samples, classes]. Recall is NaN where a sample has no example of the class.
    """
    sums = weights @ addends
    examples = weights.sum(axis=1)
    num_classes = (sums.shape[1] - reliability.BINS - 1) // 3
    actual, predicted, right, gaps, loss = np.split(
        sums, [num_classes, 2 * num_classes, 3 * num_classes, -1], axis=1
    )
    by_class = definitions.statistics(right, actual, predicted)
    return {
        "accuracy": right.sum(axis=1) / examples,
        **{f"{name}_macro": values.mean(axis=1, where=actual > 0) for name, values in by_class.items()},
        "loss": loss[:, 0] / examples,
        "calibration_error": np.abs(gaps).sum(axis=1) / examples,
        **by_class,
        "recall": np.where(actual > 0, by_class["recall"], np.nan),
        "support": actual,
    }


def _bootstrap_differences(
    addends_a: sparse.csr_array, addends_b: sparse.csr_array, seed: int
) -> dict[str, np.ndarray]:
    """Returns b - a for every metric and for the recall of each class, in each bootstrap sample."""
    each_once = np.ones(addends_a.shape[0], np.int64)
    chunks = []
    for chunk_seed in np.random.SeedSequence(seed).generate_state(_SAMPLES // _CHUNK):
        weights = intervals.resample(each_once, _CHUNK, int(chunk_seed))
        measured_a, measured_b = _measure(weights, addends_a), _measure(weights, addends_b)
        chunks.append({name: measured_b[name] - measured_a[name] for name in (*_METRICS, "recall")})
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _describe_class(
    i: int, name: str, a: dict[str, np.ndarray], b: dict[str, np.ndarray], recall_differences: np.ndarray
) -> dict[str, Any]:
    support = int(a["support"][0, i])
    entry: dict[str, Any] = {"name": name, "support": support}
    for key in ("recall", "precision", "f1"):
        value_a, value_b = float(a[key][0, i]), float(b[key][0, i])
        values = (value_a, value_b, value_b - value_a) if support else (None, None, None)
        entry |= zip((f"{key}_a", f"{key}_b", f"{key}_difference"), values, strict=True)
    return {**entry, "recall_interval": intervals.interval(recall_differences)}


def _mcnemar(only_a_right: int, only_b_right: int) -> dict[str, Any]:
    """Computes McNemar's exact test.

    If both models were equally accurate, an example that only one of them predicts correctly would be
    predicted correctly by either with probability 1/2, so that `only_a_right` is binomially distributed.
    """
    discordant = only_a_right + only_b_right
    p_value = float(stats.binomtest(only_a_right, discordant).pvalue) if discordant else 1.0
    return {"only_a_right": only_a_right, "only_b_right": only_b_right, "p_value": p_value}
