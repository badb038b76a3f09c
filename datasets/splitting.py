"""Chooses examples at random, in proportion to the classes: to hold them out, or to reduce a dataset."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence


def hold_out(
    labels: Sequence[int],
    fraction: float,
    seed: int,
    role: str = "val",
    groups: Sequence[int] | None = None,
) -> set[int]:
    """Chooses the same fraction of every class at random.

    Args:
      labels: label of each example.
      fraction: fraction of each class, from 0 to 1. It is rounded to whole examples, but at least one example
        is chosen, and never all of a class.
      seed: the same seed and labels give the same choice.
      role: purpose of the examples, such as `val`; choices for different roles are independent.
      groups: number of the group of each example; a group is chosen as a whole or not at all, and belongs to
        the class of its first example. None if every example is chosen by itself.

    Returns:
      Indices into `labels`. A class with a single example, or a single group, has none in it.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups if groups is not None else range(len(labels))):
        members.setdefault(group, []).append(index)
    units = list(members.values())
    picked = _pick(
        [labels[unit[0]] for unit in units],
        lambda size: min(max(1, round(fraction * size)), size - 1),
        f"{seed} {role}",
        [len(unit) for unit in units],
    )
    return {index for position in picked for index in units[position]}


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


def _pick(
    labels: Sequence[int], count: Callable[[int], int], seed: str, sizes: Sequence[int] | None = None
) -> set[int]:
    """Picks `count(size)` examples of each class, where `size` is the number of its examples.

    Args:
      labels: label of each unit.
      count: maps the number of examples of a class to the number to pick.
      seed: seed of the choice.
      sizes: number of examples in each unit; None if each unit is an example.

    Returns:
      Indices into `labels`.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    picked: set[int] = set()
    for label in sorted(members):
        units = members[label]
        generator = random.Random(f"{seed} {label}")
        weights = [sizes[unit] for unit in units] if sizes is not None else [1] * len(units)
        wanted = count(sum(weights))
        if sum(weights) == len(units):
            picked.update(generator.sample(units, wanted))
        else:
            picked.update(units[i] for i in _fill(weights, wanted, generator))
    return picked


def _fill(weights: Sequence[int], wanted: int, generator: random.Random) -> list[int]:
    """Picks units in random order as long as they fit into the wanted number of examples.

    At least one unit is picked, the smallest one if none fits, and never all units.

    Args:
      weights: number of examples in each unit.
      wanted: number of examples to pick.
      generator: source of the order.

    Returns:
      Indices into `weights`.
    """
    if len(weights) < 2:
        return []
    order = generator.sample(range(len(weights)), len(weights))
    picked: list[int] = []
    for unit in order:
        if weights[unit] <= wanted:
            picked.append(unit)
            wanted -= weights[unit]
    return picked or [min(order, key=weights.__getitem__)]
