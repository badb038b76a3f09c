"""Draws the figures of a report about corrupted images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from components.model_report.figures import BLACK, BLUE, SKY, VERMILLION, drawable, put_legend_below, shorten
from models import corruptions

_LEVELS = dict(zip(corruptions.STRENGTHS, (SKY, BLUE, "#003A5C"), strict=True))  # strength -> colour
_LONGEST_ANSWER = 12  # characters below an image
_MARGIN = 0.12  # for the names of the strengths, in parts of the longer side of an image
_BAR = 0.27  # width, where the bars of two corruptions are 1 apart


def accuracies(measured: Mapping[str, Any]) -> Figure:
    """Draws the accuracy for each corruption and strength, with that without corruption as a line.

    Args:
      measured: `corruptions` of `metrics.json`.

    Returns:
      The figure.
    """
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    for index, (level, colour) in enumerate(_LEVELS.items()):
        rows = measured["measured"][index :: len(_LEVELS)]
        values = np.array([row["accuracy"] for row in rows])
        low, high = np.array([row["intervals"]["accuracy"] for row in rows]).T
        axes.bar(
            np.arange(len(rows)) + (index - 1) * _BAR,
            values,
            _BAR,
            yerr=np.clip([values - low, high - values], 0, None),
            color=colour,
            ecolor="#444444",
            error_kw={"linewidth": 1},
            label=level,
        )
    axes.axhline(measured["clean"]["accuracy"], color=BLACK, linestyle="--", label="not corrupted")
    axes.axhline(measured["accuracy"], color=VERMILLION, linestyle=":", label="mean of all corruptions")
    axes.set_xticks(range(len(corruptions.CORRUPTIONS)), list(corruptions.CORRUPTIONS))
    axes.set(title="Accuracy on corrupted images", ylabel="Accuracy (share of images)", ylim=(0, 1))
    axes.grid(axis="y", color="#DDDDDD")
    axes.set_axisbelow(True)
    put_legend_below(figure, axes, columns=3)
    return figure


def examples(measured: Mapping[str, Any], image: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws an image in every way and strength of corruption, with the model's answers.

    Args:
      measured: `corruptions` of `metrics.json`.
      image: the image of its `example`, uint8 [height, width, 3].
      class_names: names of the classes, in the order of their indices.

    Returns:
      The figure.
    """
    names, label = drawable(class_names), measured["example"]["label"]
    height, width = (side / max(image.shape[:2]) for side in image.shape[:2])
    column, row = width + 0.1, height + 0.32  # in units of the longer side of the image
    figure = Figure(figsize=(8, 8 * (4 * row + 0.2) / (7 * column + _MARGIN)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()

    def show(tile: np.ndarray, x: float, y: float) -> None:
        axes.imshow(tile, extent=(x, x + width, y + height, y), interpolation="nearest")

    show(image, 0, 0)
    axes.text(column, height / 2, f"not corrupted, labelled {names[label]}", va="center", parse_math=False)
    for index, name in enumerate(corruptions.CORRUPTIONS):
        axes.text(index * column + width / 2, row - 0.06, name, ha="center", va="bottom")
    for index, level in enumerate(_LEVELS, start=1):
        axes.text(-0.08, index * row + height / 2, level, ha="center", va="center", rotation="vertical")
    for index, (cell, predicted) in enumerate(
        zip(corruptions.CELLS, measured["example"]["predicted"], strict=True)
    ):
        x, y = index // 3 * column, (1 + index % 3) * row
        show(corruptions.corrupt(image[None], *cell)[0], x, y)
        right = predicted == label
        axes.text(
            x + width / 2,
            y + height + 0.03,
            f"{'✓' if right else '✗'} {shorten(names[predicted], _LONGEST_ANSWER)}",
            fontsize=8,
            ha="center",
            va="top",
            color="#00694A" if right else "#B3261E",
            parse_math=False,
        )
    axes.set(xlim=(-0.05 - _MARGIN, 7 * column - 0.05), ylim=(4 * row + 0.1, -0.1))
    return figure
