"""Interprets the labels of foreign examples: integers, one-hot lists and texts become classes from 0."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import directory, layout, listing
from datasets.directory import DatasetError
from datasets.tfrecord import Values

# The label of examples that have none, as in test sets whose labels are secret.
UNLABELLED = -1

_NUMBERED_NAME = re.compile(r"(?P<number>\d+)\s*:\s*(?P<name>.+)")
_MAX_LISTED = 5


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset.

    Attributes:
      names: name of each class.
      index: label in the source -> index of its class.
      notes: what the user should know about them.
    """

    names: list[str]
    index: dict[int | str, int]
    notes: list[str]


def parse(values: Values) -> int | str:
    """Returns the label that the values of a feature mean.

    Args:
      values: one integer, one UTF-8 text, or a one-hot list, whose values are 0 but for a single 1.

    Returns:
      The integer, the text, or the position of the 1.

    Raises:
      ValueError: the values are no label; the message says what they are.
    """
    if len(values) == 1:
        (value,) = values
        if isinstance(value, bytes):
            try:
                text = value.decode()
            except UnicodeDecodeError:
                raise ValueError("bytes that are not UTF-8") from None
            if not text.strip():
                raise ValueError("an empty text")
            return text
        if not math.isfinite(value) or value != int(value):
            raise ValueError(f"the number {value:g}")
        return int(value)
    if not values:
        raise ValueError("no value")
    hot = [index for index, value in enumerate(values) if value]
    if len(hot) != 1 or values[hot[0]] != 1:
        raise ValueError(f"a list of {len(values)} values that is not one-hot")
    return hot[0]


def number(labels: Mapping[int | str, str], given: Sequence[str] | None) -> Classes:
    """Numbers the classes of the labels that occur.

    Args:
      labels: the labels that occur, all integers or all texts -> where each occurs first, for messages.
      given: name of each integer label, from 0, or from 1 if the labels are 1 to the number of names; or all
        texts in the order that the classes shall have. None names the integers `class_0` and so on and sorts
        texts in natural order.

    Raises:
      DatasetError: a label is not among the given names.
    """
    texts = layout.natural_order(label for label in labels if isinstance(label, str))
    integers = sorted(label for label in labels if isinstance(label, int))
    if given is None:
        return _number_texts(texts) if texts else _number_integers(integers)
    start = 1 if not texts and integers[0] > 0 and integers[-1] == len(given) else 0
    names: dict[int | str, str] = {name: name for name in given} if texts else dict(enumerate(given, start))
    unknown = [label for label in texts or integers if label not in names]
    if unknown:
        expected = listing.join(given, _MAX_LISTED) if texts else f"from {start} to {start + len(given) - 1}"
        raise DatasetError(
            f"{labels[unknown[0]]}: expected a label of the {len(given)} classes, {expected}; "
            f"found {listing.join(unknown, _MAX_LISTED)}"
        )
    used = [label for label in names if label in labels]
    notes = (
        [f"labels are 1 to {len(given)}: label 1 is {given[0]!r}, class 0 of the dataset"] if start else []
    )
    unused = [name for label, name in names.items() if label not in labels]
    if unused:
        notes.append(
            f"{len(unused)} class names without any example are left out: {listing.join(unused, _MAX_LISTED)}"
        )
    return Classes([names[label] for label in used], {label: i for i, label in enumerate(used)}, notes)


def read_names(path: Path) -> tuple[str, ...]:
    """Reads a file of class names, one per line, or `0:name` with all numbers from 0 in their order.

    Raises:
      DatasetError: the file cannot be read, or has fewer than 2 names, or an unusable or repeated one.
    """
    names = directory.read_labels(path)
    matches = [_NUMBERED_NAME.fullmatch(name) for name in names]
    numbered = [match["name"] for i, match in enumerate(matches) if match and int(match["number"]) == i]
    return tuple(numbered) if len(numbered) == len(names) else names


def _number_texts(texts: Sequence[str]) -> Classes:
    return Classes(list(texts), {text: i for i, text in enumerate(texts)}, [])


def _number_integers(labels: Sequence[int]) -> Classes:
    names = [f"class_{label}" for label in labels]
    notes = [f"the classes are named after their labels: {listing.join(names, _MAX_LISTED)}"]
    if labels[0] == 1 and labels[-1] == len(labels):
        notes.append(f"labels are 1 to {len(labels)}: label 1 is class 0 of the dataset")
    elif labels[0] != 0 or labels[-1] + 1 != len(labels):
        notes.append(
            f"{len(labels)} labels, from {labels[0]} to {labels[-1]}, occur: they are classes 0 to "
            f"{len(labels) - 1} of the dataset"
        )
    return Classes(names, {label: i for i, label in enumerate(labels)}, notes)
