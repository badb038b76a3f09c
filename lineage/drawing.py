"""Draws lineage and runs as SVG, without a library that the page would have to load."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from lineage import facts, layout, model, output
from lineage.model import Artifact, Execution

# Sizes in pixels.
_LEAST_WIDTH, _CHARACTER, _PADDING = 120, 7, 10
_CHART_WIDTH, _CHART_HEIGHT, _CHART_MARGIN, _RADIUS = 760, 280, 84, 5
# Of the axes of the settings: at least 90 pixels from one to the next, in which 13 characters fit.
_MOST_AXES, _AXIS_WIDTH, _MOST_CHARACTERS = 9, 90, 13
_TEXT, _PHONE_WIDTH = 11, 340  # height of a chart's texts, and what a phone has for its width, in pixels
_DASHED = ' class="baseline"'


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
    labels = {("artifact", each.id): each.label for each in artifacts}
    labels |= {("execution", each.id): each.component for each in executions}
    numbers = {node: number for number, node in enumerate(labels)}
    edges = dict.fromkeys(
        (numbers[start], numbers[end], is_baseline)
        for each in executions
        for start, end, is_baseline in _edges(each)
        if start in numbers and end in numbers
    )
    box = max([_LEAST_WIDTH, *(_CHARACTER * len(label) + 2 * _PADDING for label in labels.values())])
    placed = layout.place(len(labels), tuple(edges), box)
    parts = [_line(*line) for line in placed.lines]
    parts += [
        f'<path d="M{x} {y}V{y + layout.HEIGHT}"{_DASHED if is_baseline else ""}/>'
        for x, y, is_baseline in placed.passes
    ]
    refusals = {("artifact", each.id): each.refusal for each in artifacts if each.refusal}
    for (node, label), (x, y) in zip(labels.items(), placed.corners, strict=True):
        kind, number = node
        marked = " chosen" if node == ("artifact", chosen) else ""
        radius = 4 if kind == "artifact" else layout.HEIGHT // 2
        middle = x + box / 2
        texts = f'<text x="{middle:g}" y="{y + 21}">{html.escape(label)}</text>'
        if node in refusals:
            texts = (
                f'<text x="{middle:g}" y="{y + 15}">{html.escape(label)}</text>'
                f'<text class="refusal" x="{middle:g}" y="{y + 29}">{refusals[node]}</text>'
            )
        parts.append(
            f'<a href="#{kind}-{html.escape(number)}" class="{kind}{marked}">'
            f'<rect x="{x}" y="{y}" width="{box}" height="{layout.HEIGHT}" rx="{radius}"/>{texts}</a>'
        )
    # Above the lines, and once for each step that has a baseline.
    ends = {(x2, y2) for _, _, x2, y2, is_baseline in placed.lines if is_baseline}
    tops = {(x + box // 2, y) for x, y in placed.corners}
    parts += [f'<text class="edge" x="{x}" y="{y - 6}">baseline</text>' for x, y in sorted(ends & tops)]
    return (
        f'<svg class="graph" viewBox="0 0 {placed.width} {placed.height}" width="{placed.width}" '
        f'height="{placed.height}" role="group" aria-label="Lineage">{"".join(parts)}</svg>'
    )


def _edges(execution: Execution) -> Iterator[tuple[tuple[str, str], tuple[str, str], bool]]:
    """Yields (start, end, whether it leads to what a model is compared with) of an execution's lines."""
    here = ("execution", execution.id)
    for name, artifact in execution.inputs:
        yield ("artifact", artifact.id), here, name in model.BASELINES
    for _, artifact in execution.outputs:
        if artifact.made_by is execution:
            yield here, ("artifact", artifact.id), False


def _line(x1: int, y1: int, x2: int, y2: int, is_baseline: bool) -> str:
    bend = (y2 - y1) // 2
    dashed = _DASHED if is_baseline else ""
    return f'<path d="M{x1} {y1}C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}"{dashed}/>'


def accuracies(rows: Sequence[Mapping[str, Any]], moments: Sequence[float]) -> str:
    """Draws the accuracy of runs over time; blessed and pushed ones are marked.

    Where runs are so close that their points would cover each other, each has the same distance to the next.

    Args:
      rows: facts of runs, the oldest first; those without an accuracy are left out.
      moments: when each of these runs began.
    """
    shown = [index for index, row in enumerate(rows) if row["accuracy"] is not None]
    if not shown:
        return ""
    values = [rows[index]["accuracy"] for index in shown]
    low, high = min(values), max(values)
    left, right, bottom = _CHART_MARGIN, _CHART_WIDTH - 14, _CHART_HEIGHT - 40
    xs = [_scale(moment, moments[0], moments[-1], left, right) for moment in moments]
    is_dense = any(xs[b] - xs[a] < 2 * _RADIUS for a, b in itertools.pairwise(shown))
    if is_dense:
        xs = [_scale(index, 0, len(rows) - 1, left, right) for index in range(len(rows))]
    points = []
    for index in shown:
        row = rows[index]
        y = _scale(row["accuracy"], low, high, bottom, 14)
        kind = "pushed" if row["pushed"] else "blessed" if row["blessed"] else "other"
        title = html.escape(f"{row['run']}: accuracy {row['accuracy']:.4f}, {_word(kind)}")
        points.append(
            f'<a href="#run-{html.escape(row["run"])}" aria-label="{title}"><title>{title}</title>'
            f'<circle class="{kind}" cx="{xs[index]:.1f}" cy="{y:.1f}" r="{_RADIUS}"/></a>'
        )
    ticks = {value: _scale(value, low, high, bottom, 14) + 4 for value in (low, (low + high) / 2, high)}
    labels = "".join(
        f'<text x="{left - 8}" y="{y:.1f}" class="end">{value:.3f}</text>' for value, y in ticks.items()
    )
    days = [str(rows[index]["when"])[:10] for index in (0, -1)]
    names = [str(rows[index]["when"])[: 16 if days[0] == days[1] else 10] for index in (0, -1)]
    if is_dense:
        names = [f"run 1, {names[0]}", f"run {len(rows)}, {names[1]}"]
    labels += "".join(
        f'<text x="{x}" y="{_CHART_HEIGHT - 10}" class="{anchor}">{html.escape(name)}</text>'
        for x, anchor, name in ((left, "start", names[0]), (right, "end", names[1]))
    )
    axes = f'<path class="axis" d="M{left} 14V{bottom}H{right}"/>'
    what = "in the order of time" if is_dense else "over time"
    size = (_CHART_WIDTH, _CHART_HEIGHT, _PHONE_WIDTH)
    return _chart(*size, f"Accuracy of the runs {what}", axes + labels + "".join(points))


def parallel(rows: Sequence[Mapping[str, Any]], settings: Collection[str]) -> str:
    """Draws each run as a line across the settings that differ between the runs, to its accuracy.

    Args:
      rows: facts of runs; those without an accuracy are left out.
      settings: keys of all settings; of those that differ, the first nine are drawn.
    """
    rows = [row for row in rows if row["accuracy"] is not None]
    keys = [key for key in facts.differing(rows) if key in settings]
    keys = [*keys[:_MOST_AXES], "accuracy"]
    if len(rows) < 2 or len(keys) < 2:
        return ""
    titles = {key: _title(key, settings) for key in keys}
    least = max(_AXIS_WIDTH * len(keys), _PHONE_WIDTH)
    width = max(least, _CHART_WIDTH)
    # As high as the titles are at most, see `_chart`.
    top = round(_TEXT * width / least * (1.2 * max(map(len, titles.values())) + 1.6))
    bottom = top + _CHART_HEIGHT - 70
    scales = {key: _positions([row.get(key) for row in rows]) for key in keys}
    xs = [width * (index + 0.5) / len(keys) for index in range(len(keys))]
    parts = []
    for x, key in zip(xs, keys, strict=True):
        positions = scales[key]
        ends = [min(positions, key=positions.__getitem__), max(positions, key=positions.__getitem__)]
        # Words below each other, since titles side by side would cover each other.
        rises = [-1.2 * len(titles[key]) - 0.1, *([1.2] * (len(titles[key]) - 1))]
        words = "".join(
            f'<tspan x="{x:.1f}" dy="{rise:g}em">{html.escape(word)}</tspan>'
            for word, rise in zip(titles[key], rises, strict=True)
        )
        parts.append(
            f'<path class="axis" d="M{x:.1f} {top}V{bottom}"/>'
            f'<text class="middle title" y="{top - 6}"><title>{html.escape(key)}</title>{words}</text>'
            f"{_end(x, top - 6, '0', ends[1])}{_end(x, bottom + 4, '1em', ends[0])}"
        )
    for row in rows:
        places = [bottom - (bottom - top) * scales[key][output.word(row.get(key))] for key in keys]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, places, strict=True))
        hue = round(240 * (1 - scales["accuracy"][output.word(row["accuracy"])]))
        title = html.escape(f"{row['run']}: accuracy {row['accuracy']:.4f}")
        parts.append(
            f'<a href="#run-{html.escape(row["run"])}" aria-label="{title}"><title>{title}</title>'
            f'<polyline points="{points}" stroke="hsl({hue} 70% 45%)"/></a>'
        )
    return _chart(width, bottom + 34, least, "Settings of the runs against their accuracy", "".join(parts))


def _title(key: str, settings: Collection[str]) -> list[str]:
    """Returns the words of an axis' title: the end of its key with its section, or more to be unambiguous."""
    parts, count = key.split("."), 2
    while count < len(parts) and _is_ambiguous(".".join(parts[-count:]), key, settings):
        count += 1
    return [word for part in parts[-count:] for word in part.split("_")]


def _is_ambiguous(end: str, key: str, settings: Collection[str]) -> bool:
    return any(f".{other}".endswith(f".{end}") for other in settings if other != key)


def _chart(width: int, height: int, least: int, label: str, content: str) -> str:
    """Returns a chart that is at least `least` pixels wide; its texts have the same size on a phone."""
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" style="min-width: {least}px; '
        f'--grown: {width / least:.2f}" role="group" aria-label="{label}">{content}</svg>'
    )


def _end(x: float, y: int, fall: str, value: str) -> str:
    """Returns the value at an end of an axis, cut to the width that it has."""
    short = value if len(value) <= _MOST_CHARACTERS else f"{value[: _MOST_CHARACTERS - 1]}…"
    return (
        f'<text class="middle" x="{x:.1f}" y="{y}" dy="{fall}"><title>{html.escape(value)}</title>'
        f"{html.escape(short)}</text>"
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
        positions = {output.word(v): _scale(bend(v), bend(low), bend(high), 0, 1) for v in present}
    else:
        texts = sorted({output.word(value) for value in present})
        positions = {text: _scale(index, 0, len(texts) - 1, 0, 1) for index, text in enumerate(texts)}
    if len(present) < len(values):
        positions[output.word(None)] = 0.0
    return positions


def _word(kind: str) -> str:
    return {"pushed": "pushed", "blessed": "blessed", "other": "not blessed"}[kind]
