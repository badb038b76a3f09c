"""Assembles and writes a report: metrics, predictions, figures, the page and its short form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.model_report import (
    comparison,
    confidence,
    figures,
    images,
    label_errors,
    page,
    predictions,
    report_files,
    review,
    robustness_figures,
    scores,
    search_figures,
)
from components.model_report.predictions import Predictions
from datasets.decoding import WHITE

_DPI = 144
# Limits that keep the page small enough to open and to read.
_MISTAKES = 24  # images of the most confident mistakes
_SUSPECTS_SHOWN = 24  # images with likely label errors
_SUSPECTS_LISTED = 100  # likely label errors in `metrics.json` and in the page's table
_CONFUSED_PAIRS = 6  # pairs of classes with images
_IMAGES_PER_PAIR = 6
_IMAGES_OF_CLASSES = 200  # images of the train split, all classes together
_MOST_IMAGES_PER_CLASS = 6
# Training records to search for images, multiplied by the number of classes. The train split is in random
# order, so that its beginning holds examples of all but the rarest classes.
_RECORDS_READ_PER_CLASS = 100

# Encoded images -> the images as the network sees them, uint8 [images, height, width, 3], and heat, float
# [images, height, width] in [0, 1].
Explain = Callable[[Sequence[bytes]], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Evidence:
    """The predictions, images and explanations from which a report is made.

    Attributes:
      predictions: predictions of the model.
      baseline: predictions of the last blessed model on the same examples; None if there is no such model.
      class_names: names of the classes, in the order of their indices.
      test_files: TFRecord files of the examples of `predictions`, in the same order.
      train_files: TFRecord files of the train split, of which a few images are shown.
      explain: function that computes which pixels contribute to the predicted class: from encoded images to
        the images as the network sees them, uint8 [images, height, width, 3], and heat, float [images,
        height, width] in [0, 1].
      background: red, green and blue behind the transparent pixels of images, each from 0 to 255.
      abstain_below: probability below which the model names no class; None if it always names one.
      corrupted: the image of which the report shows the corruptions, as the network sees it, uint8 [height,
        width, 3]; None if the model was not measured on corrupted images.
    """

    predictions: Predictions
    baseline: Predictions | None
    class_names: Sequence[str]
    test_files: Sequence[str]
    train_files: Sequence[str]
    explain: Explain
    background: tuple[int, int, int] = WHITE
    abstain_below: float | None = None
    corrupted: np.ndarray | None = None


def write(directory: Path, evidence: Evidence, context: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the files of a report on a model.

    Args:
      directory: existing folder for the files.
      evidence: predictions, images and explanations.
      context: all keys of `metrics.json` that do not follow from the predictions: those about the run, the
        verdict, the training and the data. README.md in this folder lists the keys. `data_findings`, which
        may be missing, is the content of DataGate's `findings.json`; `metrics.json` gets its counts only.

    Returns:
      The content of `metrics.json`.
    """
    names, findings = evidence.class_names, context.get("data_findings")
    suspects = label_errors.find(evidence.predictions.labels, evidence.predictions.probabilities)
    report = {
        **context,
        **scores.compute(evidence.predictions, names),
        **confidence.evaluate(
            evidence.predictions, context["history"].get("calibration"), evidence.abstain_below
        ),
        "comparison": comparison.compare(evidence.baseline, evidence.predictions, names)
        if evidence.baseline
        else None,
        "label_error_count": len(suspects[0]),
        "label_errors": _describe_suspects(evidence, suspects),
        "data_findings": review.count_findings(findings),
    }
    plots = _draw(report, evidence)
    for name, figure in plots.items():
        for extension in ("png", "svg"):
            figure.savefig(directory / f"{name}.{extension}", dpi=_DPI)
    pngs = {name: (directory / f"{name}.png").read_bytes() for name in plots}
    predictions.write(evidence.predictions, names, directory / report_files.PREDICTIONS)
    (directory / report_files.METRICS).write_text(
        json.dumps(report, indent=2, allow_nan=False), encoding="utf-8"
    )
    (directory / report_files.MARKDOWN).write_text(page.render_markdown(report), encoding="utf-8")
    pictures = {
        **_Pictures(evidence, report, suspects).gather(),
        **review.list_findings(findings),
    }
    (directory / report_files.PAGE).write_text(page.render_html(report, pngs, pictures), encoding="utf-8")
    return report


def _draw(report: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    """Returns the figures of a report by their names."""
    names = evidence.class_names
    labels, probabilities = evidence.predictions.labels, evidence.predictions.probabilities
    epochs, best = report["history"]["epochs"], report["history"]["best"]
    matrix = report["confusion_matrix"]
    plots = {
        "accuracy_and_loss": figures.accuracy_and_loss(epochs, best),
        "learning_rate": figures.learning_rate(epochs, best),
        "confusion_matrix": figures.confusion_matrix(matrix, names, normalized=False),
        "confusion_matrix_normalized": figures.confusion_matrix(matrix, names, normalized=True),
        "per_class": figures.per_class(report["classes"]),
        "roc": figures.roc(labels, probabilities, names),
        "precision_recall": figures.precision_recall(labels, probabilities, names),
        "reliability": figures.reliability(report["calibration"], report["calibration_error"]),
        "risk_coverage": figures.risk_coverage(report["abstention"]),
    }
    if evidence.corrupted is not None:
        plots["corruptions"] = robustness_figures.accuracies(report["corruptions"])
        plots["corruption_examples"] = robustness_figures.examples(
            report["corruptions"], evidence.corrupted, names
        )
    if report["trials"]:
        plots["trials"] = search_figures.slices(report["trials"], report["search"])
        plots["parallel_coordinates"] = search_figures.parallel_coordinates(
            report["trials"], report["search"]
        )
    return plots


def _describe_suspects(evidence: Evidence, suspects: tuple[np.ndarray, np.ndarray]) -> list[dict[str, Any]]:
    ids, labels = evidence.predictions.ids, evidence.predictions.labels
    probabilities = evidence.predictions.probabilities
    return [
        {
            "id": ids[index],
            "label": evidence.class_names[labels[index]],
            "suggested": evidence.class_names[suggested],
            "label_probability": float(probabilities[index, labels[index]]),
            "suggested_probability": float(probabilities[index, suggested]),
        }
        for index, suggested in zip(*(values[:_SUSPECTS_LISTED] for values in suspects), strict=True)
    ]


class _Pictures:
    """Selects and reads the images that the page shows."""

    def __init__(
        self, evidence: Evidence, report: Mapping[str, Any], suspects: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Selects the images.

        Args:
          evidence: predictions and images.
          report: content of `metrics.json`.
          suspects: likely label errors, from `label_errors.find`.
        """
        self._evidence = evidence
        self._report = report
        self._predictions = evidence.predictions
        self._confidence = self._predictions.probabilities.max(axis=1)
        wrong = np.flatnonzero(self._predictions.predicted != self._predictions.labels)
        self._mistakes = wrong[np.argsort(-self._confidence[wrong], kind="stable")]
        self._suspects = suspects[0][:_SUSPECTS_SHOWN]
        self._ids = frozenset(self._predictions.ids)

    def gather(self) -> dict[str, list[dict[str, Any]]]:
        """Reads the images and returns them as data URIs, in the form that `page.render_html` takes.

        The test split is read only once, for all the images of it that the page shows.
        """
        mistakes = self._mistakes[:_MISTAKES]
        pairs = self._indices_of_pairs()
        indices_to_read = {*mistakes, *self._suspects, *(i for pair in pairs for i in pair)}
        stored = images.read(self._evidence.test_files, map(int, indices_to_read))
        encoded = {index: each.encoded for index, each in stored.items()}
        own_ids = {index: each.id if self._is_unique(each.id) else "" for index, each in stored.items()}
        ids, labels, predicted = self._predictions.ids, self._predictions.labels, self._predictions.predicted
        names = self._evidence.class_names
        explained: Iterable[tuple[np.ndarray, np.ndarray]] = ()
        if len(mistakes):
            explained = zip(*self._evidence.explain([encoded[i] for i in mistakes]), strict=True)
        return {
            "classes": self._classes(),
            "mistakes": [
                {
                    "id": ids[index],
                    "own_id": own_ids[index],
                    "actual": names[labels[index]],
                    "predicted": names[predicted[index]],
                    "confidence": float(self._confidence[index]),
                    "image": self._thumbnail(encoded[index]),
                    "attribution": images.heat_overlay(*seen_and_heat),
                }
                for index, seen_and_heat in zip(mistakes, explained, strict=True)
            ],
            "confused": [
                {**pair, "images": [self._thumbnail(encoded[i]) for i in indices]}
                for pair, indices in zip(self._report["most_confused"], pairs, strict=False)
            ],
            "label_errors": [
                {**suspect, "own_id": own_ids[index], "image": self._thumbnail(encoded[index])}
                for index, suspect in zip(self._suspects, self._report["label_errors"], strict=False)
            ],
        }

    def _thumbnail(self, encoded: bytes) -> str:
        return images.thumbnail(encoded, background=self._evidence.background)

    def _is_unique(self, example_id: str) -> bool:
        return predictions.repeat(example_id, 2) not in self._ids

    def _indices_of_pairs(self) -> list[np.ndarray]:
        """Returns the indices of the most confident mistakes for each of the most confused pairs."""
        labels = self._predictions.labels[self._mistakes]
        predictions_of_mistakes = self._predictions.predicted[self._mistakes]
        position = {name: i for i, name in enumerate(self._evidence.class_names)}
        pairs = []
        for pair in self._report["most_confused"][:_CONFUSED_PAIRS]:
            actual, predicted = position[pair["actual"]], position[pair["predicted"]]
            in_pair = (labels == actual) & (predictions_of_mistakes == predicted)
            pairs.append(self._mistakes[in_pair][:_IMAGES_PER_PAIR])
        return pairs

    def _classes(self) -> list[dict[str, Any]]:
        """Returns a few training images of each class."""
        names = self._evidence.class_names
        per_class = max(1, min(_MOST_IMAGES_PER_CLASS, _IMAGES_OF_CLASSES // len(names)))
        limit = _RECORDS_READ_PER_CLASS * len(names)
        samples = images.sample(self._evidence.train_files, len(names), per_class, limit)
        return [
            {"name": name, "images": [self._thumbnail(encoded) for encoded in class_images]}
            for name, class_images in zip(names, samples, strict=True)
        ]
