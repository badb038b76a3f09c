import itertools
import random

import pytest

from lineage import layout

BOX = 120


def _graph(seed):
    """Returns made-up nodes and edges without circles, some across many rows."""
    rng = random.Random(seed)
    nodes = [("artifact", str(number)) for number in range(24)]
    pairs = itertools.combinations(nodes, 2)
    return nodes, [pair for pair in pairs if rng.random() < 0.12]


@pytest.mark.parametrize("seed", range(5))
def test_no_box_covers_another_one_or_a_line_that_passes(seed):
    nodes, edges = _graph(seed)
    placed = layout.place(nodes, edges, BOX)
    assert placed.corners.keys() == set(nodes)
    spans = [(y, x, x + BOX) for x, y in placed.corners.values()] + [(y, x, x) for x, y in placed.passes]
    for (row, _, right), (other, left, _) in itertools.pairwise(sorted(spans)):
        assert row != other or right < left
    assert all(left >= 0 and right <= placed.width for _, left, right in spans)
    assert all(y >= 0 and y + layout.HEIGHT <= placed.height for y, _, _ in spans)


@pytest.mark.parametrize("seed", range(5))
def test_every_edge_leads_downwards_from_its_start_to_its_end(seed):
    nodes, edges = _graph(seed)
    placed = layout.place(nodes, edges, BOX)
    reached: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for x1, y1, x2, y2 in placed.lines:
        assert y2 > y1
        reached.setdefault((x1, y1 - layout.HEIGHT), set()).add((x2, y2))
    tops = {node: (x + BOX // 2, y) for node, (x, y) in placed.corners.items()}
    for start, end in edges:
        waiting, seen = [tops[start]], set()
        while waiting:
            here = waiting.pop()
            seen.add(here)
            # A line goes on where it has passed a box; another box ends it.
            waiting += [at for at in reached.get(here, ()) if at in placed.passes or at == tops[end]]
        assert tops[end] in seen


def test_a_circle_in_a_damaged_store_is_placed_nevertheless():
    nodes = [("artifact", "1"), ("execution", "2")]
    placed = layout.place(nodes, [(nodes[0], nodes[1]), (nodes[1], nodes[0])], BOX)
    assert len(set(placed.corners.values())) == 2
