"""Draws the figures of a hyperparameter search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from components.model_report import search
from components.model_report.figures import BLACK, BLUE, ORANGE, put_legend_below

_WIDTH, _PANEL_HEIGHT = 6.4, 3.2  # inches
_MOST_SLICES = 2
_USUALLY_IMPORTANT = ("trainer.learning_rate", "trainer.batch_size")
_MOST_AXES = 8  # settings with room in the parallel coordinates
_LONGEST_VALUE = 14  # characters
_COLOURS = "viridis"  # readable for the colour-blind, and in grey


def slices(trials: Sequence[Mapping[str, Any]], described: Mapping[str, Any]) -> Figure:
    """Draws the validation accuracy of each trial over the two settings that matter most.

    Args:
      trials: rows of `trials` of `metrics.json`, at least one.
      described: `search` of `metrics.json`.

    Returns:
      The figure; without known importance, that of the first settings of `ranked`.
    """
    keys = ranked(described)[:_MOST_SLICES]
    figure = Figure(figsize=(_WIDTH, 0.8 + _PANEL_HEIGHT * len(keys)), layout="constrained")
    figure.suptitle("Trials of the hyperparameter search")
    panels = figure.subplots(len(keys), 1, squeeze=False)[:, 0]
    for axes, key in zip(panels, keys, strict=True):
        _draw_slice(axes, trials, described["best"], key)
    put_legend_below(figure, panels[0], columns=3)
    return figure


def _draw_slice(axes: Axes, trials: Sequence[Mapping[str, Any]], best: int, key: str) -> None:
    values = [trial[key] for trial in trials]
    numbers = search.are_numbers(values)
    known = search.categories(values)
    places = values if numbers else [known.index(search.text(value)) for value in values]
    for state, marker, colour, label in (
        ("complete", "o", BLUE, "trained to its end"),
        ("pruned", "v", ORANGE, "stopped early"),
    ):
        points = [
            (place, trial["score"])
            for place, trial in zip(places, trials, strict=True)
            if trial["state"] == state
        ]
        if points:
            x, y = np.transpose(points)
            axes.scatter(x, y, s=40, color=colour, marker=marker, label=label)
    failed = [place for place, trial in zip(places, trials, strict=True) if trial["score"] is None]
    if failed:
        axes.plot(
            failed,
            np.zeros(len(failed)),
            "x",
            color=BLACK,
            label="failed (no accuracy)",
            transform=axes.get_xaxis_transform(),  # y = 0 is the lower edge of the axes
            clip_on=False,
        )
    for place, trial in zip(places, trials, strict=True):
        if trial["trial"] == best:
            axes.scatter(place, trial["score"], s=200, facecolors="none", edgecolors=BLACK, label="best")
    axes.set(xlabel=key, ylabel="Validation accuracy")
    axes.grid(alpha=0.3)
    if not numbers:
        axes.set_xlim(-0.5, len(known) - 0.5)
        axes.set_xticks(range(len(known)), [shorten(name) for name in known])
    elif search.is_logarithmic(values):
        axes.set_xscale("log")


def parallel_coordinates(trials: Sequence[Mapping[str, Any]], described: Mapping[str, Any]) -> Figure:
    """Draws each trial as a line through its values, coloured by its validation accuracy.

    Args:
      trials: rows of `trials` of `metrics.json`, at least one with a score.
      described: `search` of `metrics.json`.

    Returns:
      The figure; of many settings, it shows the most important ones.
    """
    keys = ranked(described)[:_MOST_AXES]
    scored = sorted((t for t in trials if t["score"] is not None), key=lambda trial: trial["score"])
    scores = [trial["score"] for trial in scored]
    figure = Figure(figsize=(_WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    columns = [*([trial[key] for trial in scored] for key in keys), scores]
    heights = np.column_stack([_scale(search.position(values)) for values in columns])
    colours = Normalize(min(scores), max(scores))
    for trial, line in zip(scored, heights, strict=True):
        is_best = trial["trial"] == described["best"]
        colour = colormaps[_COLOURS](colours(trial["score"]))
        axes.plot(line, color=colour, linewidth=3 if is_best else 1.2, alpha=1 if is_best else 0.8)
    for index, values in enumerate(columns):
        axes.axvline(index, color=BLACK, linewidth=0.8)
        for height, text in _labels(values):
            axes.annotate(
                text, (index, height), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7
            )
    axes.set_xticks(range(len(columns)), [*keys, "accuracy"], rotation=30, ha="right", fontsize=8)
    axes.yaxis.set_major_locator(NullLocator())
    axes.set(title="Values of each trial, and its validation accuracy", xlim=(-0.1, len(columns) - 0.6))
    bar = figure.colorbar(ScalarMappable(colours, _COLOURS), ax=axes, label="Validation accuracy")
    bar.ax.yaxis.set_major_locator(FixedLocator(np.unique([min(scores), max(scores)]).tolist()))
    return figure


def ranked(described: Mapping[str, Any]) -> list[str]:
    """Lists the searched settings, the most important first.

    If the importance is not known, those come first that matter in most trainings.
    """
    if described["importance"]:
        return list(described["importance"])
    usual = [key for key in _USUALLY_IMPORTANT if key in described["settings"]]
    return [*usual, *(key for key in described["settings"] if key not in usual)]


def shorten(text: str) -> str:
    """Cuts a text that has no room in a figure."""
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _scale(positions: np.ndarray) -> np.ndarray:
    """Scales positions to 0 to 1; a setting with a single value is in the middle."""
    width = np.ptp(positions)
    return (positions - positions.min()) / width if width else np.full(len(positions), 0.5)


def _labels(values: Sequence[Any]) -> list[tuple[float, str]]:
    """Returns the height and the text of the labels of an axis: its ends, or each of its categories."""
    if search.are_numbers(values):
        ends = sorted({min(values), max(values)})
        return [(height, f"{value:.3g}") for value, height in zip(ends, _scale(np.array(ends)), strict=True)]
    known = search.categories(values)
    heights = _scale(np.arange(len(known), dtype=float))
    return [(height, shorten(name)) for height, name in zip(heights, known, strict=True)]
