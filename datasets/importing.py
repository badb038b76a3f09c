"""Converts listed images to a dataset directory: the one way that all importers share.

An importer lists its images as `Item`s. `convert` then inspects every image, decides the splits, writes the
shards, and prints a summary. All cores work at once, and memory holds a small record of each image, never all
images.
"""

from __future__ import annotations

import os
import posixpath
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datasets import (
    bulk_inspection,
    directory,
    inspection,
    listing,
    remote,
    splitting,
    summary,
    terminal,
    tfrecord,
    workers,
)
from datasets.bulk_inspection import Inspections
from datasets.depth import Ranges
from datasets.directory import SPLITS, Dataset, DatasetError
from datasets.inspection import Handling
from datasets.workers import Workers

_MAX_LISTED = 20  # unusable images that a message lists


class Place(Protocol):
    """Where the bytes of an image are. Places are pickled, because other processes read the images."""

    def read(self) -> bytes:
        """Returns the bytes of the image file.

        Raises:
          OSError: the bytes cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class FilePlace:
    """An image file.

    Attributes:
      path: path of the file.
    """

    path: str

    def read(self) -> bytes:
        return Path(self.path).read_bytes()


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """An image in a record of an uncompressed TFRecord file.

    Attributes:
      path: path of the TFRecord file.
      offset: position of the record's data, after the record's header, in bytes.
      size: length of the record's data in bytes.
      feature: name of the feature that holds the encoded image.
    """

    path: str
    offset: int
    size: int
    feature: str

    def read(self) -> bytes:
        with Path(self.path).open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        try:
            values = tfrecord.decode_example(data).get(self.feature, [])
        except tfrecord.RecordError as error:
            raise OSError(str(error)) from None
        if len(values) != 1 or not isinstance(values[0], bytes):
            raise OSError(f"expected one encoded image in the feature {self.feature!r}, found {len(values)}")
        return values[0]


@dataclass(frozen=True, slots=True)
class Item:
    """An image to convert.

    Attributes:
      place: where its bytes are.
      id: its name in the source, such as a relative path; file names that are not UTF-8 are written as
        `os.fsdecode` does.
      split: `train`, `val` or `test`; empty if the split is to be chosen.
      label: index of its class, from 0.
    """

    place: Place
    id: str
    split: str
    label: int


def convert(
    items: Sequence[Item],
    class_names: Sequence[str],
    out: Path,
    *,
    source: Path | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_bad: bool = False,
    report: Path | None = None,
    ignored: Mapping[str, int | Sequence[str]] | None = None,
) -> Dataset:
    """Converts images to a dataset directory, and prints a summary.

    Args:
      items: the images, in a fixed order.
      class_names: name of each label, in the order of the labels.
      out: the dataset directory to write.
      source: directory that is only read; `out` must not be inside it.
      val_fraction: fraction of each class that becomes val, if no item is in val; above 0.
      test_fraction: fraction of each class that becomes test, if no item is in test; above 0. Fractions are
        of the items without a split, or of train if every item has one.
      seed: seed of the splits and of the order of the examples.
      skip_bad: leave out images that cannot be used instead of raising an error.
      report: HTML file to write with the summary and a sheet of images; None writes no file.
      ignored: what the importer left out: a reason, such as `no image files, .txt`, and the number or the
        names.

    Returns:
      The written dataset.

    Raises:
      DatasetError: images cannot be used, a class has too few, or `out` is not empty.
    """
    check_fractions(val_fraction, test_fraction)
    directory.check_destination(out, source)
    if report is not None and not report.absolute().parent.is_dir():
        raise DatasetError(f"the folder of {report} does not exist")
    with workers.start() as pool:
        inspected, splits = examine(
            pool,
            items,
            class_names,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            skip_bad=skip_bad,
        )
        with directory.stage(out, class_names, source) as partial:
            write_shards(pool, items, inspected, splits, str(partial), seed)
    dataset = directory.read(out)
    summarize(items, class_names, inspected, splits, str(dataset.path), report, ignored or {})
    return dataset


def examine(
    pool: Workers,
    items: Sequence[Item],
    class_names: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    skip_bad: bool,
) -> tuple[Inspections, list[str]]:
    """Inspects all images and decides their splits; for the arguments, see `convert`.

    Returns:
      The records of the usable images, and the split of each.

    Raises:
      DatasetError: images cannot be used, or a class has too few.
    """
    inspected = bulk_inspection.inspect_all(pool, items)
    _report_unusable(inspected.unusable, len(items), skip_bad)
    splits = _choose_splits(items, inspected, class_names, val_fraction, test_fraction, seed)
    inspected.fingerprints.set_splits(splits)
    return inspected, splits


def summarize(
    items: Sequence[Item],
    class_names: Sequence[str],
    inspected: Inspections,
    splits: Sequence[str],
    path: str,
    report: Path | None,
    ignored: Mapping[str, int | Sequence[str]],
) -> None:
    """Looks for duplicates, and prints the summary of a written dataset.

    Args:
      items: the images.
      class_names: name of each label.
      inspected: the records of the usable images.
      splits: split of each usable image.
      path: path or URI of the dataset directory.
      report: HTML file to write, or None.
      ignored: see `convert`.
    """
    with terminal.progress("Looking for duplicates", len(splits)) as advance:
        findings = inspected.fingerprints.findings()
        advance(len(splits))
    facts = summary.Facts(
        class_names=class_names,
        splits=splits,
        labels=[items[i].label for i in inspected.index],
        widths=inspected.widths,
        heights=inspected.heights,
        formats=inspected.formats,
        scalings=[values.describe() for values in inspected.ranges.values()],
        unusable=inspected.unusable,
        ignored=ignored,
        findings=findings,
    )
    summary.show(facts, path)
    if report is not None:

        def stored(position: int) -> bytes:
            item = items[inspected.index[position]]
            return stored_image(item, inspected.handling(position), inspected.ranges)

        summary.write_html(facts, path, report, stored)


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Checks the fractions of the images for val and test.

    Raises:
      DatasetError: a fraction is not above 0, or no image would be left for train.
    """
    if not (0 < val_fraction < 1 and 0 < test_fraction < 1 and val_fraction + test_fraction < 1):
        raise DatasetError(
            "expected fractions above 0 whose sum is below 1, so that images are left for train; "
            f"found {val_fraction:g} for val and {test_fraction:g} for test"
        )


def _report_unusable(unusable: Sequence[tuple[str, str]], total: int, skip_bad: bool) -> None:
    """Lists the images that cannot be used, and raises an error unless they are to be left out."""
    if not unusable:
        return
    listed = listing.lines([f"{name}: {reason}" for name, reason in unusable], _MAX_LISTED)
    if not skip_bad:
        raise DatasetError(
            f"{len(unusable):,} of {total:,} images cannot be used; repair or remove them, or leave "
            f"them out with --skip-bad:\n{listed}"
        )
    terminal.note(f"skipped {len(unusable):,} of {total:,} images:\n{listed}")


def _choose_splits(
    items: Sequence[Item],
    inspected: Inspections,
    class_names: Sequence[str],
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[str]:
    """Returns the split of every usable image: its own, or a chosen one, the same for equal images."""
    splits = [items[index].split for index in inspected.index]
    labels = [items[index].label for index in inspected.index]
    present = set(splits)
    source = "" if "" in present else "train"
    if source not in present:
        raise DatasetError(
            f"expected images for train, found only images for {', '.join(sorted(present)) or 'no split'}"
        )
    missing = [split for split in ("test", "val") if split not in present]
    if missing:
        groups = inspected.fingerprints.groups().tolist()
        _require_different_images(splits, labels, groups, class_names, source, ["train", *missing])
        fractions = {"test": test_fraction, "val": val_fraction}
        if "test" in missing:
            fractions["val"] /= 1 - test_fraction
        for split in missing:
            candidates = [position for position, own in enumerate(splits) if own == source]
            held_out = splitting.hold_out(
                [labels[position] for position in candidates],
                fractions[split],
                seed,
                split,
                [groups[position] for position in candidates],
            )
            for candidate in held_out:
                splits[candidates[candidate]] = split
    splits = [split or "train" for split in splits]
    for split in SPLITS:
        counts = Counter(label for own, label in zip(splits, labels, strict=True) if own == split)
        _require_images(counts, class_names, 1, f"image of every class in {split}")
    return splits


def _require_different_images(
    splits: Sequence[str],
    labels: Sequence[int],
    groups: Sequence[int],
    class_names: Sequence[str],
    source: str,
    targets: Sequence[str],
) -> None:
    """Requires an image of every class for each split that is cut from a source; equal images count once."""
    different = {
        (group, label) for own, label, group in zip(splits, labels, groups, strict=True) if own == source
    }
    where = f" in {source}" if source else ""
    purpose = f"different images of every class{where}, one for each of {', '.join(targets)}"
    _require_images(Counter(label for _, label in different), class_names, len(targets), purpose)


def _require_images(counts: Mapping[int, int], class_names: Sequence[str], least: int, what: str) -> None:
    few = [
        f"{name!r} has {counts.get(i, 0)}" for i, name in enumerate(class_names) if counts.get(i, 0) < least
    ]
    if few:
        raise DatasetError(
            f"expected at least {least} usable {what}; {listing.join(few, _MAX_LISTED)}. Add images, or "
            "remove the class"
        )


@dataclass(frozen=True)
class ShardTask:
    """A shard that one process writes.

    Attributes:
      path: path or URI of the file to write.
      items: the images, in the order of the records.
      handlings: how each image is stored.
      ranges: ranges of the images of more than 8 bits.
    """

    path: str
    items: Sequence[Item]
    handlings: Sequence[Handling]
    ranges: Ranges


def write_shards(
    pool: Workers, items: Sequence[Item], inspected: Inspections, splits: Sequence[str], out: str, seed: int
) -> None:
    """Writes the examples of every split in random order to its shards.

    Args:
      pool: the processes that read, convert and write the images.
      items: the images.
      inspected: the records of the usable images.
      splits: split of each usable image.
      out: path or URI of the folder that contains a folder for each split.
      seed: seed of the order.
    """
    tasks = []
    for split in SPLITS:
        positions = [position for position, own in enumerate(splits) if own == split]
        names = directory.shard_names(split, sum(inspected.sizes[position] for position in positions))
        random.Random(f"{seed} {split}").shuffle(positions)
        for number, name in enumerate(names):
            part = positions[
                number * len(positions) // len(names) : (number + 1) * len(positions) // len(names)
            ]
            tasks.append(
                ShardTask(
                    posixpath.join(out, split, name),
                    [items[inspected.index[position]] for position in part],
                    [inspected.handling(position) for position in part],
                    inspected.ranges,
                )
            )
    with terminal.progress("Writing images", len(splits)) as advance:
        for task, _ in zip(tasks, pool.map(write_shard, tasks), strict=True):
            advance(len(task.items))


def write_shard(task: ShardTask) -> None:
    """Reads, converts and writes the images of a shard, of which only one is in memory at a time.

    Raises:
      DatasetError: an image has changed since it was inspected.
      OSError: the shard cannot be written.
    """
    if not remote.is_uri(task.path):
        Path(task.path).parent.mkdir(exist_ok=True, parents=True)
    with remote.create(task.path) if remote.is_uri(task.path) else Path(task.path).open("wb") as file:
        for item, handling in zip(task.items, task.handlings, strict=True):
            image = stored_image(item, handling, task.ranges)
            record = directory.encode_example(image, item.label, item.id.encode(errors="surrogateescape"))
            tfrecord.write(file, record)
        if not remote.is_uri(task.path):
            file.flush()
            os.fsync(file.fileno())


def stored_image(item: Item, handling: Handling, ranges: Ranges) -> bytes:
    """Returns the PNG or JPEG file that the dataset contains for an image.

    Raises:
      DatasetError: the image has changed since it was inspected.
    """
    try:
        return inspection.store(item.place.read(), handling, ranges)
    except Exception as error:  # see `inspection.inspect`
        raise DatasetError(f"{item.id}: changed while it was converted ({error}). Try again") from None
