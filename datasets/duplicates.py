"""Finds images that are equal, or nearly equal, within a dataset and across its splits and classes."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image

from datasets import near_duplicates
from datasets.directory import SPLITS

_DIGEST_BYTES = 16
# Number of near-duplicate pairs that are listed; the others are only counted.
_MAX_LISTED = 10_000


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of an image to find its duplicates.

    Attributes:
      digest: 16 bytes that are equal for images of equal size and pixels.
      perceptual: 64-bit hash that differs in few bits between images that look alike.
      thumbnail: RGB bytes of a small square picture of the image.
    """

    digest: bytes
    perceptual: int
    thumbnail: bytes


@dataclass(frozen=True)
class Member:
    """An image of a dataset.

    Attributes:
      split: name of its split.
      label: index of its class.
      id: its id in the dataset.
      index: its position in the order in which the images were added to `Fingerprints`, from 0.
    """

    split: str
    label: int
    id: str
    index: int = field(default=-1, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Returns `split`, `label` and `id`."""
        return {"split": self.split, "label": self.label, "id": self.id}


@dataclass(frozen=True)
class NearPair:
    """Two images that are nearly equal.

    Attributes:
      first: one image; if the two belong to different splits, that of the first one in the order test, val,
        train.
      second: the other image.
      distance: distance of the two as `near_duplicates.find_pairs` defines it.
    """

    first: Member
    second: Member
    distance: float

    def to_json(self, describe: Callable[[Member], Any]) -> dict[str, Any]:
        """Returns `first`, `second` and `distance`; `describe` gives the value of each image."""
        return {
            "first": describe(self.first),
            "second": describe(self.second),
            "distance": round(self.distance, 4),
        }


@dataclass
class Findings:
    """Equal and nearly equal images of a dataset.

    In a pair of splits, that of test comes before val, val before train, and train before others.

    Attributes:
      images: split -> number of its images.
      leaked: groups of equal images that lie in more than one split.
      contradictions: groups of equal images that have more than one label.
      repeated: number of images that are equal to another one of the same split and label, without the first
        of each group; they are harmless.
      near: pairs of nearly equal images, pairs of different splits or labels first; at most 10,000. Groups of
        equal images count as one image.
      near_count: number of all pairs of nearly equal images; the search ends at two million.
      leaked_images: pair of splits -> number of images in the first that are equal to one in the second.
      near_images: pair of splits -> number of images in the first that are nearly equal to one in the second.
      contradicting_images: number of images in the groups of `contradictions`.
    """

    images: dict[str, int] = field(default_factory=dict)
    leaked: list[list[Member]] = field(default_factory=list)
    contradictions: list[list[Member]] = field(default_factory=list)
    repeated: int = 0
    near: list[NearPair] = field(default_factory=list)
    near_count: int = 0
    leaked_images: dict[tuple[str, str], int] = field(default_factory=dict)
    near_images: dict[tuple[str, str], int] = field(default_factory=dict)
    contradicting_images: int = 0

    def to_json(self, describe: Callable[[Member], Any] = Member.to_json) -> dict[str, Any]:
        """Returns all attributes in a form that JSON can represent; pairs of splits become `test/train`.

        Args:
          describe: returns what stands for an image.
        """
        return {
            "images": self.images,
            "leaked": [[describe(member) for member in group] for group in self.leaked],
            "contradictions": [[describe(member) for member in group] for group in self.contradictions],
            "repeated": self.repeated,
            "near": [pair.to_json(describe) for pair in self.near],
            "near_count": self.near_count,
            "leaked_images": {"/".join(pair): number for pair, number in self.leaked_images.items()},
            "near_images": {"/".join(pair): number for pair, number in self.near_images.items()},
            "contradicting_images": self.contradicting_images,
        }


def fingerprint(pixels: np.ndarray) -> Fingerprint:
    """Computes the fingerprint of an image.

    Args:
      pixels: uint8 [height, width, 3], as `datasets.decoding.decode` gives them.

    Returns:
      The fingerprint.
    """
    pixels = np.ascontiguousarray(pixels)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=_DIGEST_BYTES)
    digest.update(pixels.data)
    perceptual, thumbnail = near_duplicates.describe(PIL.Image.fromarray(pixels))
    return Fingerprint(digest.digest(), perceptual, thumbnail)


class Fingerprints:
    """The fingerprints of a dataset's images, in columns that take about 500 bytes an image.

    The object can be pickled, so that parallel processes can each collect a part of the images.
    """

    def __init__(self) -> None:
        self._split_names: list[str] = []
        self._splits = array("B")
        self._labels = array("q")
        self._ids = array("B")
        self._id_ends = array("Q")
        self._digests = array("B")
        self._hashes = array("Q")
        self._thumbnails = array("B")

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._labels)

    def add(self, split: str, label: int, id: str, fingerprint: Fingerprint) -> None:
        """Adds an image.

        Args:
          split: name of its split; there can be 255 different ones.
          label: index of its class.
          id: its id in the dataset.
          fingerprint: its fingerprint.
        """
        self._splits.append(self._split_number(split))
        self._labels.append(label)
        self._ids.frombytes(id.encode(errors="surrogatepass"))
        self._id_ends.append(len(self._ids))
        self._digests.frombytes(fingerprint.digest)
        self._hashes.append(fingerprint.perceptual)
        self._thumbnails.frombytes(fingerprint.thumbnail)

    def extend(self, other: Fingerprints) -> None:
        """Adds all images of another collection, in its order."""
        numbers = bytes(self._split_number(name) for name in other._split_names)
        self._splits.frombytes(bytes(other._splits).translate(numbers.ljust(256, b"\0")))
        self._labels.extend(other._labels)
        self._id_ends.extend(end + len(self._ids) for end in other._id_ends)
        self._ids.extend(other._ids)
        self._digests.extend(other._digests)
        self._hashes.extend(other._hashes)
        self._thumbnails.extend(other._thumbnails)

    def set_splits(self, splits: Sequence[str]) -> None:
        """Replaces the split of every image, for importers that choose the splits by the groups.

        Args:
          splits: name of the split of each image, in the order in which the images were added.
        """
        self._split_names = []
        self._splits = array("B", (self._split_number(split) for split in splits))

    def member(self, index: int) -> Member:
        """Returns the image at a position in the order in which the images were added."""
        start = self._id_ends[index - 1] if index else 0
        name = self._ids[start : self._id_ends[index]].tobytes().decode(errors="surrogatepass")
        return Member(self._split_names[self._splits[index]], self._labels[index], name, index)

    def class_counts(self, num_classes: int) -> dict[str, np.ndarray]:
        """Counts the images of each class.

        Args:
          num_classes: number of classes.

        Returns:
          Split -> number of images of each class, int64 [classes].
        """
        splits, labels = np.frombuffer(self._splits, np.uint8), np.frombuffer(self._labels, np.int64)
        return {
            name: np.bincount(labels[splits == number], minlength=num_classes)
            for number, name in enumerate(self._split_names)
        }

    def groups(self) -> np.ndarray:
        """Numbers the groups of equal images.

        Returns:
          int64 [images], in the order in which the images were added: equal images have equal numbers, which
          range from 0 to the number of different images - 1.
        """
        halves = np.frombuffer(self._digests, ">u8").reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        is_first = np.ones(len(order), bool)
        is_first[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.cumsum(is_first) - 1
        return numbers

    def findings(self) -> Findings:
        """Finds the equal and nearly equal images.

        Returns:
          The findings; except for `Member.index`, they do not depend on the order in which the images were
          added.
        """
        groups = _Groups(self.groups())
        names = sorted(self._split_names, key=_rank)
        splits = np.array([names.index(name) for name in self._split_names], np.int64)[
            np.frombuffer(self._splits, np.uint8)
        ]
        counts = np.bincount(splits, minlength=len(names))
        found = Findings(images={name: int(count) for name, count in zip(names, counts, strict=True)})
        for group in groups.larger_than_one():
            _add_group(found, self._members(groups.images(group)))
        found.leaked.sort(key=_group_key)
        found.contradictions.sort(key=_group_key)
        self._add_near(found, groups, splits, names)
        return found

    def _split_number(self, name: str) -> int:
        if name not in self._split_names:
            self._split_names.append(name)
        return self._split_names.index(name)

    def _members(self, indices: np.ndarray) -> list[Member]:
        return sorted((self.member(int(index)) for index in indices), key=_member_key)

    def _add_near(self, found: Findings, groups: _Groups, splits: np.ndarray, names: list[str]) -> None:
        """Adds the pairs of nearly equal images to the findings.

        Args:
          found: the findings.
          groups: the groups of equal images.
          splits: int64 [images], index of each image's split in `names`.
          names: names of the splits.
        """
        thumbnails = np.frombuffer(self._thumbnails, np.uint8).reshape(-1, near_duplicates.THUMBNAIL_BYTES)
        hashes = np.frombuffer(self._hashes, np.uint64)
        first, second, distances = near_duplicates.find_pairs(hashes, thumbnails, groups.first_images())
        found.near_count = len(first)
        for a, b in itertools.combinations(range(len(names)), 2):
            # Whether a group has an image of the second split, and whether it resembles a group that has one.
            has_b = groups.contain(splits == b)
            near_b = np.zeros(len(has_b), bool)
            near_b[first[has_b[second]]] = True
            near_b[second[has_b[first]]] = True
            if number := int((near_b[groups.numbers] & (splits == a)).sum()):
                found.near_images[names[a], names[b]] = number
        labels = np.frombuffer(self._labels, np.int64)
        same_split = groups.are_alike(splits, first, second)
        same_label = groups.are_alike(labels, first, second)
        order = np.lexsort((second, first, distances, same_label, same_split))[:_MAX_LISTED]
        for index in order:
            members = [self._members(groups.images(group[index])) for group in (first, second)]
            found.near.append(NearPair(*_most_different(*members), float(distances[index])))


class _Groups:
    """Groups of equal images.

    Attributes:
      numbers: int64 [images], number of each image's group.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        # The images of each group lie side by side in this order.
        self._order = np.argsort(numbers, kind="stable")
        self._ends = np.cumsum(np.bincount(numbers, minlength=0))
        self._starts = np.append(0, self._ends)[:-1]

    def images(self, group: int) -> np.ndarray:
        """Returns the indices of a group's images."""
        return self._order[self._starts[group] : self._ends[group]]

    def first_images(self) -> np.ndarray:
        """Returns the index of one image of each group, int64 [groups]."""
        return self._order[self._starts]

    def larger_than_one(self) -> np.ndarray:
        """Returns the numbers of the groups of more than one image."""
        return np.flatnonzero(self._ends - self._starts > 1)

    def contain(self, selected: np.ndarray) -> np.ndarray:
        """Returns whether each group has a selected image; bool [images] becomes bool [groups]."""
        return np.bincount(self.numbers[selected], minlength=len(self._ends)) > 0

    def are_alike(self, values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Returns whether all images of two groups have the same value.

        Args:
          values: int64 [images], such as the label of each image.
          first: int64 [pairs], numbers of groups.
          second: int64 [pairs], numbers of groups.

        Returns:
          bool [pairs].
        """
        if not len(first):
            return np.zeros(0, bool)
        ordered = values[self._order]
        low, high = (function.reduceat(ordered, self._starts) for function in (np.minimum, np.maximum))
        return np.minimum(low[first], low[second]) == np.maximum(high[first], high[second])


def _add_group(found: Findings, members: list[Member]) -> None:
    """Adds a group of equal images to the findings."""
    splits = {member.split for member in members}
    labels = {member.label for member in members}
    found.repeated += len(members) - len({(member.split, member.label) for member in members})
    if len(splits) > 1:
        found.leaked.append(members)
        for pair in itertools.combinations(sorted(splits, key=_rank), 2):
            number = sum(member.split == pair[0] for member in members)
            found.leaked_images[pair] = found.leaked_images.get(pair, 0) + number
    if len(labels) > 1:
        found.contradictions.append(members)
        found.contradicting_images += len(members)


def _rank(split: str) -> tuple[int, str]:
    """Returns a key that sorts splits in the order test, val, train, and others by name."""
    return (-SPLITS.index(split) if split in SPLITS else 1, split)


def _member_key(member: Member) -> tuple[Any, ...]:
    return _rank(member.split), member.label, member.id, member.index


def _group_key(members: list[Member]) -> tuple[Any, ...]:
    return _member_key(members[0])


def _most_different(first: list[Member], second: list[Member]) -> tuple[Member, Member]:
    """Selects one image of each group, of different splits if possible, otherwise of different labels."""
    # One image of each split and label is enough.
    selected = [
        list({(member.split, member.label): member for member in reversed(group)}.values())
        for group in (first, second)
    ]
    pairs = [sorted(pair, key=_member_key) for pair in itertools.product(*selected)]
    one, other = min(
        pairs,
        key=lambda pair: (
            pair[0].split == pair[1].split,
            pair[0].label == pair[1].label,
            *map(_member_key, pair),
        ),
    )
    return one, other
