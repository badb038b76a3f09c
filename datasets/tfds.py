"""Converts a folder that TensorFlow Datasets (TFDS) prepared to a dataset directory.

Such a folder holds `<name>-train.tfrecord-00000-of-00001`, `<name>-test.tfrecord-...` and optionally
`<name>-validation.tfrecord-...`, whose examples have the features `image` and `label`, and
`label.labels.txt` with the class names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from datasets import directory, features, terminal, tfrecord
from datasets.directory import Dataset, DatasetError

LABELS_FILE = "label.labels.txt"

_SHARD = re.compile(
    r"(?P<name>.+)-(?P<split>train|validation|val|test)\.tfrecord-(?P<index>\d{5})-of-(?P<count>\d{5})"
)


class _Example(NamedTuple):
    image: bytes
    label: int
    id: bytes


def is_tfds(path: Path) -> bool:
    """Returns whether a directory holds TFRecord shards that are named as in TFDS."""
    return path.is_dir() and any(_SHARD.fullmatch(p.name) for p in path.iterdir())


def convert(src: Path, out: Path, val_fraction: float = 0.1, seed: int = 0) -> Dataset:
    """Converts a TFDS folder to a dataset directory.

    If the folder has no validation split, a part of train becomes val. A hash of each image's bytes decides
    which, so that identical images are in the same split and the choice does not depend on anything else.

    Args:
      src: the folder; it is only read.
      out: the dataset directory to write.
      val_fraction: approximate fraction of train that becomes val, if there is no validation split.
      seed: seed of the order of the examples.

    Returns:
      The written dataset.

    Raises:
      DatasetError: splits or shards are missing, a record is damaged or lacks a feature, or `out` is not
        empty.
    """
    shards = _find_shards(src)
    names = _class_names(src, shards)
    needs_val = "val" not in shards
    size = {split: sum(path.stat().st_size for path in paths) for split, paths in shards.items()}
    expected_bytes = {"val": int(val_fraction * size["train"])} | size
    with (
        terminal.progress(f"Converting {src.name}", sum(size.values())) as advance,
        directory.create(out, names, expected_bytes, seed, source=src) as writer,
    ):
        for split, paths in shards.items():
            for example in _examples(split, paths, len(names)):
                is_val = needs_val and split == "train" and _hash(example.image) < val_fraction
                writer.add("val" if is_val else split, **example._asdict())
                advance(len(example.image))
    return directory.read(out)


def prepare(
    src: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder that TFDS prepared, such as .../cifar10/3.0.2.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset directory to write.")],
    val_fraction: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Fraction of train that becomes val, if there is no validation split."
        ),
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of the examples.")] = 0,
) -> None:
    """Writes a folder of TensorFlow Datasets as a dataset directory. SRC is only read."""
    terminal.report(convert(src, out, val_fraction, seed))


def _find_shards(src: Path) -> dict[str, list[Path]]:
    """Maps each split of the folder to its shards in order; `val` is missing without a validation split."""
    matches = [(m, p) for p in sorted(src.glob("*")) if (m := _SHARD.fullmatch(p.name))]
    names = sorted({match["name"] for match, _ in matches})
    if len(names) != 1:
        raise DatasetError(
            f"{src}: expected the shards of one TFDS dataset, such as <name>-train.tfrecord-00000-of-00001; "
            f"found {', '.join(names) or 'none'}"
        )
    shards: dict[str, list[Path]] = {}
    counts: dict[str, set[int]] = {}
    for match, path in matches:
        split = "val" if match["split"] == "validation" else match["split"]
        shards.setdefault(split, []).append(path)
        counts.setdefault(split, set()).add(int(match["count"]))
    for split, paths in shards.items():
        if counts[split] != {len(paths)}:
            raise DatasetError(
                f"{src}: the names of the {split} shards say that there are "
                f"{' or '.join(map(str, sorted(counts[split])))}, found {len(paths)}. "
                "Copy or prepare the folder again"
            )
    missing = {"train", "test"} - shards.keys()
    if missing:
        raise DatasetError(
            f"{src}: expected the splits train and test, found only {', '.join(sorted(shards))}. "
            "Copy or prepare the folder again"
        )
    return shards


def _class_names(src: Path, shards: dict[str, list[Path]]) -> tuple[str, ...]:
    path = src / LABELS_FILE
    if path.exists():
        return directory.read_labels(path)
    terminal.note(f"{src} has no {LABELS_FILE}: the classes are named class_0, class_1 and so on")
    largest = max(example.label for split, paths in shards.items() for example in _examples(split, paths))
    return tuple(f"class_{label}" for label in range(largest + 1))


def _examples(split: str, paths: list[Path], num_classes: int | None = None) -> Iterator[_Example]:
    """Yields the examples of a split and checks that labels are below `num_classes`, if it is given."""
    position = 0
    for path in paths:
        try:
            for number, record in enumerate(tfrecord.read(path)):
                yield _parse(record, f"{path}: record {number}", f"{split}_{position:05d}", num_classes)
                position += 1
        except tfrecord.RecordError as error:
            raise DatasetError(f"{error}. Copy or prepare the folder again") from None


def _parse(record: bytes, where: str, default_id: str, num_classes: int | None) -> _Example:
    try:
        example = tfrecord.decode_example(record)
    except tfrecord.RecordError as error:
        raise DatasetError(f"{where}: {error}") from None
    image, label = example.get(features.IMAGE, []), example.get(features.LABEL, [])
    identity = example.get(features.ID, [])
    if len(image) != 1 or not isinstance(image[0], bytes) or len(label) != 1 or not isinstance(label[0], int):
        found = (
            ", ".join(f"{len(values)} in {name!r}" for name, values in sorted(example.items())) or "nothing"
        )
        raise DatasetError(
            f"{where}: expected one encoded image in {features.IMAGE!r} and one integer in "
            f"{features.LABEL!r}; numbers of values found: {found}"
        )
    if label[0] < 0 or (num_classes is not None and label[0] >= num_classes):
        allowed = "0 or more" if num_classes is None else f"0 to {num_classes - 1}"
        raise DatasetError(f"{where}: expected a label of {allowed}, found {label[0]}")
    given_id = identity[0] if identity and isinstance(identity[0], bytes) else default_id.encode()
    return _Example(image[0], label[0], given_id)


def _hash(image: bytes) -> float:
    """Maps bytes to a number that is uniformly distributed in [0, 1)."""
    return int.from_bytes(hashlib.sha256(image).digest()[:6], "big") / 2**48


if __name__ == "__main__":
    terminal.run(prepare)
