"""Which examples are held out of training."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence


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
    return _pick(labels, lambda size: min(max(1, round(fraction * size)), size - 1), f"{seed} {role}")


def choose(labels: Sequence[int], per_class: int, seed: int) -> set[int]:
    """Picks so many examples of every class at random, or all of a class that has no more.

    Args:
      labels: the label of each example.
      per_class: how many of each class.
      seed: the same seed and labels pick the same examples.

    Returns:
      Indices into `labels`.
    """
    return _pick(labels, lambda size: min(per_class, size), f"{seed} chosen")


def _pick(labels: Sequence[int], count: Callable[[int], int], seed: str) -> set[int]:
    """Picks `count(size)` examples of each class of that size."""
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    picked: set[int] = set()
    for label in sorted(members):
        examples = members[label]
        picked.update(random.Random(f"{seed} {label}").sample(examples, count(len(examples))))
    return picked
