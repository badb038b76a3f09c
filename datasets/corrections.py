"""Applies the user's corrections to a dataset directory: other labels, and images that are left out.

The report of a run shows images whose labels are doubtful, and writes what the user decides about them to a
corrections file. This is a JSON object with the format's name and a list:

    {"format": "corrections/1", "corrections": [
      {"id": "train/cat/1.png", "split": "test", "action": "relabel", "label": "dog"},
      {"id": "train/cat/2.png", "split": "train", "action": "remove"},
      {"id": "train/cat/3.png", "split": "train", "action": "keep"}]}

`split` may be left out if the id occurs in one split only.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from datasets import atomic_directory, directory, features, limited, overview, terminal, tfrecord
from datasets.directory import LABELS_FILE, SCHEMA_FILE, SPLITS, Dataset, DatasetError

FORMAT = "corrections/1"
ACTIONS = ("relabel", "remove", "keep")

_MAX_LISTED = 10  # problems of one kind that a message lists


@dataclass(frozen=True)
class Correction:
    """What the user decided about an image.

    Attributes:
      id: id of the example.
      split: its split; empty if the file does not say it.
      action: one of ACTIONS.
      label: name of the right class for `relabel`, otherwise empty.
    """

    id: str
    split: str
    action: str
    label: str

    def __str__(self) -> str:
        return f"{self.action} {self.id!r}" + (f" as {self.label!r}" if self.label else "")


@dataclass(frozen=True)
class Changes:
    """How many images the corrections changed.

    Attributes:
      relabelled: images with another label than before.
      removed: images that are left out.
      kept: images that stay as they are, among them those that already had the label of the correction.
    """

    relabelled: int
    removed: int
    kept: int

    def __str__(self) -> str:
        return f"{self.relabelled} relabelled, {self.removed} removed, {self.kept} kept"


# Position of an example: its split, the name of its shard, and the number of its record.
_Place = tuple[str, str, int]


@dataclass(frozen=True)
class _Example:
    place: _Place
    label: int


def read(paths: Sequence[Path]) -> list[Correction]:
    """Reads corrections files.

    Raises:
      DatasetError: a file cannot be read, or has another format.
    """
    return [correction for path in paths for correction in _read_file(path)]


def apply(data: Path, corrections: Sequence[Correction], out: Path) -> tuple[Dataset, Changes]:
    """Writes a copy of a dataset directory with corrections.

    The images, their order and their shards stay the same. All corrections are checked before anything is
    written.

    Args:
      data: the dataset directory; it is only read.
      corrections: the corrections; several of the same image have to agree.
      out: the dataset directory to write.

    Returns:
      The written dataset, and what changed.

    Raises:
      DatasetError: a correction names an unknown or ambiguous id or an unknown class, corrections contradict
        each other, nothing would change, or a class would lose its last training image.
    """
    dataset = directory.read(data)
    directory.check_destination(out, dataset.path)
    _check_class_names(corrections, dataset)
    examples, counts = _find_examples(dataset, {correction.id for correction in corrections})
    resolved = _resolve(corrections, examples)
    labels = {name: label for label, name in enumerate(dataset.class_names)}
    # Place -> the new label, or None for an image that is left out.
    changed: dict[_Place, int | None] = {}
    for example, correction in resolved:
        if correction.action == "remove":
            changed[example.place] = None
        elif correction.action == "relabel" and labels[correction.label] != example.label:
            changed[example.place] = labels[correction.label]
    removed = sum(label is None for label in changed.values())
    changes = Changes(len(changed) - removed, removed, len(resolved) - len(changed))
    if not changed:
        raise DatasetError(
            f"the corrections change nothing ({changes}), so that {out} is not written; use {data} as it is"
        )
    _check_counts(counts, [example for example, _ in resolved], changed, dataset)
    _write(dataset, changed, Path(out).resolve())
    return directory.read(out), changes


def prepare(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Dataset directory that is corrected.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="CORRECTIONS", help="Corrections files that reports have written.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset directory to write.")],
) -> None:
    """Writes a corrected copy of a dataset directory: images have other labels, or are left out.

    DATA is only read. OUT has other content, so that a run with `--data OUT` trains a new model.
    """
    dataset, changes = apply(data, read(files), out)
    terminal.note(f"corrected images: {changes}")
    overview.show(dataset)


def _read_file(path: Path) -> list[Correction]:
    try:
        content = limited.read_json(path)
    except OSError as error:
        raise DatasetError(f"cannot read the corrections {path}: {error.strerror}") from None
    except ValueError as error:
        raise DatasetError(f"{path}: expected JSON, found something else ({error})") from None
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(content, dict) or found != FORMAT or not isinstance(content.get("corrections"), list):
        raise DatasetError(
            f'{path}: expected corrections of a report, {{"format": "{FORMAT}", "corrections": [...]}}, '
            f"found the format {found!r}. Save the file again from the report's page"
        )
    return [
        _parse(entry, f"{path}: correction {number}") for number, entry in enumerate(content["corrections"])
    ]


def _parse(entry: Any, where: str) -> Correction:
    """Checks one correction of a file."""
    if not isinstance(entry, dict):
        raise DatasetError(f"{where}: expected an object, found {entry!r}")
    values = {name: entry.get(name) or "" for name in ("id", "split", "action", "label")}
    wrong = [name for name, value in values.items() if not isinstance(value, str)]
    if wrong or not values["id"]:
        raise DatasetError(f"{where}: expected a text in {wrong[0] if wrong else 'id'!r}, found {entry!r}")
    if values["action"] not in ACTIONS:
        raise DatasetError(
            f"{where}: expected one of the actions {', '.join(ACTIONS)}, found {values['action']!r}"
        )
    if values["split"] not in ("", *SPLITS):
        raise DatasetError(
            f"{where}: expected one of the splits {', '.join(SPLITS)}, found {values['split']!r}"
        )
    if values["action"] != "relabel":
        values["label"] = ""
    elif not values["label"]:
        raise DatasetError(f"{where}: expected the class in 'label', found {entry!r}")
    return Correction(**values)


def _check_class_names(corrections: Sequence[Correction], dataset: Dataset) -> None:
    unknown = [c for c in corrections if c.action == "relabel" and c.label not in dataset.class_names]
    if unknown:
        raise DatasetError(
            f"expected the classes of {dataset.path} ({', '.join(dataset.class_names)}), found:"
            f"{_list([str(correction) for correction in unknown])}"
        )


def _find_examples(
    dataset: Dataset, ids: set[str]
) -> tuple[dict[str, list[_Example]], dict[str, Counter[int]]]:
    """Reads all records.

    Returns:
      The examples with each of the given ids, and the number of examples of each split and label.
    """
    examples: dict[str, list[_Example]] = defaultdict(list)
    counts: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
    with _progress("Reading records", dataset) as advance:
        for split, shard in _shards(dataset):
            for place, record in _read_shard(split, shard):
                identity, label = _identify(record, shard, place[2])
                counts[split][label] += 1
                if identity in ids:
                    examples[identity].append(_Example(place, label))
            advance(shard.stat().st_size)
    return examples, counts


def _identify(record: bytes, shard: Path, number: int) -> tuple[str | None, int]:
    """Returns the id, or None without one, and the label of a record."""
    try:
        example = tfrecord.decode_example(record)
        (label,) = example[features.LABEL]
    except (tfrecord.RecordError, KeyError, ValueError):
        raise DatasetError(
            f"{shard}: record {number}: expected an example with one {features.LABEL!r}. "
            "Write the dataset again"
        ) from None
    identity = example.get(features.ID) or [None]
    return os.fsdecode(identity[0]) if isinstance(identity[0], bytes) else None, int(label)


def _resolve(
    corrections: Sequence[Correction], examples: Mapping[str, Sequence[_Example]]
) -> list[tuple[_Example, Correction]]:
    """Finds the one example of each correction; equal corrections of an example count once."""
    unknown, ambiguous, contradictory = [], [], []
    resolved: dict[_Place, tuple[_Example, Correction]] = {}
    for correction in corrections:
        everywhere = examples.get(correction.id, [])
        found = [e for e in everywhere if correction.split in ("", e.place[0])]
        if not found:
            where = f" in {correction.split}" if everywhere else ""
            others = f", but one in {everywhere[0].place[0]}" if everywhere else ""
            unknown.append(f"{correction}: there is no such id{where}{others}")
        elif len(found) > 1:
            splits = ", ".join(f"{n} in {split}" for split, n in Counter(e.place[0] for e in found).items())
            ambiguous.append(f"{correction}: {splits}")
        else:
            _, first = resolved.setdefault(found[0].place, (found[0], correction))
            if (first.action, first.label) != (correction.action, correction.label):
                contradictory.append(f"{first}, and {correction}")
    for problems, expected in (
        (
            unknown,
            "expected corrections of images in the dataset; were the corrections made with other data?",
        ),
        (ambiguous, "expected ids that only one image has; name the split, or write the dataset again"),
        (contradictory, "expected corrections that agree"),
    ):
        if problems:
            raise DatasetError(f"{expected} Found:{_list(problems)}")
    return list(resolved.values())


def _check_counts(
    counts: Mapping[str, Counter[int]],
    examples: Sequence[_Example],
    changed: Mapping[_Place, int | None],
    dataset: Dataset,
) -> None:
    """Checks that every class still has a training image, and every split an image."""
    after = {split: counter.copy() for split, counter in counts.items()}
    for example in examples:
        if example.place in changed:
            split, label = example.place[0], changed[example.place]
            after[split][example.label] -= 1
            if label is not None:
                after[split][label] += 1
    lost = [
        label for label, number in sorted(counts["train"].items()) if number and not after["train"][label]
    ]
    if lost:
        raise DatasetError(
            "expected every class to keep a training image; none would be left of "
            f"{', '.join(dataset.class_names[label] for label in lost)}. Drop some of these "
            "corrections, or import the images again without the class"
        )
    empty = [split for split in SPLITS if not after[split].total()]
    if empty:
        raise DatasetError(f"expected every split to keep an image; none would be left in {', '.join(empty)}")


def _write(dataset: Dataset, changed: Mapping[_Place, int | None], out: Path) -> None:
    with atomic_directory.create(out) as partial, _progress("Writing records", dataset) as advance:
        for name in (LABELS_FILE, SCHEMA_FILE):
            shutil.copyfile(dataset.path / name, partial / name)
        for split, shard in _shards(dataset):
            (partial / split).mkdir(exist_ok=True)
            with (partial / split / shard.name).open("wb") as file:
                for place, record in _read_shard(split, shard):
                    if place not in changed:
                        tfrecord.write(file, record)
                    elif (label := changed[place]) is not None:
                        tfrecord.write(file, tfrecord.replace_integer(record, features.LABEL, label))
            advance(shard.stat().st_size)


def _shards(dataset: Dataset) -> list[tuple[str, Path]]:
    return [(split, shard) for split in SPLITS for shard in directory.find_shards(dataset.path / split)]


def _read_shard(split: str, shard: Path) -> Iterator[tuple[_Place, bytes]]:
    """Yields the place and content of each record of a shard, and verifies the checksums."""
    try:
        for number, record in enumerate(tfrecord.read(shard)):
            yield (split, shard.name, number), record
    except tfrecord.RecordError as error:
        raise DatasetError(f"{error}. Write the dataset again") from None


def _progress(description: str, dataset: Dataset) -> AbstractContextManager[Callable[[int], None]]:
    return terminal.progress(description, sum(shard.stat().st_size for _, shard in _shards(dataset)))


def _list(problems: Sequence[str]) -> str:
    lines = "".join(f"\n  {problem}" for problem in problems[:_MAX_LISTED])
    return lines + (f"\n  and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else "")


if __name__ == "__main__":
    terminal.run(prepare)
