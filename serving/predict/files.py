"""Writes files of answers: Parquet, CSV and JSON lines."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

# A row group of a Parquet file is written when it has as many rows or as many bytes, and is in memory until
# then.
_GROUP_ROWS = 2**16
_GROUP_BYTES = 2**24

Write = Callable[[pa.RecordBatch], None]


@contextlib.contextmanager
def writer(path: Path, kind: str, schema: pa.Schema) -> Iterator[Write]:
    """Opens a file of answers for writing.

    Args:
      path: the file.
      kind: a key of KINDS.
      schema: columns of the answers.

    Yields:
      A function that appends answers.
    """
    with KINDS[kind](path, schema) as write:
        yield write


@contextlib.contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    group: list[pa.RecordBatch] = []
    rows = size = 0

    def write(batch: pa.RecordBatch) -> None:
        nonlocal rows, size
        group.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            flush()

    def flush() -> None:
        nonlocal rows, size
        if group:
            file.write_table(pa.Table.from_batches(group), row_group_size=rows)
        group.clear()
        rows = size = 0

    with pq.ParquetWriter(path, schema) as file:
        yield write
        flush()


@contextlib.contextmanager
def _csv(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """Writes lists and truth values as JSON, because CSV has none."""

    def write(batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            rows.writerow(
                orjson.dumps(value).decode() if isinstance(value, (list, bool)) else value
                for value in row.values()
            )

    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(schema.names)
        yield write


@contextlib.contextmanager
def _jsonl(path: Path, schema: pa.Schema) -> Iterator[Write]:
    del schema  # each line names the columns

    def write(batch: pa.RecordBatch) -> None:
        file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in batch.to_pylist())

    with path.open("wb", buffering=io.DEFAULT_BUFFER_SIZE) as file:
        yield write


# Suffix -> how such a file is written.
KINDS: dict[str, Callable[[Path, pa.Schema], contextlib.AbstractContextManager[Write]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
