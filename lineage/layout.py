"""Places the nodes of a graph in rows, each below all that it comes from, and lines that pass beside them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

# Sizes in pixels.
HEIGHT, _GAP_X, _GAP_Y, _MARGIN, _LINE = 34, 14, 30, 8, 4
_SWEEPS = 4  # further ones hardly change the order

# Start and end, by their numbers from 0, and whether the line is of another kind, which others must not join.
Edge = tuple[int, int, bool]
# What takes a place in a row: a node, or a line that passes, named by the node from which it comes. The row
# of a node is -1, and the truth value tells of which kind a line is.
_Item = tuple[int, int, bool]


@dataclass(frozen=True)
class Layout:
    """Places of nodes and lines, in pixels from the upper left corner.

    Attributes:
      corners: x and y of the upper left corner of the box of each node.
      lines: (x1, y1, x2, y2, kind) of pieces of lines, from a box or from where a line has passed one
        downwards.
      passes: (x, y, kind) of the upper end of pieces of lines that pass beside boxes.
      width, height: of the whole.
    """

    corners: Sequence[tuple[int, int]]
    lines: Sequence[tuple[int, int, int, int, bool]]
    passes: Sequence[tuple[int, int, bool]]
    width: int
    height: int


@functools.cache  # Most runs of a pipeline have a graph of the same form.
def place(count: int, edges: tuple[Edge, ...], box: int) -> Layout:
    """Places nodes and the lines between them.

    Args:
      count: number of nodes.
      edges: the lines.
      box: width of the box of a node.
    """
    rows = _rows(count, edges)
    layers: list[list[_Item]] = [[] for _ in range(max(rows, default=0) + 1)]
    for node in range(count):
        layers[rows[node]].append(_box_of(node))
    links: dict[tuple[_Item, _Item, bool], None] = {}
    for start, end, kind in edges:
        # Lines from one node to several share their way.
        way = [
            _box_of(start),
            *((start, row, kind) for row in range(rows[start] + 1, rows[end])),
            _box_of(end),
        ]
        for row, item in enumerate(way[1:-1], rows[start] + 1):
            if item not in layers[row]:
                layers[row].append(item)
        links |= dict.fromkeys((a, b, kind) for a, b in itertools.pairwise(way))
    middles = _arrange(layers, list(dict.fromkeys((a, b) for a, b, _ in links)), box)
    tops = {item: _MARGIN + row * (HEIGHT + _GAP_Y) for row, layer in enumerate(layers) for item in layer}
    return Layout(
        [(middles[_box_of(node)] - box // 2, tops[_box_of(node)]) for node in range(count)],
        [(middles[a], tops[a] + HEIGHT, middles[b], tops[b], kind) for a, b, kind in links],
        [(middles[item], tops[item], item[2]) for item in middles if not _is_box(item)],
        max(_length(layer, box) for layer in layers) + 2 * _MARGIN,
        len(layers) * (HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN,
    )


def _box_of(node: int) -> _Item:
    return node, -1, False


def _is_box(item: _Item) -> bool:
    return item[1] < 0


def _rows(count: int, edges: Sequence[Edge]) -> list[int]:
    """Returns the row of each node."""
    parents: list[list[int]] = [[] for _ in range(count)]
    for start, end, _ in edges:
        parents[end].append(start)
    rows: dict[int, int] = {}

    def row_of(node: int) -> int:
        if node not in rows:
            rows[node] = 0  # ends a circle, which a damaged store might have
            rows[node] = max((row_of(parent) + 1 for parent in parents[node]), default=0)
        return rows[node]

    return [row_of(node) for node in range(count)]


def _arrange(
    layers: Sequence[list[_Item]], links: Sequence[tuple[_Item, _Item]], box: int
) -> dict[_Item, int]:
    """Orders the items of each row, near those that they are linked with, and returns the middles of all."""
    linked: tuple[dict[_Item, list[_Item]], dict[_Item, list[_Item]]] = ({}, {})
    for above, below in links:
        linked[0].setdefault(below, []).append(above)
        linked[1].setdefault(above, []).append(below)
    widest = max(_length(layer, box) for layer in layers)
    middles: dict[_Item, int] = {}

    def spread(layer: Sequence[_Item]) -> None:
        x = _MARGIN + (widest - _length(layer, box)) // 2
        for item in layer:
            middles[item] = x + _width(item, box) // 2
            x += _width(item, box) + _GAP_X

    def wanted(item: _Item, side: int) -> float:
        others = [middles[other] for other in linked[side].get(item, ())]
        return math.fsum(others) / len(others) if others else middles[item]

    for layer in layers:
        spread(layer)
    for sweep in range(_SWEEPS):
        side = sweep % 2
        for layer in layers if side == 0 else reversed(layers):
            layer.sort(key=lambda item: wanted(item, side))
            spread(layer)
    return middles


def _width(item: _Item, box: int) -> int:
    return box if _is_box(item) else _LINE


def _length(layer: Sequence[_Item], box: int) -> int:
    return sum(_width(item, box) for item in layer) + _GAP_X * (len(layer) - 1)
