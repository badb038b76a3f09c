"""Chooses examples at random, in proportion to the classes: to hold them out, or to reduce a dataset."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence


def hold_out(labels: Sequence[int], fraction: float, seed: int, role: str = "val") -> set[int]:
    """Chooses the same fraction of every class at random.

    Args:
      labels: label of each example.
      fraction: fraction of each class, from 0 to 1. It is rounded to whole examples, but at least one example
        is chosen, and never all of a class.
      seed: the same seed and labels give the same choice.
      role: purpose of the examples, such as `val`; choices for different roles are independent.

    Returns:
      Indices into `labels`. A class with a single example has none in it.
    """
    return _pick(labels, lambda size: min(max(1, round(fraction * size)), size - 1), f"{seed} {role}")


def choose(labels: Sequence[int], per_class: int, seed: int) -> set[int]:
    """Chooses a number of examples of every class at random, or all of a class with fewer.

    Args:
      labels: label of each example.
      per_class: number of examples of each class.
      seed: the same seed and labels give the same choice.

    Returns:
      Indices into `labels`.
    """
    return _pick(labels, lambda size: min(per_class, size), f"{seed} chosen")


def _pick(labels: Sequence[int], count: Callable[[int], int], seed: str) -> set[int]:
    """Picks `count(size)` examples of each class, where `size` is the number of its examples."""
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    picked: set[int] = set()
    for label in sorted(members):
        examples = members[label]
        picked.update(random.Random(f"{seed} {label}").sample(examples, count(len(examples))))
    return picked
