"""Converts images that a table lists with their labels to a dataset directory.

The table is a CSV, TSV, JSON lines or Parquet file with a column of paths, a column of labels, and optionally
a column of splits.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from datasets import directory, importing, inspection, layout, listing, options, terminal
from datasets.directory import Dataset, DatasetError
from datasets.importing import FilePlace, Item

# Usual names of the columns, without case and punctuation, the most specific ones first.
_PATH_COLUMNS = (
    *(
        "path",
        "filepath",
        "imagepath",
        "imgpath",
        "filename",
        "file",
        "imagefile",
        "imagefilename",
        "imagename",
    ),
    *("image", "img", "imageid", "idcode", "id", "name", "uri", "url"),
)
_LABEL_COLUMNS = (
    *(
        "label",
        "class",
        "category",
        "target",
        "labelname",
        "classname",
        "categoryname",
        "species",
        "diagnosis",
    ),
    *("breed", "labels", "classid", "labelid", "y"),
)
_SPLIT_COLUMNS = ("split", "set", "subset", "partition", "dataset", "phase", "fold")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_MAX_LISTED = 10  # rows that a message lists
_MAX_REASON = 300  # characters of another library's message
# The first row of a table that has no line numbers.
_FIRST_ROW = 1


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table.

    Attributes:
      number: line of the file, or number of the row in a Parquet file, from 1.
      values: the values by the name of the column.
    """

    number: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class _Columns:
    path: str
    label: str
    split: str | None


def find_tables(folder: Path) -> list[Path]:
    """Lists the files in a folder that may be tables of labels, in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def convert(
    file: Path,
    out: Path,
    *,
    images: Path | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_bad: bool = False,
    report: Path | None = None,
) -> Dataset:
    """Converts the images of a table to a dataset directory, and prints a summary.

    Args:
      file: the table.
      out: the dataset directory to write.
      images: folder to which the paths in the table are relative; None for the folder of the table.
      path_column: name of the column of paths; None finds it by its name.
      label_column: name of the column of labels; None finds it by its name.
      split_column: name of the column of splits; None finds it by its name, if there is one.
      val_fraction: fraction of each class that becomes val, unless the table has val.
      test_fraction: fraction of each class that becomes test, unless the table has test.
      seed: seed of the splits and of the order of the examples.
      skip_bad: leave out images that are missing or cannot be used instead of raising an error.
      report: HTML file to write with the summary and a sheet of images; None writes no file.

    Returns:
      The written dataset.

    Raises:
      DatasetError: the table or its images cannot be used; the message names the lines.
    """
    importing.check_fractions(val_fraction, test_fraction)
    directory.check_destination(out, images)
    header, rows = _read(file)
    columns = _Columns(
        _find_column(file, header, path_column, _PATH_COLUMNS, "path", "paths"),
        _find_column(file, header, label_column, _LABEL_COLUMNS, "label", "labels"),
        _find_split_column(file, header, split_column),
    )
    terminal.note(
        f"{file.name}: paths in {columns.path!r}, labels in {columns.label!r}, "
        + (f"splits in {columns.split!r}" if columns.split else "no column of splits")
    )
    names, items, missing = _list_items(file, rows, columns, images or file.parent, skip_bad)
    return importing.convert(
        items,
        names,
        out,
        source=images,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        skip_bad=skip_bad,
        report=report,
        ignored={"rows whose file does not exist": missing} if missing else {},
    )


def prepare(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Table of images and labels: .csv, .tsv, .jsonl or .parquet."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset directory to write.")],
    *,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to which the paths are relative; by default that of FILE."),
    ] = None,
    path_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of paths; found by its name if not given.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of labels; found by its name if not given.")
    ] = None,
    split_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column of splits; found by its name, if there is one."),
    ] = None,
    val_fraction: options.ValFraction = 0.1,
    test_fraction: options.TestFraction = 0.1,
    seed: options.Seed = 0,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out images that are missing or unusable instead of stopping."),
    ] = False,
    report: options.Report = None,
) -> None:
    """Writes images that a table lists with their labels as a dataset directory.

    FILE has a column of paths, a column of labels, and optionally one of splits, with values such as train,
    val and test. If test or val is missing, a part of train becomes it. Labels are names or numbers.
    """
    convert(
        file,
        out,
        images=images,
        path_column=path_column,
        label_column=label_column,
        split_column=split_column,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        skip_bad=skip_bad,
        report=report,
    )


def _read(file: Path) -> tuple[list[str], list[_Row]]:
    """Reads the names of the columns and the rows of a table."""
    if not file.is_file():
        raise DatasetError(f"expected a table of images and labels, found no file {file}")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DatasetError(f"{file}: expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        if suffix == ".parquet":
            header, rows = _read_parquet(file)
        elif suffix in (".jsonl", ".ndjson"):
            header, rows = _read_json_lines(file)
        else:
            header, rows = _read_csv(file, "\t" if suffix == ".tsv" else None)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: expected UTF-8 text ({error})") from None
    if not rows:
        raise DatasetError(f"{file}: expected at least one row, found none")
    return header, rows


def _read_csv(file: Path, delimiter: str | None) -> tuple[list[str], list[_Row]]:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        first_line = opened.readline()
        opened.seek(0)
        reader = csv.reader(opened, delimiter=delimiter or max(",;\t|", key=first_line.count))
        rows = []
        try:
            header = [name.strip() for name in next(reader, [])]
            for values in reader:
                if not any(values):
                    continue
                if len(values) != len(header):
                    raise DatasetError(
                        f"{file}: line {reader.line_num}: expected {len(header)} values, as in the first "
                        f"line, found {len(values)}"
                    )
                rows.append(_Row(reader.line_num, dict(zip(header, values, strict=True))))
        except csv.Error as error:
            raise DatasetError(f"{file}: line {reader.line_num}: {error}") from None
    return header, rows


def _read_json_lines(file: Path) -> tuple[list[str], list[_Row]]:
    rows = []
    header: dict[str, None] = {}
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                raise DatasetError(f"{file}: line {number}: not JSON: {error}") from None
            if not isinstance(values, dict):
                raise DatasetError(f"{file}: line {number}: expected an object, found {line.strip()[:40]}")
            header |= dict.fromkeys(values)
            rows.append(_Row(number, values))
    return list(header), rows


def _read_parquet(file: Path) -> tuple[list[str], list[_Row]]:
    import pyarrow  # noqa: PLC0415 - only Parquet files need it
    import pyarrow.parquet  # noqa: PLC0415

    # Before version 14.0.1, pyarrow runs code that a Parquet file contains (CVE-2023-47248).
    import pyarrow_hotfix  # noqa: F401, PLC0415

    try:
        table = pyarrow.parquet.read_table(file)
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        # Messages of pyarrow may repeat the content of the file.
        reason = str(error).splitlines()[0][:_MAX_REASON] if str(error) else type(error).__name__
        raise DatasetError(f"{file}: not a Parquet file, or a damaged one: {reason}") from None
    except RuntimeError as error:  # from pyarrow_hotfix
        reason = str(error).strip().splitlines()[0].rstrip(":")
        raise DatasetError(f"{file}: expected columns of text and numbers: {reason}") from None
    return table.column_names, [_Row(n, values) for n, values in enumerate(rows, _FIRST_ROW)]


def _find_column(
    file: Path, header: Sequence[str], given: str | None, usual: Sequence[str], kind: str, plural: str
) -> str:
    if given is not None:
        return _check_column(file, header, given, kind)
    by_key = {_key(name): name for name in reversed(header)}
    found = next((by_key[name] for name in usual if name in by_key), None)
    if found is None:
        raise DatasetError(
            f"{file}: found no column of {plural}, such as {usual[0]!r}, among {', '.join(header)}; name it "
            f"with --{kind}-column"
        )
    return found


def _find_split_column(file: Path, header: Sequence[str], given: str | None) -> str | None:
    if given is not None:
        return _check_column(file, header, given, "split")
    by_key = {_key(name): name for name in reversed(header)}
    return next((by_key[name] for name in _SPLIT_COLUMNS if name in by_key), None)


def _check_column(file: Path, header: Sequence[str], name: str, kind: str) -> str:
    if name not in header:
        raise DatasetError(
            f"{file}: found no column {name!r} for --{kind}-column; the columns are {', '.join(header)}"
        )
    return name


def _key(column: str) -> str:
    return re.sub(r"[\W_]", "", column.lower())


def _list_items(
    file: Path, rows: Sequence[_Row], columns: _Columns, images: Path, skip_bad: bool
) -> tuple[list[str], list[Item], list[str]]:
    """Interprets the rows.

    Returns:
      The class names, the images, and the paths of files that do not exist.
    """
    empty_paths = [row.number for row in rows if not _cell(row, columns.path)]
    empty_labels = [row.number for row in rows if not _cell(row, columns.label)]
    for numbers, column in ((empty_paths, columns.path), (empty_labels, columns.label)):
        if numbers:
            raise DatasetError(
                f"{file}: expected a value in {column!r} in every row; empty in {_lines(numbers)}"
            )
    splits = _splits(file, rows, columns.split)
    _check_repeated(file, rows, columns)
    names = layout.natural_order({_cell(row, columns.label) for row in rows})
    label_of = {name: label for label, name in enumerate(names)}
    items, missing = [], []
    for row, split in zip(rows, splits, strict=True):
        name = _cell(row, columns.path)
        path = images / name
        if path.is_file():
            items.append(Item(FilePlace(str(path)), name, split, label_of[_cell(row, columns.label)]))
        else:
            missing.append(row)
    if missing and not skip_bad:
        listed = [f"{_line(row.number)}: {_cell(row, columns.path)}" for row in missing]
        raise DatasetError(
            f"{file}: {len(missing):,} of {len(rows):,} files do not exist below {images}; "
            f"{_advise(images / _cell(missing[0], columns.path))}name their folder with --images, or leave "
            f"them out with --skip-bad:\n{listing.lines(listed, _MAX_LISTED)}"
        )
    return names, items, [_cell(row, columns.path) for row in missing]


def _advise(path: Path) -> str:
    """Returns advice for paths that lack the suffix of their files; empty for others."""
    found = next((s for s in sorted(inspection.suffixes()) if path.with_name(path.name + s).is_file()), None)
    return f"{path.name + found} is there, so add the suffix to the paths; or " if found else ""


def _splits(file: Path, rows: Sequence[_Row], column: str | None) -> list[str]:
    """Returns the split of every row; empty if it is to be chosen."""
    if column is None:
        return [""] * len(rows)
    values = [_cell(row, column) for row in rows]
    meant = {value: layout.split_of(value) for value in set(values) if value}
    unknown = sorted(value for value, split in meant.items() if split is None)
    if unknown:
        numbers = [row.number for row, value in zip(rows, values, strict=True) if value in unknown]
        raise DatasetError(
            f"{file}: expected names of splits in {column!r}, such as train, val and test; found "
            f"{', '.join(map(repr, unknown[:_MAX_LISTED]))} in {_lines(numbers)}. Name another column with "
            "--split-column"
        )
    return [(meant[value] or "") if value else "" for value in values]


def _check_repeated(file: Path, rows: Sequence[_Row], columns: _Columns) -> None:
    first: dict[str, int] = {}
    repeated = []
    for row in rows:
        path = _cell(row, columns.path)
        if path in first:
            repeated.append(f"{_line(row.number)}: {path} is also in {_line(first[path])}")
        first.setdefault(path, row.number)
    if repeated:
        raise DatasetError(
            f"{file}: expected every image once; remove the repeated rows:\n"
            f"{listing.lines(repeated, _MAX_LISTED)}"
        )


def _cell(row: _Row, column: str) -> str:
    """Returns a value as text; empty if it is missing."""
    value = row.values.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    # Columns of whole numbers with gaps are often stored as floats.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _line(number: int) -> str:
    return f"line {number}"


def _lines(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _MAX_LISTED:,} more" if len(numbers) > _MAX_LISTED else ""
    return f"line{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:_MAX_LISTED]))}{more}"


if __name__ == "__main__":
    terminal.run(prepare)
