"""Inspects all images of a dataset in parallel, and keeps a small record of each."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from datasets import inspection, terminal
from datasets.depth import Kind, Ranges, ValueRange
from datasets.duplicates import Fingerprints
from datasets.inspection import Handling, Inspected, UnusableError

if TYPE_CHECKING:
    from datasets.importing import Item, Place
    from datasets.workers import Workers

_CHUNK = 200  # images that a process inspects at a time
_HANDLINGS: tuple[Handling, ...] = ("keep", "convert", "redraw")


@dataclass
class Inspections:
    """What is kept of the images, in columns; a position counts the usable images.

    Attributes:
      index: index into the items of each usable image.
      widths: width of each usable image in pixels, when upright.
      heights: height of each usable image in pixels, when upright.
      sizes: bytes of each usable image as stored.
      handlings: index into _HANDLINGS of each usable image.
      fingerprints: the fingerprint of each usable image.
      formats: number of files of each format and handling, among usable images.
      ranges: ranges of the images of more than 8 bits.
      unusable: (name, reason) of the other images.
    """

    index: array[int] = field(default_factory=lambda: array("Q"))
    widths: array[int] = field(default_factory=lambda: array("I"))
    heights: array[int] = field(default_factory=lambda: array("I"))
    sizes: array[int] = field(default_factory=lambda: array("Q"))
    handlings: array[int] = field(default_factory=lambda: array("B"))
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    formats: Counter[tuple[str, Handling]] = field(default_factory=Counter)
    ranges: dict[Kind, ValueRange] = field(default_factory=dict)
    unusable: list[tuple[str, str]] = field(default_factory=list)

    def add(self, index: int, item: Item, result: Inspected) -> None:
        """Adds a usable image.

        Args:
          index: its index into the items.
          item: the image.
          result: its inspection.
        """
        assert result.fingerprint is not None
        self.index.append(index)
        self.widths.append(result.width)
        self.heights.append(result.height)
        self.sizes.append(result.size)
        self.handlings.append(_HANDLINGS.index(result.handling))
        self.formats[result.format, result.handling] += 1
        self.fingerprints.add(item.split, item.label, item.id, result.fingerprint)

    def handling(self, position: int) -> Handling:
        """Returns how an image is stored."""
        return _HANDLINGS[self.handlings[position]]


def inspect_all(pool: Workers, items: Sequence[Item]) -> Inspections:
    """Inspects images; those of more than 8 bits twice, because their range has to be known first.

    Args:
      pool: the processes that read and decode the images.
      items: the images.

    Returns:
      The records of the images.
    """
    inspected = Inspections()
    deep: list[int] = []
    with terminal.progress("Inspecting images", len(items)) as advance:
        for index, result in _inspections(pool, items, range(len(items)), None):
            if isinstance(result, str):
                inspected.unusable.append((items[index].id, result))
            elif result.values is not None:
                deep.append(index)
                known = inspected.ranges.get(result.values.kind)
                inspected.ranges[result.values.kind] = result.values.union(known)
            else:
                inspected.add(index, items[index], result)
            advance(1)
    if deep:
        with terminal.progress("Inspecting images of more than 8 bits", len(deep)) as advance:
            for index, result in _inspections(pool, items, deep, inspected.ranges):
                if isinstance(result, str):
                    inspected.unusable.append((items[index].id, result))
                else:
                    inspected.add(index, items[index], result)
                advance(1)
    return inspected


def _inspections(
    pool: Workers, items: Sequence[Item], indices: Sequence[int], ranges: Ranges | None
) -> Iterator[tuple[int, Inspected | str]]:
    """Yields the index and the inspection of each image, or the reason why it cannot be used."""
    parts = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
    tasks = [InspectionTask([items[index].place for index in part], ranges) for part in parts]
    for part, results in zip(parts, pool.map(inspect_images, tasks), strict=True):
        yield from zip(part, results, strict=True)


@dataclass(frozen=True)
class InspectionTask:
    """Images that one process inspects.

    Attributes:
      places: where the images are.
      ranges: see `inspection.inspect`.
    """

    places: Sequence[Place]
    ranges: Ranges | None


def inspect_images(task: InspectionTask) -> list[Inspected | str]:
    """Inspects images.

    Returns:
      The inspection of each image, or the reason why it cannot be used.
    """
    results: list[Inspected | str] = []
    for place in task.places:
        try:
            results.append(inspection.inspect(place.read(), task.ranges))
        except UnusableError as error:
            results.append(str(error))
        except OSError as error:
            results.append(error.strerror or str(error))
    return results
