"""Puts a report together and writes it: `metrics.json`, the figures, `index.html`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.model_report import figures, metrics, page
from components.model_report.predictions import Predictions

METRICS = "metrics.json"
PAGE = "index.html"
_MOST_CONFUSED = 5


def write(
    directory: Path,
    predictions: Predictions,
    class_names: Sequence[str],
    history: Mapping[str, Any],
    context: Mapping[str, Any],
) -> None:
    """Writes the report of a model.

    Args:
      directory: where to; it exists.
      predictions: on the test split.
      class_names: names by class.
      history: of training: `epochs` (a row each) and `best`, the index of the one that was kept.
      context: what else `metrics.json` holds: `name`, `architecture`, `image_size`, `blessed`,
        `failed_gates`, `hyperparameters` (name -> `value` and `source`).
    """
    report = {
        **context,
        **metrics.compute(predictions.labels, predictions.probabilities, class_names),
        "history": history,
    }
    report["most_confused"] = most_confused(report["confusion_matrix"], class_names)
    images = {
        "training_curves": page.png(figures.training_curves(history["epochs"], history["best"])),
        "confusion_matrix": page.png(figures.confusion_matrix(report["confusion_matrix"], class_names)),
        "per_class": page.png(figures.per_class(report["classes"])),
    }
    for name, content in images.items():
        (directory / f"{name}.png").write_bytes(content)
    (directory / METRICS).write_text(json.dumps(report, indent=2), encoding="utf-8")
    (directory / PAGE).write_text(page.render(report, images), encoding="utf-8")


def most_confused(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Lists the most frequent mistakes, most first: `actual`, `predicted` (names), `count`."""
    mistakes = [
        (count, actual, predicted)
        for actual, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if actual != predicted and count
    ]
    mistakes.sort(key=lambda m: (-m[0], m[1], m[2]))
    return [
        {"actual": class_names[a], "predicted": class_names[p], "count": count}
        for count, a, p in mistakes[:_MOST_CONFUSED]
    ]
