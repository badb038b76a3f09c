"""Renders the result of a comparison as one HTML page that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from serving.drift.samples import NUMBERS, Sample
from serving.drift.two_sample import CLASSES, FEATURES, Comparison

# Of the colour-blind-safe palette of Okabe and Ito.
_WINDOW, _REFERENCE = "#D55E00", "#0072B2"
_WIDTH = 6.4  # inches
_BINS = 30
_MOST_CLASSES = 30
_MOST_POINTS = 1000
# Images that are shown, and their largest side in pixels.
_PICTURES, _SIDE = 24, 192
# Newer versions of matplotlib want the keys as literals.
_STYLE: Any = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "drift"}


def render(
    result: Mapping[str, Any], conclusion: str, window: Sample, reference: Sample, comparison: Comparison
) -> str:
    """Renders the page.

    Args:
      result: what is written as JSON.
      conclusion: what was found, in a sentence.
      window: images of the window that were compared.
      reference: images that they were compared with.
      comparison: the outcomes of the tests.

    Returns:
      The HTML.
    """
    with mpl.rc_context(_STYLE):
        figures = {
            **{name: _histogram(window.numbers(name), reference.numbers(name), name) for name in NUMBERS},
            CLASSES: _shares(window.classes(), reference.classes()),
            FEATURES: _scatter(*(_some(sample).features() for sample in (window, reference))),
        }
        sources = {name: _svg(figure) for name, figure in figures.items()}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        result=result,
        conclusion=conclusion,
        outcomes=comparison.outcomes,
        figures=sources,
        pictures=_pictures(window.take(comparison.strangest[:_PICTURES])),
    )


def _histogram(window: np.ndarray, reference: np.ndarray, name: str) -> Figure:
    figure, axes = _figure(3)
    both = np.concatenate([window, reference])
    edges = np.histogram_bin_edges(both, _BINS)
    for values, colour, label, style in _both(window, reference):
        shares = np.histogram(values, edges)[0] / len(values)
        axes.stairs(100 * shares, edges, color=colour, label=label, linewidth=1.8, linestyle=style)
    axes.set(xlabel=name.capitalize(), ylabel="Images (%)")
    axes.legend(frameon=False)
    return figure


def _shares(window: np.ndarray, reference: np.ndarray) -> Figure:
    names, counts = np.unique(np.concatenate([window, reference]).astype(str), return_counts=True)
    names = names[np.argsort(-counts, kind="stable")][:_MOST_CLASSES]
    figure, axes = _figure(1 + 0.35 * len(names))
    places = np.arange(len(names))
    for offset, (values, colour, label, _) in zip((0.2, -0.2), _both(window, reference), strict=True):
        shares = [np.mean(values == name) for name in names]
        axes.barh(places - offset, 100 * np.array(shares), 0.38, color=colour, label=label)
    axes.set_yticks(places, [name if len(name) <= 24 else f"{name[:23]}…" for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="Answers (%)")
    axes.legend(frameon=False)
    return figure


def _scatter(window: np.ndarray, reference: np.ndarray) -> Figure:
    figure, axes = _figure(4.5)
    both = np.concatenate([window, reference])
    deviations = both.std(axis=0)
    points = PCA(min(2, both.shape[1]), random_state=0).fit_transform(
        (both - both.mean(axis=0)) / np.where(deviations > 0, deviations, 1)
    )
    points = np.pad(points, [(0, 0), (0, 2 - points.shape[1])])
    parts = (points[: len(window)], points[len(window) :])
    for (values, colour, label, _), marker in zip(_both(*parts), "x.", strict=True):
        axes.scatter(values[:, 0], values[:, 1], 14, color=colour, label=label, marker=marker, linewidths=0.8)
    axes.set(xlabel="First principal component", ylabel="Second")
    axes.legend(frameon=False)
    return figure


def _both(window: np.ndarray, reference: np.ndarray) -> list[tuple[np.ndarray, str, str, str]]:
    return [(window, _WINDOW, "logged", "-"), (reference, _REFERENCE, "reference", "--")]


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _some(sample: Sample) -> Sample:
    return sample.take(np.random.default_rng(0).permutation(len(sample))[:_MOST_POINTS])


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _pictures(sample: Sample) -> list[dict[str, Any]]:
    """Returns the logged images with their answers; none if images were not logged."""
    images = sample.images() or []
    return [
        {"source": source, "class": name, "confidence": confidence, "time": time}
        for image, name, confidence, time in zip(
            images,
            sample.classes(),
            sample.numbers("confidence"),
            sample.table["time"].to_pylist(),
            strict=False,
        )
        if (source := _png(image)) is not None
    ]


def _png(image: bytes) -> str | None:
    """Returns a small copy of an image; None if Pillow, unlike the model, does not decode it."""
    buffer = io.BytesIO()
    try:
        with PIL.Image.open(io.BytesIO(image)) as opened:
            opened.thumbnail((_SIDE, _SIDE))
            opened.convert("RGB").save(buffer, "PNG")
    except (OSError, ValueError, PIL.Image.DecompressionBombError):
        return None
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
