"""Converts TFRecord files of the user to a dataset directory.

The records are tf.train.Examples with an encoded image and a label: an integer, a one-hot list or a text. The
names of the files, or of their folders, say which split they belong to.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from datasets import (
    atomic_directory,
    class_labels,
    directory,
    folders,
    importing,
    layout,
    options,
    records,
    terminal,
    tfrecord,
)
from datasets.directory import SPLITS, Dataset, DatasetError
from datasets.folders import Ignored
from datasets.records import Shard

# Names of files that should be TFRecord files, so that one that is not is an error: `a.tfrecord`, `a.tfrec`,
# `a.record.gz`, `train-00000-of-00010`.
_RECORD_NAME = re.compile(
    r"(\.(tfrecords?|tfrec|records?)|-\d{5}-of-\d{5})(\.(gz|gzip|z|zlib))?$", re.IGNORECASE
)
_NUMBERED = re.compile(r"(?P<before>.*?)-\d{5}-of-(?P<count>\d{5})(?P<after>.*)")
_MAX_PEEKED = 1000  # entries of a directory that `is_tfrecords` looks at


@dataclass
class _Found:
    """The files to convert.

    Attributes:
      files: path -> name within the source, in a fixed order.
      compressed: path -> compression of the compressed ones.
      ignored: reason -> number of the files of folders that are left out, or their names.
      source: the only folder that is converted, if it is one.
    """

    files: dict[Path, str] = field(default_factory=dict)
    compressed: dict[Path, str] = field(default_factory=dict)
    ignored: dict[str, int | Sequence[str]] = field(default_factory=dict)
    source: Path | None = None


def is_tfrecords(path: Path) -> bool:
    """Returns whether a path is a TFRecord file, or a directory with one in it or in a folder below it."""
    # Two levels only: the directory may hold something else entirely, and may be huge.
    entries = itertools.islice(itertools.chain(path.glob("*"), path.glob("*/*")), _MAX_PEEKED)
    return _has_records(path) or any(_has_records(entry) for entry in entries)


def convert(
    sources: Sequence[str],
    out: Path,
    *,
    image: str | None = None,
    label: str | None = None,
    labels: Path | None = None,
    splits: dict[str, Sequence[str]] | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_bad: bool = False,
    report: Path | None = None,
) -> Dataset:
    """Converts TFRecord files to a dataset directory.

    Args:
      sources: files, folders and glob patterns; they are only read.
      out: the dataset directory to write.
      image: name of the feature with the encoded image; None to find it.
      label: name of the feature with the label; None to find it.
      labels: file with the class names, one per line; None names integers `class_0` and so on, and sorts
        texts.
      splits: split -> glob patterns of its files' names within their source; files that match none are left
        out. None takes the split from the name of each file or its folders.
      val_fraction: fraction of each class that becomes val, if no file is of val.
      test_fraction: fraction of each class that becomes test, if no file is of test.
      seed: seed of the splits and of the order of the examples.
      skip_bad: leave out images that cannot be used instead of raising an error.
      report: HTML file to write with the summary and a sheet of images; None writes none.

    Returns:
      The written dataset.

    Raises:
      DatasetError: a file or a record cannot be used; the message names it.
    """
    importing.check_fractions(val_fraction, test_fraction)
    found = _find_files(sources)
    directory.check_destination(out, found.source)
    names = class_labels.read_names(labels) if labels is not None else None
    split_of = _assign_splits(found, splits)
    with atomic_directory.temporary(Path(out).resolve()) as scratch:
        shards = [
            Shard(path, found.files[path], split, _decompress(path, found, scratch / f"{number}.tfrecord"))
            for number, (path, split) in enumerate(split_of.items())
        ]
        image, label = records.find_features(shards, image, label)
        listed = records.list_images(shards, image, label, names)
        return importing.convert(
            listed.items,
            listed.class_names,
            out,
            source=found.source,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            skip_bad=skip_bad,
            report=report,
            ignored=found.ignored | listed.ignored,
        )


def prepare(
    sources: Annotated[
        list[str], typer.Argument(metavar="SRC", help="TFRecord files, folders of them, or glob patterns.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset directory to write.")],
    *,
    image: Annotated[
        str | None,
        typer.Option(help="Feature with the encoded image, such as image/encoded; by default it is found."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Feature with the label, such as image/class/label; by default it is found."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text file with the class names, one per line.")
    ] = None,
    split_train: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Files of train, such as 'fold[0-3]*'; without any, names tell."),
    ] = None,
    split_val: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Files of val.")] = None,
    split_test: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Files of test.")] = None,
    val_fraction: options.ValFraction = 0.1,
    test_fraction: options.TestFraction = 0.1,
    seed: options.Seed = 0,
    skip_bad: options.SkipBad = False,
    report: options.Report = None,
) -> None:
    """Writes your own TFRecord files as a dataset directory.

    Records are tf.train.Examples with an encoded image and a label: an integer, a one-hot list or a text.
    Files may be compressed (GZIP, ZLIB).

    The split of a file is in its name or its folder's (train, validation, test and the like). Without val or
    test, a part of train becomes them.
    """
    given = {"train": split_train, "val": split_val, "test": split_test}
    convert(
        sources,
        out,
        image=image,
        label=label,
        labels=labels,
        splits={split: patterns for split, patterns in given.items() if patterns} or None,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        skip_bad=skip_bad,
        report=report,
    )


def _find_files(sources: Sequence[str]) -> _Found:
    paths: list[Path] = []
    ignored = Ignored()
    folder = None
    for source in sources:
        path = Path(source).expanduser()
        # A path may have characters that are special in patterns.
        places = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
        if not places:
            raise DatasetError(
                f"expected a TFRecord file, a folder of them or a pattern, found nothing at {path}"
            )
        for place in places:
            if place.is_dir():
                folder = place
                files = list(folders.list_files(place, place, ignored, _is_wanted))
                _check_complete(files)
                paths += files
            else:
                paths.append(place)
    if not paths:
        raise DatasetError(f"expected TFRecord files in {', '.join(sources)}, found none")
    # Names below the folder tell files apart, and may say their splits.
    is_folder = len(sources) == 1 and folder == Path(sources[0]).expanduser()
    root = folder if is_folder and folder else Path(os.path.commonpath([path.parent for path in paths]))
    found = _Found({path: str(path.relative_to(root)) for path in paths}, source=root if is_folder else None)
    for path in found.files:
        if compression := _compression(path):
            found.compressed[path] = compression
    found.ignored.update(ignored.by_reason())
    return found


def _is_wanted(path: Path) -> bool:
    return _RECORD_NAME.search(path.name) is not None or _has_records(path)


def _has_records(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0 and tfrecord.compression(path) is not None


def _compression(path: Path) -> str:
    compression = tfrecord.compression(path)
    if compression is None:
        raise DatasetError(f"{path} is no TFRecord file, or is damaged at its start. Copy or write it again")
    return compression


def _check_complete(files: Sequence[Path]) -> None:
    """Checks that there are as many files of each kind as their names say."""
    groups: dict[tuple[Path, str, str, str], int] = {}
    for path in files:
        if match := _NUMBERED.fullmatch(path.name):
            key = path.parent, match["before"], match["count"], match["after"]
            groups[key] = groups.get(key, 0) + 1
    for (parent, before, count, after), number in groups.items():
        if number != int(count):
            raise DatasetError(
                f"{parent}: expected {int(count)} files {before}-*-of-{count}{after}, found {number}. Copy "
                "or write them again, or name the files to convert only a part"
            )


def _assign_splits(found: _Found, patterns: dict[str, Sequence[str]] | None) -> dict[Path, str]:
    """Maps each file that is converted to its split, or all to an empty one if none is known."""
    if patterns is not None:
        splits = {path: _matching_split(name, patterns) for path, name in found.files.items()}
        left_out = [found.files[path] for path, split in splits.items() if not split]
        if left_out:
            found.ignored["files that match no --split option"] = left_out
        splits = {path: split for path, split in splits.items() if split}
    else:
        splits = {path: _split_of(name) for path, name in found.files.items()}
        without = [found.files[path] for path, split in splits.items() if not split]
        if without and len(without) < len(splits):
            raise DatasetError(
                "expected that the name of every file or its folder says the split (train, val, test), or "
                f"none; {len(without)} of {len(splits)} do not, such as {without[0]}. Choose the files with "
                "--split-train, --split-val and --split-test"
            )
    existing = set(splits.values())
    if existing != {""} and "train" not in existing:
        raise DatasetError(
            f"expected files of train, found only {', '.join(s for s in SPLITS if s in existing) or 'none'}. "
            "Choose the files with --split-train GLOB, --split-val GLOB and --split-test GLOB"
        )
    return splits


def _matching_split(name: str, patterns: dict[str, Sequence[str]]) -> str:
    matching = [s for s, globs in patterns.items() if any(fnmatch.fnmatchcase(name, each) for each in globs)]
    if len(matching) > 1:
        raise DatasetError(f"{name}: expected a file of one split, matched those of {' and '.join(matching)}")
    return matching[0] if matching else ""


def _split_of(name: str) -> str:
    """Returns the split that the name of a file says, or else the name of the nearest of its folders."""
    *folders, file = Path(name).parts
    words = re.findall(r"[^\W\d_]+", file)
    splits = {split for word in words if (split := layout.split_of(word))}
    if len(splits) > 1:
        raise DatasetError(
            f"{name}: expected the name of one split in the file's name, found those of "
            f"{' and '.join(sorted(splits))}. Choose the files with --split-train GLOB, --split-val GLOB and "
            "--split-test GLOB"
        )
    nearest = (split for folder in reversed(folders) if (split := layout.split_of(folder)))
    return next(iter(splits), None) or next(nearest, "")


def _decompress(path: Path, found: _Found, target: Path) -> Path:
    """Returns the path of an uncompressed copy of a compressed file, or of the file itself."""
    if path not in found.compressed:
        return path
    try:
        tfrecord.decompress(path, target)
    except tfrecord.RecordError as error:
        raise DatasetError(f"{error}. Copy or write the file again") from None
    return target


if __name__ == "__main__":
    terminal.run(prepare)
