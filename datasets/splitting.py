"""Which examples are held out of training."""

from __future__ import annotations

import random
from collections.abc import Sequence


def hold_out(labels: Sequence[int], fraction: float, seed: int, role: str = "val") -> set[int]:
    """Picks the same fraction of every class at random.

    Args:
      labels: the label of each example.
      fraction: how much of each class, rounded to whole examples, but at least one and never all.
      seed: the same seed and labels pick the same examples.
      role: what the examples are for; different roles pick independently.

    Returns:
      Indices into `labels`.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    picked: set[int] = set()
    for label in sorted(members):
        size = len(members[label])
        count = min(max(1, round(fraction * size)), size - 1)
        picked.update(random.Random(f"{seed} {role} {label}").sample(members[label], count))
    return picked
