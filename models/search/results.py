"""The results of a search as a table: `trials.parquet`, and what the report and ML Metadata tell of it."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import tensorflow as tf
from pyarrow import parquet

TRIALS = "trials.parquet"
# States of a trial.
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
_SEARCH = b"search"  # key of the table's metadata

# Columns besides those of the settings, which have their dotted keys as names.
COLUMNS = ("trial", "state", "score", "epochs", "images", "seconds", "reason", "curve")


def write(path: str, trials: list[dict[str, Any]], search: dict[str, Any]) -> None:
    """Writes the table.

    Args:
      path: path of the file, on a disk or in a bucket.
      trials: rows of `SearchOracle.rows`. Settings whose values are lists or of several types become JSON.
      search: what holds for the whole search, as JSON-serialisable values.
    """
    keys = [key for key in trials[0] if key not in COLUMNS]
    plain = {
        key: len({type(trial[key]) for trial in trials}) == 1
        and isinstance(trials[0][key], bool | int | float | str)
        for key in keys
    }
    table = pa.Table.from_pylist(
        [
            {**trial, **{key: json.dumps(trial[key]) for key, is_plain in plain.items() if not is_plain}}
            for trial in trials
        ]
    )
    described = {**search, "settings": keys, "json": [key for key, is_plain in plain.items() if not is_plain]}
    table = table.replace_schema_metadata({_SEARCH: json.dumps(described).encode()})
    content = io.BytesIO()
    parquet.write_table(table, content)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(content.getvalue())


def read(path: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Reads what `write` wrote: the trials, and `search` with the keys of the `settings`."""
    with tf.io.gfile.GFile(path, "rb") as file:
        table = parquet.read_table(io.BytesIO(file.read()))
    search = json.loads(table.schema.metadata[_SEARCH])
    as_json = search.pop("json")
    trials = [{**row, **{key: json.loads(row[key]) for key in as_json}} for row in table.to_pylist()]
    return trials, search
