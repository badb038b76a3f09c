"""Reads the images that are compared: a window of a log, and the reference of the version that answered.

Both are Parquet files with one row per image, as `serving.request_log` describes. A reference has the same
columns without `time`, `model`, `version` and `request`.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# Before version 14.0.1, pyarrow runs code that a Parquet file contains (CVE-2023-47248).
import pyarrow_hotfix  # noqa: F401

NUMBERS = ("brightness", "contrast", "sharpness", "confidence")
REFERENCE = "assets.extra/reference.parquet"
_SEED = 0
_EARLIEST = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_LOG_COLUMNS = ("time", "version", "request")
# Positions of a row: index of the file, and of the row in it.
_FILE, _ROW = "_file", "_row"


class DriftError(Exception):
    """Images that cannot be compared; the message says what was expected, what was found and what to do."""


class TooFewError(DriftError):
    """Fewer images than a comparison needs."""


@dataclass(frozen=True)
class Sample:
    """Images of a log or a reference; large columns stay in the files until they are asked for.

    Attributes:
      files: the Parquet files.
      table: the small columns of the rows, in the order of time if they have one, and where each row is.
    """

    files: tuple[Path, ...]
    table: pa.Table

    def __len__(self) -> int:
        return self.table.num_rows

    def numbers(self, name: str) -> np.ndarray:
        """Returns a column of numbers, float64 [images]."""
        return self.table[name].to_numpy().astype(np.float64)

    def classes(self) -> np.ndarray:
        """Returns the name of the class that was answered for each image, object [images]."""
        return np.array(self.table["class_name"].to_pylist(), dtype=object)

    def take(self, rows: np.ndarray) -> Sample:
        """Returns some of the rows, in the given order."""
        return Sample(self.files, self.table.take(pa.array(rows)))

    def features(self) -> np.ndarray:
        """Reads the network's features of the images, float32 [images, d].

        Raises:
          DriftError: the images have features of several lengths.
        """
        column = self._read("features")
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) != 1:
            raise DriftError(f"expected features of one length, found {sorted(lengths)}: several networks?")
        values = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
        return values.astype(np.float32).reshape(len(self), lengths[0])

    def images(self) -> list[bytes] | None:
        """Reads the encoded images; None if they were not logged."""
        if any("image" not in pq.read_schema(self.files[file]).names for file in self._used()):
            return None
        return self._read("image").to_pylist()

    def _used(self) -> list[int]:
        return pc.unique(self.table[_FILE]).to_pylist()

    def _read(self, name: str) -> pa.ChunkedArray:
        """Reads a column of the rows, one file after the other."""
        files, rows = self.table[_FILE].to_numpy(), self.table[_ROW].to_numpy()
        chunks: list[pa.Array] = []
        order: list[np.ndarray] = []
        for file in self._used():
            (positions,) = np.nonzero(files == file)
            column = pq.ParquetFile(self.files[file]).read([name])[name].take(pa.array(rows[positions]))
            chunks.extend(column.chunks)
            order.append(positions)
        inverse = np.argsort(np.concatenate(order), kind="stable")
        return pa.chunked_array(chunks).take(pa.array(inverse))


def find_log(path: Path) -> tuple[str, list[Path]]:
    """Finds the log of a model.

    Args:
      path: the folder of a model's log, a folder that holds the log of only one model, or a Parquet file.

    Returns:
      The name of the model, and the Parquet files.

    Raises:
      DriftError: there is no log, or there are several.
    """
    if path.is_file():
        return path.stem, [path]
    models = _models(path)
    if len(models) != 1:
        names = ", ".join(str(model) for model in sorted(models)) or "none"
        raise DriftError(
            f"{path}: expected the log of one model, found {names}. "
            + ("Name one of them" if models else "python -m serving.server --log-fraction 0.1 writes a log")
        )
    (model,) = models
    return model.resolve().name, _parquet_files(model)


def read_window(
    files: Sequence[Path],
    *,
    since: datetime.datetime | None = None,
    until: datetime.datetime | None = None,
    last: int | None = None,
    version: int | None = None,
) -> tuple[Sample, int, int]:
    """Reads the images of a window of a log that one version has answered.

    Args:
      files: Parquet files of the log.
      since: earliest time, inclusive; None for no limit.
      until: latest time, exclusive; None for no limit.
      last: number of images, the newest ones of that time; None for all. Without any of these three, the
        window is the last day with requests, in UTC.
      version: version that answered; None for that of the newest image in the window.

    Returns:
      The images in the order of time, the version, and how many images other versions answered in that time.

    Raises:
      DriftError: a file cannot be read, or `version` answered none of the images.
      TooFewError: there are no images.
    """
    wanted = [file for file in files if _may_contain(file, since, until)]
    sample = _read(wanted, (*_LOG_COLUMNS, *NUMBERS, "class_name"))
    times = sample.table["time"]
    kept = np.ones(len(sample), bool)
    if len(sample):
        if since is None and until is None and last is None:
            newest = pc.max(times).as_py()
            since = newest.replace(hour=0, minute=0, second=0, microsecond=0)
        if since is not None:
            kept &= pc.greater_equal(times, pa.scalar(since, times.type)).to_numpy()
        if until is not None:
            kept &= pc.less(times, pa.scalar(until, times.type)).to_numpy()
    sample = sample.take(np.flatnonzero(kept))
    if not len(sample):
        raise TooFewError(f"no images were logged{_describe_time(since, until)}")
    versions = sample.table["version"].to_numpy()
    version = int(versions[-1]) if version is None else version
    (rows,) = np.nonzero(versions == version)
    if not len(rows):
        found = ", ".join(map(str, np.unique(versions)))
        raise DriftError(f"expected images that version {version} answered, found those of {found}")
    return sample.take(rows[-last:] if last else rows), version, len(versions) - len(rows)


def one_of_each_request(sample: Sample) -> Sample:
    """Returns one image of each request, chosen at random.

    The tests need independent images, and those of a request are often alike, such as the frames of a video.
    """
    if "request" not in sample.table.column_names:
        return sample
    shuffled = np.random.default_rng(_SEED).permutation(len(sample))
    requests = np.array(sample.table["request"].to_pylist())[shuffled]
    _, first = np.unique(requests, return_index=True)
    return sample.take(np.sort(shuffled[first]))


def read_reference(path: Path, model: str, version: int, window: Sample) -> tuple[Sample, Path]:
    """Reads the reference of a version.

    Args:
      path: a version, the folder of a model's versions, a folder of pushed models, a folder that holds it as
        `serving`; or a Parquet file; or a log, of which the images that `version` has answered are taken; if
        it is the log of the window, only those before the window.
      model: name of the model.
      version: version that answered the images of the window.
      window: images of a log, in the order of time.

    Returns:
      The images, and the file or folder they are from.

    Raises:
      DriftError: there is no reference, or it is that of another version.
    """
    folders = (".", f"{version}", f"{model}/{version}", f"serving/{model}/{version}")
    for found in (path, *(path / folder / REFERENCE for folder in folders)):
        if found.is_file():
            _check_version(found, version)
            return _read([found], (*NUMBERS, "class_name")), found
    if _models(path):
        _, files = find_log(path)
        shared = {file.resolve() for file in files} & {file.resolve() for file in window.files}
        until = window.table["time"][0].as_py() if shared else None
        sample, _, _ = read_window(files, since=_EARLIEST, until=until, version=version)
        return one_of_each_request(sample), path
    raise DriftError(
        f"{path}: expected {REFERENCE} of version {version} of model {model}, or a log; found neither. Runs "
        "push models with that file; name its version's folder with --reference"
    )


def _models(path: Path) -> set[Path]:
    """Returns the folders of the logs of models: `path` itself, or folders in it."""
    return {folder.parent for pattern in ("date=*", "*/date=*") for folder in path.glob(pattern)}


def _check_version(reference: Path, version: int) -> None:
    """Checks that a reference is that of a version, if its folder tells."""
    name = reference.resolve().parent.parent.name
    if reference.parent.name == Path(REFERENCE).parent.name and name.isdecimal() and int(name) != version:
        raise DriftError(
            f"{reference}: expected the reference of version {version}, which answered the images of the "
            f"window, found that of version {name}: their answers and features cannot be compared"
        )


def _parquet_files(folder: Path) -> list[Path]:
    """Returns the complete files below a folder; the names of others begin with a dot."""
    return sorted(file for file in folder.rglob("*.parquet") if not file.name.startswith("."))


def _may_contain(file: Path, since: datetime.datetime | None, until: datetime.datetime | None) -> bool:
    """Returns whether a file, whose folder is named after its day, may hold images of a time."""
    key, _, value = file.parent.name.partition("=")
    if key != "date":
        return True
    day = datetime.date.fromisoformat(value)
    return (since is None or day >= since.date()) and (until is None or day <= until.date())


def _read(files: Sequence[Path], columns: Sequence[str]) -> Sample:
    """Reads columns of files, and where each row is."""
    tables = []
    for index, file in enumerate(files):
        try:
            parquet = pq.ParquetFile(file)
            missing = set(columns) - set(parquet.schema_arrow.names)
            if missing:
                raise DriftError(
                    f"{file}: expected the columns {', '.join(columns)}; {sorted(missing)} are missing"
                )
            table = parquet.read(list(columns))
        except (OSError, pa.ArrowException, RuntimeError) as error:  # RuntimeError comes from pyarrow_hotfix
            reason = str(error).strip().splitlines()[0]
            raise DriftError(f"{file}: expected a Parquet file: {reason}") from None
        rows = np.arange(table.num_rows)
        table = table.append_column(_FILE, pa.array(np.full(len(rows), index)))
        tables.append(table.append_column(_ROW, pa.array(rows)))
    if not tables:
        empty = pa.schema([("time", pa.timestamp("us", "UTC")), ("version", pa.int64())])
        return Sample((), empty.empty_table())
    table = pa.concat_tables(tables)
    if "time" in columns:
        table = table.take(pc.array_sort_indices(table["time"]))
    return Sample(tuple(files), table)


def _describe_time(since: datetime.datetime | None, until: datetime.datetime | None) -> str:
    start = f" since {since:%Y-%m-%d %H:%M} UTC" if since and since > _EARLIEST else ""
    return start + (f" before {until:%Y-%m-%d %H:%M} UTC" if until else "")
