"""Places the nodes of a graph in rows, each below all that it comes from, and lines that pass beside them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Sizes in pixels.
HEIGHT, _GAP_X, _GAP_Y, _MARGIN, _LINE = 34, 14, 30, 8, 4
_SWEEPS = 4  # further ones hardly change the order

Node = tuple[str, str]
# What takes a place in a row: a node, or a line that passes, named by the node from which it comes.
_Item = tuple[Node, int | None]


@dataclass(frozen=True)
class Layout:
    """Places of nodes and lines, in pixels from the upper left corner.

    Attributes:
      corners: node -> x and y of the upper left corner of its box.
      lines: (x1, y1, x2, y2) of pieces of lines, from a box or from where a line has passed one downwards.
      passes: (x, y) of the upper end of pieces of lines that pass beside boxes.
      width, height: of the whole.
    """

    corners: Mapping[Node, tuple[int, int]]
    lines: Sequence[tuple[int, int, int, int]]
    passes: Sequence[tuple[int, int]]
    width: int
    height: int


def place(nodes: Sequence[Node], edges: Sequence[tuple[Node, Node]], box: int) -> Layout:
    """Places nodes and the lines between them.

    Args:
      nodes: the nodes.
      edges: (start, end) among the nodes.
      box: width of the box of a node.
    """
    rows = _rows(nodes, edges)
    layers: list[list[_Item]] = [[] for _ in range(max(rows.values(), default=0) + 1)]
    for node in nodes:
        layers[rows[node]].append((node, None))
    links: dict[tuple[_Item, _Item], None] = {}
    for start, end in edges:
        # Lines from one node to several share their way.
        way: list[_Item] = [
            (start, None),
            *((start, row) for row in range(rows[start] + 1, rows[end])),
            (end, None),
        ]
        for row, item in enumerate(way[1:-1], rows[start] + 1):
            if item not in layers[row]:
                layers[row].append(item)
        links |= dict.fromkeys(itertools.pairwise(way))
    middles = _arrange(layers, list(links), box)
    tops = {item: _MARGIN + row * (HEIGHT + _GAP_Y) for row, layer in enumerate(layers) for item in layer}
    return Layout(
        {item[0]: (middles[item] - box // 2, tops[item]) for item in middles if item[1] is None},
        [(middles[a], tops[a] + HEIGHT, middles[b], tops[b]) for a, b in links],
        [(middles[item], tops[item]) for item in middles if item[1] is not None],
        max(_length(layer, box) for layer in layers) + 2 * _MARGIN,
        len(layers) * (HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN,
    )


def _rows(nodes: Sequence[Node], edges: Sequence[tuple[Node, Node]]) -> dict[Node, int]:
    """Returns the row of each node."""
    parents: dict[Node, list[Node]] = {node: [] for node in nodes}
    for start, end in edges:
        parents[end].append(start)
    rows: dict[Node, int] = {}

    def row_of(node: Node) -> int:
        if node not in rows:
            rows[node] = 0  # ends a circle, which a damaged store might have
            rows[node] = max((row_of(parent) + 1 for parent in parents[node]), default=0)
        return rows[node]

    for node in nodes:
        row_of(node)
    return rows


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
    return box if item[1] is None else _LINE


def _length(layer: Sequence[_Item], box: int) -> int:
    return sum(_width(item, box) for item in layer) + _GAP_X * (len(layer) - 1)
