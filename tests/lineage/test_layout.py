import itertools
import random

import pytest

from lineage import layout

BOX = 120


def _graph(seed):
    """Returns a made-up number of nodes and edges without circles, some across many rows, of two kinds."""
    rng = random.Random(seed)
    pairs = itertools.combinations(range(24), 2)
    return 24, tuple((*pair, rng.random() < 0.3) for pair in pairs if rng.random() < 0.12)


@pytest.mark.parametrize("seed", range(5))
def test_no_box_covers_another_one_or_a_line_that_passes(seed):
    count, edges = _graph(seed)
    placed = layout.place(count, edges, BOX)
    assert len(placed.corners) == count
    spans = [(y, x, x + BOX) for x, y in placed.corners] + [(y, x, x) for x, y, _ in placed.passes]
    for (row, _, right), (other, left, _) in itertools.pairwise(sorted(spans)):
        assert row != other or right < left
    assert all(left >= 0 and right <= placed.width for _, left, right in spans)
    assert all(y >= 0 and y + layout.HEIGHT <= placed.height for y, _, _ in spans)


@pytest.mark.parametrize("seed", range(5))
def test_every_edge_leads_downwards_from_its_start_to_its_end_as_its_kind(seed):
    count, edges = _graph(seed)
    placed = layout.place(count, edges, BOX)
    reached: dict[tuple[int, int, bool], set[tuple[int, int]]] = {}
    for x1, y1, x2, y2, kind in placed.lines:
        assert y2 > y1
        reached.setdefault((x1, y1 - layout.HEIGHT, kind), set()).add((x2, y2))
    tops = [(x + BOX // 2, y) for x, y in placed.corners]
    for start, end, kind in edges:
        waiting, seen = [tops[start]], set()
        while waiting:
            here = waiting.pop()
            seen.add(here)
            # A line goes on where it has passed a box; another box ends it.
            after = reached.get((*here, kind), ())
            waiting += [at for at in after if (*at, kind) in placed.passes or at == tops[end]]
        assert tops[end] in seen


def test_a_circle_in_a_damaged_store_is_placed_nevertheless():
    placed = layout.place(2, ((0, 1, False), (1, 0, False)), BOX)
    assert len(set(placed.corners)) == 2
