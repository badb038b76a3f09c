"""Two models on the same examples: what changed, and what of it is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse, stats

from components.evaluator import calibration, definitions, intervals
from components.model_report.predictions import Predictions

# Metric -> what it is called for people.
LABELS = {
    "accuracy": "Accuracy",
    "precision_macro": "Precision, macro",
    "recall_macro": "Recall, macro",
    "f1_macro": "F1, macro",
    "calibration_error": "Calibration error",
    "loss": "Loss",
}
# Of these less is better.
LOWER_IS_BETTER = ("loss", "calibration_error")
_SAMPLES = 1000
# Draws in memory at a time: 8 MB for 10,000 examples.
_CHUNK = 100


class ComparisonError(ValueError):
    """Predictions that cannot be compared; the message says why."""


def compare(a: Predictions, b: Predictions, class_names: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Compares the predictions of two models on the examples that both have seen.

    Intervals are those of the paired bootstrap: both models are measured on the same draws of examples,
    so that what is hard for both does not hide a difference between them.

    Args:
      a: of the earlier model.
      b: of the later one.
      class_names: names by class, of both.
      seed: of the draws.

    Returns:
      `examples` (in common), `only_a` and `only_b` (numbers of examples);
      `metrics`: for accuracy, precision_macro, recall_macro, f1_macro, loss and calibration_error the
      `name`, `a`, `b`, `difference` (b - a) and its `interval`; macro averages are over the classes that
      have an example;
      `mcnemar`: `only_a_right`, `only_b_right` and the exact two-sided `p_value`;
      `classes`: `name`, `support` and of recall, precision and f1 `_a`, `_b` and `_difference`, with a
      `recall_interval`; None where the class has no example;
      `became_wrong`, `became_right`: all images that b gets wrong and a right, or the reverse, those
      that b is most confident of first: `id`, names of the `label` and of the answers `a` and `b`, and
      `confidence_b`.

    Raises:
      ComparisonError: the examples or classes of the two are not the same.
    """
    ids, labels, of_a, of_b = _join(a, b, len(class_names))
    parts_a, parts_b = _parts(labels, of_a), _parts(labels, of_b)
    once = np.ones((1, len(ids)), np.int64)
    measured_a, measured_b = _measure(once, parts_a), _measure(once, parts_b)
    drawn = _drawn_differences(parts_a, parts_b, seed)
    answers_a, answers_b = of_a.argmax(axis=1), of_b.argmax(axis=1)
    right_a, right_b = answers_a == labels, answers_b == labels

    def changed(where: np.ndarray) -> list[dict[str, Any]]:
        confidence = of_b.max(axis=1)
        found = np.flatnonzero(where)
        return [
            {
                "id": ids[i],
                "label": class_names[labels[i]],
                "a": class_names[answers_a[i]],
                "b": class_names[answers_b[i]],
                "confidence_b": float(confidence[i]),
            }
            for i in found[np.argsort(-confidence[found], kind="stable")]
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
                "interval": intervals.interval(drawn[name]),
            }
            for name in _NAMES
        ],
        "mcnemar": _mcnemar(int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))),
        "classes": [
            _of_class(i, name, measured_a, measured_b, drawn["recall"][:, i])
            for i, name in enumerate(class_names)
        ],
        "became_wrong": changed(right_a & ~right_b),
        "became_right": changed(right_b & ~right_a),
    }


def _join(
    a: Predictions, b: Predictions, num_classes: int
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Returns ids, labels, and probabilities of a and of b, of the common examples in the order of a."""
    for name, side in (("first", a), ("second", b)):
        if side.probabilities.shape[1] != num_classes:
            raise ComparisonError(
                f"the {name} model knows {side.probabilities.shape[1]} classes, expected {num_classes}"
            )
        if len(set(side.ids)) != len(side.ids):
            raise ComparisonError(f"the ids of the {name} model's examples are not unique")
    places = {identity: i for i, identity in enumerate(b.ids)}
    pairs = [(i, places[identity]) for i, identity in enumerate(a.ids) if identity in places]
    if not pairs:
        raise ComparisonError(
            f"none of the {len(a.ids)} and {len(b.ids)} examples is common to both: "
            "the models were tested on different images"
        )
    in_a, in_b = np.array(pairs).T
    if (differing := np.flatnonzero(a.labels[in_a] != b.labels[in_b])).size:
        raise ComparisonError(
            f"{differing.size} common examples have different labels, "
            f"the first of them {a.ids[in_a[differing[0]]]}"
        )
    return [a.ids[i] for i in in_a], a.labels[in_a], a.probabilities[in_a], b.probabilities[in_b]


_NAMES = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "loss", "calibration_error")


# Every statistic is a function of sums over the examples, so that a draw of the bootstrap, which is a
# weight for each example, takes one matrix product. What is summed, column by column: of each class the
# examples, the answers and the right answers; of each calibration bin right minus confidence; the loss.
def _parts(labels: np.ndarray, probabilities: np.ndarray) -> sparse.csr_array:
    """Returns what each example adds to the sums, float64 [examples, 3 * classes + bins + 1]."""
    count, num_classes = probabilities.shape
    answers, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(float)
    right = (answers == labels).astype(float)
    # As scikit-learn's log_loss does, so that a certain mistake costs much, but not everything.
    smallest = np.finfo(probabilities.dtype).eps
    loss = -np.log(np.maximum(probabilities[np.arange(count), labels], smallest), dtype=float)
    columns_and_values = [
        (labels, np.ones(count)),
        (num_classes + answers, np.ones(count)),
        (2 * num_classes + labels, right),
        (3 * num_classes + calibration.bin_of(confidence), right - confidence),
        (np.full(count, 3 * num_classes + calibration.BINS), loss),
    ]
    columns, values = (np.concatenate(arrays) for arrays in zip(*columns_and_values, strict=True))
    rows = np.tile(np.arange(count), len(columns_and_values))
    return sparse.csr_array((values, (rows, columns)), (count, 3 * num_classes + calibration.BINS + 1))


def _measure(weights: np.ndarray, parts: sparse.csr_array) -> dict[str, np.ndarray]:
    """Computes the metrics of draws of examples.

    Args:
      weights: int [draws, examples], how often each example is in a draw.
      parts: from `_parts`.

    Returns:
      The metrics, float [draws]; `support`, `precision`, `recall` and `f1` by class, [draws, classes],
      where recall is NaN without an example.
    """
    sums = weights @ parts
    examples = weights.sum(axis=1)
    num_classes = (sums.shape[1] - calibration.BINS - 1) // 3
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


def _drawn_differences(
    parts_a: sparse.csr_array, parts_b: sparse.csr_array, seed: int
) -> dict[str, np.ndarray]:
    """Returns b - a of every metric and of recall by class, for each draw of the bootstrap."""
    each = np.ones(parts_a.shape[0], np.int64)
    chunks = []
    for chunk_seed in np.random.SeedSequence(seed).generate_state(_SAMPLES // _CHUNK):
        weights = intervals.resample(each, _CHUNK, int(chunk_seed))
        in_a, in_b = _measure(weights, parts_a), _measure(weights, parts_b)
        chunks.append({name: in_b[name] - in_a[name] for name in (*_NAMES, "recall")})
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _of_class(
    i: int, name: str, a: dict[str, np.ndarray], b: dict[str, np.ndarray], drawn_recall: np.ndarray
) -> dict[str, Any]:
    support = int(a["support"][0, i])
    entry: dict[str, Any] = {"name": name, "support": support}
    for key in ("recall", "precision", "f1"):
        in_a, in_b = float(a[key][0, i]), float(b[key][0, i])
        values = (in_a, in_b, in_b - in_a) if support else (None, None, None)
        entry |= zip((f"{key}_a", f"{key}_b", f"{key}_difference"), values, strict=True)
    return {**entry, "recall_interval": intervals.interval(drawn_recall)}


def _mcnemar(only_a_right: int, only_b_right: int) -> dict[str, Any]:
    """McNemar's exact test: were both equal, what only one gets right would be the toss of a coin."""
    tosses = only_a_right + only_b_right
    p_value = float(stats.binomtest(only_a_right, tosses).pvalue) if tosses else 1.0
    return {"only_a_right": only_a_right, "only_b_right": only_b_right, "p_value": p_value}
