"""Lists the labelled images in TFRecord files of tf.train.Example, for the importers of such files."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from datasets import class_labels, terminal, tfrecord
from datasets.directory import DatasetError
from datasets.importing import Item, RecordPlace
from datasets.tfrecord import Features, Values

# Features that name an image in its source, the best one first.
_ID_FEATURES = (
    *("id", "image_id", "image/id", "image/key"),
    *("filename", "file_name", "image/filename", "image/file_name"),
)
# First bytes of the image formats that are common in records: PNG, JPEG, GIF, BMP, WebP and TIFF.
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\x00", b"MM\x00*")
# Last words of the names of features that hold labels, the surest ones first.
_LABEL_WORDS = (("label", "labels"), ("class", "category", "target", "species"))
_MAX_NAME_LENGTH = 100  # a longer text is not taken for the name of a class
_RECORDS_LOOKED_AT = 20


@dataclass(frozen=True)
class Shard:
    """A TFRecord file.

    Attributes:
      path: the file as the user knows it.
      name: name of the file within its source, which becomes a part of ids.
      split: `train`, `val` or `test`; empty if the split is to be chosen.
      plain: an uncompressed copy of the file, or the file itself.
    """

    path: Path
    name: str
    split: str
    plain: Path

    def records(self) -> Iterator[tuple[int, int, bytes]]:
        """Yields (number, offset, content) of each record, and verifies the checksums.

        Raises:
          DatasetError: a record is damaged.
        """
        try:
            with self.plain.open("rb") as file:
                for number, (offset, data) in enumerate(tfrecord.parse(file, str(self.path))):
                    yield number, offset, data
        except tfrecord.RecordError as error:
            raise DatasetError(f"{error}. Copy or write the file again") from None

    def locate(self, number: int) -> str:
        """Returns the words with which messages name a record."""
        return f"{self.path}: record {number}"


@dataclass(frozen=True)
class Listed:
    """The images of all shards.

    Attributes:
      items: the images in the order of the records.
      class_names: name of each label.
      ignored: reason -> number of records that are left out.
    """

    items: list[Item]
    class_names: list[str]
    ignored: dict[str, int]


@dataclass
class _Columns:
    """What is kept of the records: a few numbers of each, so that millions of records fit into memory."""

    shard: array[int] = field(default_factory=lambda: array("I"))
    offset: array[int] = field(default_factory=lambda: array("Q"))
    size: array[int] = field(default_factory=lambda: array("Q"))
    labels: list[int | str] = field(default_factory=list)  # equal labels are one object
    ids: list[str] = field(default_factory=list)


def list_images(
    shards: Sequence[Shard], image: str, label: str, given_names: Sequence[str] | None = None
) -> Listed:
    """Reads every record, verifies its checksum, and interprets its label.

    An image is named after a feature such as `id` or `filename`, or after its shard and the number of its
    record; names that occur again are made different. What the user should know about the classes is printed.

    Args:
      shards: the files.
      image: name of the feature with the encoded image.
      label: name of the feature with the label: an integer, a one-hot list, or a text.
      given_names: names of the classes, as in `class_labels.number`.

    Raises:
      DatasetError: a record is damaged or lacks a feature, or a label is not among `given_names`.
    """
    columns = _Columns()
    places: dict[int | str, str] = {}  # label -> where it occurs first
    canonical: dict[int | str, int | str] = {}  # label -> the object that stands for all that are equal to it
    ids: set[str] = set()
    unlabelled = 0
    with terminal.progress("Reading records", sum(shard.plain.stat().st_size for shard in shards)) as advance:
        for index, shard in enumerate(shards):
            for number, offset, data in shard.records():
                features = _decode(data, shard, number)
                value = _check(features, image, label, shard, number)
                if value == class_labels.UNLABELLED:
                    unlabelled += 1
                    continue
                if value not in places:
                    _check_kind(value, places, shard.locate(number), label)
                    places[value] = shard.locate(number)
                columns.shard.append(index)
                columns.offset.append(offset)
                columns.size.append(len(data))
                columns.labels.append(canonical.setdefault(value, value))
                columns.ids.append(_identify(features, shard, number, ids))
            advance(shard.plain.stat().st_size)
    if not places:
        raise DatasetError(f"expected records with labels in {label!r}, found none in {len(shards)} files")
    if 2 * len(places) > len(columns.ids):
        raise DatasetError(
            f"expected classes with several images each, found {len(places)} different values of {label!r} "
            f"in {len(columns.ids)} records: is it the label?"
        )
    classes = class_labels.number(places, given_names)
    for note in classes.notes:
        terminal.note(note)
    items = [
        Item(
            RecordPlace(str(shards[shard].plain), offset, size, image),
            id=identity,
            split=shards[shard].split,
            label=classes.index[value],
        )
        for shard, offset, size, value, identity in zip(
            columns.shard, columns.offset, columns.size, columns.labels, columns.ids, strict=True
        )
    ]
    reason = f"records without a label ({class_labels.UNLABELLED})"
    return Listed(items, classes.names, {reason: unlabelled} if unlabelled else {})


def find_features(shards: Sequence[Shard], image: str | None, label: str | None) -> tuple[str, str]:
    """Finds the features of the image and of the label in the first records.

    Args:
      shards: the files.
      image: name of the feature with the image; None to find the only one with encoded images.
      label: name of the feature with the label; None to find the only one with such values, or, of several,
        the only one whose name says so.

    Returns:
      The names of both features.

    Raises:
      DatasetError: there is not exactly one such feature; the message lists the features with their types.
    """
    if image is not None and label is not None:
        return image, label
    shard = next((shard for shard in shards if shard.plain.stat().st_size), shards[0])
    records = [
        _decode(data, shard, number) for number, _, data in islice(shard.records(), _RECORDS_LOOKED_AT)
    ]
    if not records:
        raise DatasetError(f"expected records in {shard.path}, found none")
    names = sorted(set.intersection(*(set(record) for record in records)))
    images = [image] if image is not None else [n for n in names if all(_is_image(r[n]) for r in records)]
    labels = [label] if label is not None else _find_labels(records, [n for n in names if n not in images])
    if len(images) == 1 and len(labels) == 1:
        return images[0], labels[0]
    problems = [
        f"{len(found) or 'no'} features look like {what}{': ' if found else ''}{', '.join(found)}"
        for what, found in (("an encoded image", images), ("a label", labels))
        if len(found) != 1
    ]
    raise DatasetError(
        f"{shard.path}: name the features with --image NAME and --label NAME, because {'; '.join(problems)}. "
        f"The first record has: {describe(records[0])}"
    )


def describe(features: Features) -> str:
    """Lists the names of features with their types: `image (bytes, an image), label (int64)`."""
    return ", ".join(f"{name} ({_type(values)})" for name, values in sorted(features.items())) or "none"


def _decode(data: bytes, shard: Shard, number: int) -> Features:
    try:
        return tfrecord.decode_example(data)
    except tfrecord.RecordError as error:
        raise DatasetError(f"{shard.locate(number)}: {error}") from None


def _check(features: Features, image: str, label: str, shard: Shard, number: int) -> int | str:
    """Checks that a record has an image and a label.

    Returns:
      The label.
    """
    images, values = features.get(image, []), features.get(label)
    problem = ""
    if len(images) != 1 or not isinstance(images[0], bytes):
        problem = f"one encoded image in {image!r}"
    elif values is None:
        problem = f"a label in {label!r}"
    else:
        try:
            value = class_labels.parse(values)
            if isinstance(value, str) or value >= class_labels.UNLABELLED:
                return value
            found = str(value)
        except ValueError as error:
            found = str(error)
        raise DatasetError(
            f"{shard.locate(number)}: expected an integer from 0, a text or a one-hot list in {label!r}, "
            f"found {found}"
        )
    raise DatasetError(
        f"{shard.locate(number)}: expected {problem}, found the features: {describe(features)}"
    )


def _check_kind(value: int | str, places: dict[int | str, str], where: str, label: str) -> None:
    """Checks that all labels are integers or all are texts."""
    for other, other_place in islice(places.items(), 1):
        if isinstance(other, str) != isinstance(value, str):
            raise DatasetError(
                f"{where}: expected a label like the one of {other_place} in {label!r}, which is {other!r}; "
                f"found {value!r}"
            )


def _identify(features: Features, shard: Shard, number: int, taken: set[str]) -> str:
    """Returns a name of the image that no other image has."""
    place = f"{shard.name}:{number}"
    name = place
    for feature in _ID_FEATURES:
        values = features.get(feature, [])
        if len(values) == 1 and values[0] != b"":
            (value,) = values
            name = os.fsdecode(value) if isinstance(value, bytes) else str(value)
            break
    while name in taken:
        name = f"{name} ({place})"
    taken.add(name)
    return name


def _find_labels(records: Sequence[Features], names: Sequence[str]) -> list[str]:
    """Lists the features that may be the label: those with the surest names, or all with such values."""
    possible = [name for name in names if all(_is_label(record[name]) for record in records)]
    for words in _LABEL_WORDS:
        named = [
            name for name in possible if re.findall(r"[a-z]+", name.lower())[-1:] in [[w] for w in words]
        ]
        if named:
            return named
    return possible


def _is_image(values: Values) -> bool:
    return len(values) == 1 and isinstance(values[0], bytes) and values[0].startswith(_IMAGE_STARTS)


def _is_label(values: Values) -> bool:
    try:
        label = class_labels.parse(values)
    except ValueError:
        return False
    return len(label) <= _MAX_NAME_LENGTH if isinstance(label, str) else label >= class_labels.UNLABELLED


def _type(values: Values) -> str:
    if not values:
        return "empty"
    if _is_image(values):
        return "bytes, an image"
    kind = {bytes: "bytes", int: "int64", float: "float"}[type(values[0])]
    return kind if len(values) == 1 else f"{len(values)} {kind}"
