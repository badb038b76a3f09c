"""Words the part of a report about corrupted images."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from components.model_report.percentages import LEVEL, percent, percent_interval
from models.corruptions import CORRUPTIONS, STRENGTHS, by_name

# The mean confidence that is this much above the accuracy is worth a sentence.
_OVERCONFIDENT = 0.1


def describe_corruptions(measured: Mapping[str, Any]) -> list[str]:
    """Returns sentences on how robust the model is.

    Args:
      measured: `corruptions` of `metrics.json`.
    """
    images = f"{measured['images']:,}"
    if measured["images"] < measured["available"]:
        images += f" of {measured['available']:,}"
    sentences = [
        f"Measured on {images} images, corrupted in {len(CORRUPTIONS)} ways at three strengths each, at the "
        f"size of the network's input: {percent(measured['accuracy'])} of the answers are right on average"
        f" ({LEVEL} interval: {percent_interval(measured['intervals']['accuracy'])}), and without corruption "
        f"{percent(measured['clean']['accuracy'])}."
    ]
    means = {row["name"]: row["mean"] for row in _means(measured)}
    worst, best = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[worst] < means[best]:
        sentences.append(
            f"On average over the strengths, the accuracy is lowest with {worst}, {percent(means[worst])}, "
            f"and highest with {best}, {percent(means[best])}."
        )
    surest = max(measured["measured"], key=lambda row: row["confidence"] - row["accuracy"])
    if surest["confidence"] - surest["accuracy"] >= _OVERCONFIDENT:
        sentences.append(
            f"The model is too confident with some corruptions: with {surest['description']}, its mean "
            f"confidence is {percent(surest['confidence'])}, and "
            f"{percent(surest['accuracy'])} of its answers are right."
        )
    return sentences


def corruption_rows(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    """Formats the accuracy for each corruption.

    Args:
      measured: `corruptions` of `metrics.json`.

    Returns:
      Rows of text: `name`, and the accuracies `weak`, `medium`, `strong` and their `mean`.
    """
    return [
        {key: value if key == "name" else percent(value) for key, value in row.items()}
        for row in _means(measured)
    ]


def _means(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    accuracies = by_name([row["accuracy"] for row in measured["measured"]])
    return [
        {"name": name, **dict(zip(STRENGTHS, values, strict=True)), "mean": statistics.fmean(values)}
        for name, values in accuracies.items()
    ]


def describe_accuracies(measured: Mapping[str, Any]) -> str:
    """Describes the figure of the accuracy for each corruption, as alternative text.

    Args:
      measured: `corruptions` of `metrics.json`.
    """
    ranges = "; ".join(
        f"{row['name']} from {row['weak']} to {row['strong']}" for row in corruption_rows(measured)
    )
    clean = percent(measured["clean"]["accuracy"])
    return f"Accuracy on corrupted images, from weak to strong: {ranges}. Without corruption it is {clean}."


def describe_examples(measured: Mapping[str, Any]) -> str:
    """Describes the figure of the example, as alternative text.

    Args:
      measured: `corruptions` of `metrics.json`.
    """
    predicted = measured["example"]["predicted"]
    right = sum(each == measured["example"]["label"] for each in predicted)
    return (
        f"One image in every way and strength of corruption; {right} of {len(predicted)} answers are right."
    )
