"""Converts a folder that TensorFlow Datasets (TFDS) prepared to a dataset directory.

Such a folder holds the shards of each split, `<name>-train.tfrecord-00000-of-00001` and so on, and metadata:
`features.json` with the types of the features, `<feature>.labels.txt` with the class names, and
`dataset_info.json` with the splits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from datasets import directory, importing, layout, limited, options, records, terminal, tfrecord
from datasets.directory import SPLITS, Dataset, DatasetError
from datasets.records import Shard

FEATURES_FILE = "features.json"
INFO_FILE = "dataset_info.json"

_SHARD = re.compile(r"(?P<name>.+)-(?P<split>[^-]+)\.tfrecord-(?P<index>\d{5})-of-(?P<count>\d{5})")
# The label that is taken if an image has several.
_USUAL_LABEL = "label"


@dataclass
class _Features:
    """The features of a folder that matter, from `features.json`.

    Attributes:
      images: names of the features that hold an image.
      labels: name of each feature that holds a class -> the file with the names of its classes.
    """

    images: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


def is_tfds(path: Path) -> bool:
    """Returns whether a directory has the metadata of TFDS, or shards that are named like theirs."""
    if not path.is_dir():
        return False
    if (path / FEATURES_FILE).exists() and (path / INFO_FILE).exists():
        return True
    first = next((p for p in path.iterdir() if _SHARD.fullmatch(p.name)), None)
    # TFDS compresses nothing. None is the compression of a damaged file.
    return first is not None and tfrecord.compression(first) in ("", None)


def find_versions(path: Path) -> list[Path]:
    """Lists the folders of TFDS below a directory: `cifar10/3.0.2` in `cifar10`."""
    return sorted(folder for pattern in ("*", "*/*") for folder in path.glob(pattern) if is_tfds(folder))


def convert(
    src: Path,
    out: Path,
    *,
    image: str | None = None,
    label: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_bad: bool = False,
    report: Path | None = None,
) -> Dataset:
    """Converts a TFDS folder to a dataset directory.

    The splits train, validation and test are taken, or what is there of them: parts of train become val and
    test where they are missing. Other splits are left out, and listed.

    Args:
      src: the folder; it is only read.
      out: the dataset directory to write.
      image: name of the feature with the image; None to take the only one.
      label: name of the feature with the class; None to take `label`, or the only one.
      val_fraction: fraction of each class of train that becomes val, if there is no such split.
      test_fraction: fraction of each class of train that becomes test, if there is no such split.
      seed: seed of the splits and of the order of the examples.
      skip_bad: leave out images that cannot be used instead of raising an error.
      report: HTML file to write with the summary and a sheet of images; None writes none.

    Returns:
      The written dataset.

    Raises:
      DatasetError: there is no train split, shards are missing, the features are not those of an
        image-classification dataset, a record is damaged, or `out` is not empty.
    """
    importing.check_fractions(val_fraction, test_fraction)
    directory.check_destination(out, src)
    known = _read_features(src)
    image = image or _choose(known.images, "image", src)
    label = label or _choose(list(known.labels), "label", src)
    shards, left_out = _find_shards(src)
    image, label = records.find_features(shards, image, label)
    labels_file = src / known.labels.get(label, f"{label}.labels.txt")
    names = directory.read_labels(labels_file) if labels_file.exists() else None
    if names is None:
        terminal.note(f"{src} has no {labels_file.name} with class names")
    listed = records.list_images(shards, image, label, names)
    ignored: dict[str, int | Sequence[str]] = {"splits of TFDS": left_out} if left_out else {}
    return importing.convert(
        listed.items,
        listed.class_names,
        out,
        source=src,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        skip_bad=skip_bad,
        report=report,
        ignored=ignored | listed.ignored,
    )


def prepare(
    src: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder that TFDS prepared, such as .../cifar10/3.0.2.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset directory to write.")],
    *,
    image: Annotated[
        str | None, typer.Option(help="Feature with the image; by default the only one.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Feature with the class; by default `label` or the only one.")
    ] = None,
    val_fraction: options.ValFraction = 0.1,
    test_fraction: options.TestFraction = 0.1,
    seed: options.Seed = 0,
    skip_bad: options.SkipBad = False,
    report: options.Report = None,
) -> None:
    """Writes a folder of TensorFlow Datasets as a dataset directory. SRC is only read.

    The splits train, validation and test are taken; parts of train become those that are missing.
    """
    convert(
        src,
        out,
        image=image,
        label=label,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        skip_bad=skip_bad,
        report=report,
    )


def _find_shards(src: Path) -> tuple[list[Shard], list[str]]:
    """Lists the shards of train, val and test in order, and the names of the other splits."""
    files: dict[str, list[Path]] = {split: [] for split in _listed_splits(src)}
    matches = [(m, p) for p in sorted(src.glob("*")) if (m := _SHARD.fullmatch(p.name))]
    names = sorted({match["name"] for match, _ in matches})
    if len(names) != 1:
        raise DatasetError(
            f"{src}: expected the shards of one TFDS dataset, such as <name>-train.tfrecord-00000-of-00001; "
            f"found {', '.join(names) or 'none'}"
        )
    counts: dict[str, set[int]] = {}
    for match, path in matches:
        files.setdefault(match["split"], []).append(path)
        counts.setdefault(match["split"], set()).add(int(match["count"]))
    for split, paths in files.items():
        if counts.get(split) != {len(paths)}:
            expected = " or ".join(map(str, sorted(counts[split]))) if split in counts else "some"
            raise DatasetError(
                f"{src}: expected {expected} {split} shards, as {INFO_FILE} or the names of shards say, "
                f"found {len(paths) or 'none'}. Copy or prepare the folder again"
            )
    meanings: dict[str, str] = {}  # one of SPLITS -> the split of TFDS
    for name in files:
        meant = layout.split_of(name)
        if meant in meanings:
            raise DatasetError(
                f"{src}: expected one split for {meant}, found {meanings[meant]} and {name}. Choose with "
                "`python -m datasets.tfrecords` and its --split options"
            )
        if meant:
            meanings[meant] = name
    if "train" not in meanings:
        raise DatasetError(
            f"{src}: expected a split train, found only {', '.join(sorted(files))}. Prepare the folder with "
            "train, or convert it with `python -m datasets.tfrecords` and its --split options"
        )
    shards = [
        Shard(path, path.name, split, path)
        for split in SPLITS
        for path in files.get(meanings.get(split, ""), [])
    ]
    return shards, sorted(files.keys() - set(meanings.values()))


def _listed_splits(src: Path) -> list[str]:
    """Returns the splits with examples in `dataset_info.json`, or none if there is no such file.

    Raises:
      DatasetError: the shards are not TFRecord files.
    """
    info = _read_json(src / INFO_FILE)
    file_format = info.get("fileFormat") or "tfrecord"
    if file_format != "tfrecord":
        raise DatasetError(
            f"{src}: expected files of the format tfrecord, found {str(file_format)[:100]}. Prepare the "
            "folder again with `file_format='tfrecord'`"
        )
    try:
        return [
            str(split["name"])
            for split in info.get("splits") or []
            if isinstance(split, dict) and "name" in split and any(map(int, split.get("shardLengths") or []))
        ]
    except (TypeError, ValueError) as error:
        raise _not_written_by_tfds(src / INFO_FILE, error) from None


def _read_features(src: Path) -> _Features:
    found = _Features()
    try:
        leaves = list(_leaves(_read_json(src / FEATURES_FILE), ()))
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_written_by_tfds(src / FEATURES_FILE, error) from None
    for name, kind in leaves:
        if kind == "Image":
            found.images.append("/".join(name))
        elif kind == "ClassLabel":
            found.labels["/".join(name)] = f"{'-'.join(name)}.labels.txt"
    return found


def _not_written_by_tfds(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{path}: expected what TFDS writes, found something else ({error}). Copy or prepare the folder again"
    )


def _leaves(node: Any, name: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields (name, type) of the features in `features.json`, whose form differs between versions of TFDS."""
    if not isinstance(node, dict):
        return
    kind = str(node.get("pythonClassName") or node.get("type") or "").rpartition(".")[2]
    if kind != "FeaturesDict":
        yield name, kind
        return
    content = node.get("featuresDict", node.get("content"))
    if isinstance(content, str):
        content = json.loads(content)
    children = content.get("features", content) if isinstance(content, dict) else {}
    if not isinstance(children, dict):
        raise TypeError(f"a list of features is a {type(children).__name__}")
    for key, child in children.items():
        yield from _leaves(child, (*name, key))


def _choose(names: list[str], what: str, src: Path) -> str | None:
    """Returns the feature to take, or None if `features.json` does not tell."""
    if _USUAL_LABEL in names and what == "label":
        return _USUAL_LABEL
    if len(names) > 1:
        raise DatasetError(
            f"{src}: expected one feature with the {what}, found {', '.join(names)}. Choose one with "
            f"`python -m datasets.tfds {src} OUT --{what} NAME`"
        )
    return names[0] if names else None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = limited.read_json(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {path}: {error}. Copy or prepare the folder again") from None
    return content if isinstance(content, dict) else {}


if __name__ == "__main__":
    terminal.run(prepare)
