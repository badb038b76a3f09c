"""Puts a report together and writes it: metrics, predictions, figures, the page and its short form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.model_report import (
    comparison,
    figures,
    images,
    label_errors,
    page,
    predictions,
    report_files,
    scores,
)
from components.model_report.predictions import Predictions

_DPI = 144
# What the page has room for.
_MISTAKES = 24
_SUSPECTS_SHOWN = 24
_SUSPECTS_LISTED = 100
_CONFUSED_PAIRS = 6
_IMAGES_PER_PAIR = 6
_IMAGES_OF_CLASSES = 200
_MOST_IMAGES_PER_CLASS = 6
# The train split is in random order, so that its beginning has all but the rarest classes.
_LOOKED_AT_PER_CLASS = 100

Explain = Callable[[Sequence[bytes], np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """What a report is made from.

    Attributes:
      predictions: of the model.
      baseline: predictions of the last blessed model on the same examples; None without one.
      class_names: names by class.
      test_files: the examples of `predictions`, in their order: gzip-compressed TFRecord files.
      train_files: likewise, of which a few images are shown.
      explain: says where the network looked: encoded images and int [images] classes to heat,
        float [images, height, width] in [0, 1].
    """

    predictions: Predictions
    baseline: Predictions | None
    class_names: Sequence[str]
    test_files: Sequence[str]
    train_files: Sequence[str]
    explain: Explain


def write(directory: Path, evidence: Evidence, context: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the report of a model.

    Args:
      directory: where to; it exists.
      evidence: what the report is made from.
      context: what else `metrics.json` holds, as the README lists it: what is known of the run, of the
        training and of the data.

    Returns:
      What `metrics.json` holds.
    """
    names = evidence.class_names
    suspects = label_errors.find(evidence.predictions.labels, evidence.predictions.probabilities)
    report = {
        **context,
        **scores.compute(evidence.predictions, names),
        "comparison": comparison.compare(evidence.baseline, evidence.predictions, names)
        if evidence.baseline
        else None,
        "label_error_count": len(suspects[0]),
        "label_errors": _describe_suspects(evidence, suspects),
    }
    drawn = _draw(report, evidence)
    for name, figure in drawn.items():
        for extension in ("png", "svg"):
            figure.savefig(directory / f"{name}.{extension}", dpi=_DPI)
    pngs = {name: (directory / f"{name}.png").read_bytes() for name in drawn}
    predictions.write(evidence.predictions, names, directory / report_files.PREDICTIONS)
    (directory / report_files.METRICS).write_text(
        json.dumps(report, indent=2, allow_nan=False), encoding="utf-8"
    )
    (directory / report_files.MARKDOWN).write_text(page.render_markdown(report), encoding="utf-8")
    pictures = _Pictures(evidence, report, suspects).gather()
    (directory / report_files.PAGE).write_text(page.render_html(report, pngs, pictures), encoding="utf-8")
    return report


def _draw(report: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    names = evidence.class_names
    labels, probabilities = evidence.predictions.labels, evidence.predictions.probabilities
    epochs, best = report["history"]["epochs"], report["history"]["best"]
    matrix = report["confusion_matrix"]
    drawn = {
        "accuracy_and_loss": figures.accuracy_and_loss(epochs, best),
        "learning_rate": figures.learning_rate(epochs, best),
        "confusion_matrix": figures.confusion_matrix(matrix, names, normalized=False),
        "confusion_matrix_normalized": figures.confusion_matrix(matrix, names, normalized=True),
        "per_class": figures.per_class(report["classes"]),
        "roc": figures.roc(labels, probabilities, names),
        "precision_recall": figures.precision_recall(labels, probabilities, names),
        "reliability": figures.reliability(report["calibration"], report["calibration_error"]),
    }
    if report["trials"]:
        drawn["trials"] = figures.trials(report["trials"])
    return drawn


def _describe_suspects(evidence: Evidence, suspects: tuple[np.ndarray, np.ndarray]) -> list[dict[str, Any]]:
    made = evidence.predictions
    return [
        {
            "id": made.ids[index],
            "label": evidence.class_names[made.labels[index]],
            "suggested": evidence.class_names[suggested],
            "label_probability": float(made.probabilities[index, made.labels[index]]),
            "suggested_probability": float(made.probabilities[index, suggested]),
        }
        for index, suggested in zip(*(part[:_SUSPECTS_LISTED] for part in suspects), strict=True)
    ]


class _Pictures:
    """The images that the page shows."""

    def __init__(
        self, evidence: Evidence, report: Mapping[str, Any], suspects: tuple[np.ndarray, np.ndarray]
    ) -> None:
        self._evidence = evidence
        self._report = report
        made = evidence.predictions
        self._confidence = made.probabilities.max(axis=1)
        wrong = np.flatnonzero(made.predicted != made.labels)
        self._mistakes = wrong[np.argsort(-self._confidence[wrong], kind="stable")]
        self._suspects = suspects[0][:_SUSPECTS_SHOWN]

    def gather(self) -> dict[str, list[dict[str, Any]]]:
        """Reads the images, all of the test split at once, and makes what the page shows of them."""
        shown = self._mistakes[:_MISTAKES]
        pairs = self._indices_of_pairs()
        wanted = {*shown, *self._suspects, *(i for pair in pairs for i in pair)}
        encoded = images.read(self._evidence.test_files, map(int, wanted))
        made = self._evidence.predictions
        heat: Iterable[np.ndarray] = ()
        if len(shown):
            heat = self._evidence.explain([encoded[i] for i in shown], made.predicted[shown])
        return {
            "classes": self._classes(),
            "mistakes": [
                {
                    "id": made.ids[index],
                    "actual": self._evidence.class_names[made.labels[index]],
                    "predicted": self._evidence.class_names[made.predicted[index]],
                    "confidence": float(self._confidence[index]),
                    "image": images.thumbnail(encoded[index]),
                    "attribution": images.heat_overlay(encoded[index], of_image),
                }
                for index, of_image in zip(shown, heat, strict=True)
            ],
            "confused": [
                {**pair, "images": [images.thumbnail(encoded[i]) for i in indices]}
                for pair, indices in zip(self._report["most_confused"], pairs, strict=False)
            ],
            "label_errors": [
                {**suspect, "image": images.thumbnail(encoded[index])}
                for index, suspect in zip(self._suspects, self._report["label_errors"], strict=False)
            ],
        }

    def _indices_of_pairs(self) -> list[np.ndarray]:
        """The most confident mistakes of each of the most confused pairs of classes."""
        made = self._evidence.predictions
        position = {name: i for i, name in enumerate(self._evidence.class_names)}
        pairs = []
        for pair in self._report["most_confused"][:_CONFUSED_PAIRS]:
            actual, predicted = position[pair["actual"]], position[pair["predicted"]]
            of_pair = (made.labels[self._mistakes] == actual) & (made.predicted[self._mistakes] == predicted)
            pairs.append(self._mistakes[of_pair][:_IMAGES_PER_PAIR])
        return pairs

    def _classes(self) -> list[dict[str, Any]]:
        names = self._evidence.class_names
        per_class = max(1, min(_MOST_IMAGES_PER_CLASS, _IMAGES_OF_CLASSES // len(names)))
        limit = _LOOKED_AT_PER_CLASS * len(names)
        samples = images.sample(self._evidence.train_files, len(names), per_class, limit)
        return [
            {"name": name, "images": [images.thumbnail(encoded) for encoded in of_class]}
            for name, of_class in zip(names, samples, strict=True)
        ]
