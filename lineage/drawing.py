"""Draws lineage and runs as SVG, without a library that the page would have to load."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lineage import layout
from lineage.model import Artifact, Execution

# Sizes in pixels.
_LEAST_WIDTH, _CHARACTER, _PADDING = 120, 7, 10
_CHART_WIDTH, _CHART_HEIGHT, _CHART_MARGIN = 760, 260, 46
_MOST_AXES = 9


def graph(artifacts: Sequence[Artifact], executions: Sequence[Execution], chosen: str) -> str:
    """Draws artifacts and the executions between them, from the data at the top downwards.

    Each node is a link to `#artifact-<id>` or `#execution-<id>`.

    Args:
      artifacts: the artifacts.
      executions: the executions.
      chosen: id of the artifact that is marked.

    Returns:
      An `svg` element.
    """
    shown = {("artifact", each.id) for each in artifacts}
    edges = [
        edge
        for each in executions
        for edge in [
            *((("artifact", a.id), ("execution", each.id)) for _, a in each.inputs),
            *((("execution", each.id), ("artifact", a.id)) for _, a in each.outputs if a.made_by is each),
        ]
        if edge[0] in shown or edge[1] in shown
    ]
    labels = {("artifact", each.id): each.label for each in artifacts}
    labels |= {("execution", each.id): each.component for each in executions}
    edges = [edge for edge in edges if edge[0] in labels and edge[1] in labels]
    box = max([_LEAST_WIDTH, *(_CHARACTER * len(label) + 2 * _PADDING for label in labels.values())])
    placed = layout.place(list(labels), edges, box)
    parts = [_line(*line) for line in placed.lines]
    parts += [f'<path d="M{x} {y}V{y + layout.HEIGHT}"/>' for x, y in placed.passes]
    for node, label in labels.items():
        kind, number = node
        marked = " chosen" if node == ("artifact", chosen) else ""
        x, y = placed.corners[node]
        radius = 4 if kind == "artifact" else layout.HEIGHT // 2
        parts.append(
            f'<a href="#{kind}-{html.escape(number)}" class="{kind}{marked}">'
            f'<rect x="{x}" y="{y}" width="{box}" height="{layout.HEIGHT}" rx="{radius}"/>'
            f'<text x="{x + box / 2:g}" y="{y + 21}">{html.escape(label)}</text></a>'
        )
    return (
        f'<svg class="graph" viewBox="0 0 {placed.width} {placed.height}" width="{placed.width}" '
        f'height="{placed.height}" role="group" aria-label="Lineage">{"".join(parts)}</svg>'
    )


def _line(x1: int, y1: int, x2: int, y2: int) -> str:
    bend = (y2 - y1) // 2
    return f'<path d="M{x1} {y1}C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}"/>'


def accuracies(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draws the accuracy of runs in the order of time; blessed and pushed ones are marked.

    Args:
      rows: facts of runs; those without an accuracy are left out.
    """
    shown = [(index, row) for index, row in enumerate(rows) if row["accuracy"] is not None]
    if not shown:
        return ""
    values = [row["accuracy"] for _, row in shown]
    low, high = min(values), max(values)
    margin, right, bottom = _CHART_MARGIN, _CHART_WIDTH - 12, _CHART_HEIGHT - 28
    points = []
    for index, row in shown:
        x = margin + (right - margin) * index / max(len(rows) - 1, 1)
        y = _scale(row["accuracy"], low, high, bottom, 12)
        kind = "pushed" if row["pushed"] else "blessed" if row["blessed"] else "other"
        title = html.escape(f"{row['run']}: accuracy {row['accuracy']:.4f}, {_word(kind)}")
        points.append(
            f'<a href="#run-{html.escape(row["run"])}" aria-label="{title}"><title>{title}</title>'
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/></a>'
        )
    ticks = {value: _scale(value, low, high, bottom, 12) + 4 for value in (low, (low + high) / 2, high)}
    labels = "".join(
        f'<text x="{margin - 6}" y="{y:.1f}" class="end">{value:.3f}</text>' for value, y in ticks.items()
    )
    names = [(margin, "start", str(rows[0]["when"])), (right, "end", str(rows[-1]["when"]))]
    day = slice(0, 10)
    shown_part = slice(0, 16) if names[0][2][day] == names[1][2][day] else day
    labels += "".join(
        f'<text x="{x}" y="{_CHART_HEIGHT - 8}" class="{anchor}">{html.escape(when[shown_part])}</text>'
        for x, anchor, when in names
    )
    axes = f'<path class="axis" d="M{margin} 12V{bottom}H{right}"/>'
    return _chart("Accuracy of the runs in the order of time", axes + labels + "".join(points))


def parallel(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    """Draws each run as a line across its settings to its accuracy.

    Args:
      rows: facts of runs; those without an accuracy are left out.
      keys: the settings; the first nine are drawn.
    """
    rows = [row for row in rows if row["accuracy"] is not None]
    keys = [*keys[:_MOST_AXES], "accuracy"]
    if len(rows) < 2 or len(keys) < 2:
        return ""
    top, bottom = 44, _CHART_HEIGHT - 28
    scales = {key: _positions([row.get(key) for row in rows]) for key in keys}
    xs = [40 + (_CHART_WIDTH - 80) * index / (len(keys) - 1) for index in range(len(keys))]
    parts = []
    for x, key in zip(xs, keys, strict=True):
        positions = scales[key]
        ends = [min(positions, key=positions.__getitem__), max(positions, key=positions.__getitem__)]
        short = html.escape(key.rpartition(".")[2].replace("_", " "))
        parts.append(
            f'<path class="axis" d="M{x:.1f} {top}V{bottom}"/>'
            f'<text class="middle" x="{x:.1f}" y="16">{short}</text>'
            f'<text class="middle" x="{x:.1f}" y="{bottom + 16}">{html.escape(ends[0])}</text>'
            f'<text class="middle" x="{x:.1f}" y="{top - 8}">{html.escape(ends[1])}</text>'
        )
    for row in rows:
        places = [bottom - (bottom - top) * scales[key][_text(row.get(key))] for key in keys]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, places, strict=True))
        hue = round(240 * (1 - scales["accuracy"][_text(row["accuracy"])]))
        title = html.escape(f"{row['run']}: accuracy {row['accuracy']:.4f}")
        parts.append(
            f'<a href="#run-{html.escape(row["run"])}" aria-label="{title}"><title>{title}</title>'
            f'<polyline points="{points}" stroke="hsl({hue} 70% 45%)"/></a>'
        )
    return _chart("Settings of the runs against their accuracy", "".join(parts))


def _chart(label: str, content: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_CHART_WIDTH} {_CHART_HEIGHT}" role="group" '
        f'aria-label="{label}">{content}</svg>'
    )


def _scale(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (end - start) * ((value - low) / (high - low) if high > low else 0.5)


def _positions(values: Sequence[Any]) -> dict[str, float]:
    """Returns a position from 0 to 1 for the text of each value: to scale for numbers, in order otherwise."""
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, int | float) for value in present):
        low, high = min(present), max(present)
        # Learning rates and the like are spread over orders of magnitude.
        logarithmic = low > 0 and high / low > 20
        bend = math.log if logarithmic else float
        positions = {_text(v): _scale(bend(v), bend(low), bend(high), 0, 1) for v in present}
    else:
        texts = sorted({_text(value) for value in present})
        positions = {text: _scale(index, 0, len(texts) - 1, 0, 1) for index, text in enumerate(texts)}
    if len(present) < len(values):
        positions[_text(None)] = 0.0
    return positions


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _word(kind: str) -> str:
    return {"pushed": "pushed", "blessed": "blessed", "other": "not blessed"}[kind]
