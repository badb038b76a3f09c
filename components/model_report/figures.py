"""The figures of a report, drawn by matplotlib in the colour-blind-safe palette of Okabe and Ito (2008)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#777777"
# Up to this many classes the numbers in the cells of a confusion matrix can be read.
_MOST_LABELLED_CELLS = 20


def training_curves(epochs: Sequence[dict[str, Any]], best: int) -> Figure:
    """Draws accuracy, loss and learning rate by epoch, with the epoch that was kept.

    Args:
      epochs: rows of the training history, with `loss`, `accuracy`, `val_loss`, `val_accuracy`,
        `learning_rate` each.
      best: index of the epoch that was kept.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    x = np.arange(1, len(epochs) + 1)
    for axes, (title, train, val) in zip(
        figure.subplots(1, 3),
        [
            ("Accuracy", "accuracy", "val_accuracy"),
            ("Loss", "loss", "val_loss"),
            ("Learning rate", "learning_rate", None),
        ],
        strict=True,
    ):
        axes.plot(x, [row[train] for row in epochs], "o-", color=BLUE, markersize=3, label="train")
        if val:
            axes.plot(x, [row[val] for row in epochs], "s-", color=ORANGE, markersize=3, label="validation")
            axes.axvline(best + 1, color=GREY, linestyle=":", label=f"kept: epoch {best + 1}")
            axes.legend()
        axes.set(title=title, xlabel="Epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    return figure


def confusion_matrix(counts: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Draws shares of each actual class by colour, and counts as numbers where there is room."""
    matrix = np.asarray(counts)
    number = len(class_names)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    side = min(14.0, 3 + 0.5 * number)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="Share of the actual class", shrink=0.8)
    font_size = 10 if number <= _MOST_LABELLED_CELLS else max(3, 200 / number)
    axes.set_xticks(range(number), [_plain(n) for n in class_names], rotation=90, fontsize=font_size)
    axes.set_yticks(range(number), [_plain(n) for n in class_names], fontsize=font_size)
    axes.set(xlabel="Predicted class", ylabel="Actual class")
    if number <= _MOST_LABELLED_CELLS:
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return figure


def per_class(classes: Sequence[dict[str, Any]]) -> Figure:
    """Draws precision, recall and F1 of each class as bars."""
    figure = Figure(figsize=(max(6.0, min(24.0, 2 + 0.8 * len(classes))), 4), layout="constrained")
    axes = figure.subplots()
    x = np.arange(len(classes))
    bars = [("precision", "Precision", BLUE), ("recall", "Recall", ORANGE), ("f1", "F1", GREEN)]
    for offset, (key, label, colour) in zip((-0.27, 0, 0.27), bars, strict=True):
        axes.bar(x + offset, [c[key] for c in classes], width=0.25, color=colour, label=label)
    axes.set_xticks(x, [_plain(c["name"]) for c in classes], rotation=45 if len(classes) > 6 else 0)
    axes.set(ylim=(0, 1))
    axes.grid(axis="y", alpha=0.3)
    figure.legend(ncols=3, loc="outside upper center")
    return figure


def _plain(name: str) -> str:
    # matplotlib reads text between dollar signs as mathematics, and fails on what is none.
    return name.replace("$", r"\$")
