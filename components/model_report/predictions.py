"""A model's predictions on a split, and the Parquet file that stores them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

# Before version 14.0.1, pyarrow runs code that a Parquet file contains (CVE-2023-47248).
import pyarrow_hotfix  # noqa: F401
from pyarrow import parquet

_CLASS_NAMES = b"class_names"


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for the examples of a split.

    Attributes:
      ids: identifiers of the examples, all different.
      labels: int64 [examples], the actual classes.
      probabilities: float32 [examples, classes].
    """

    ids: list[str]
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each example, int64 [examples]."""
        return self.probabilities.argmax(axis=1)


def number_repeats(ids: Sequence[str]) -> list[str]:
    """Makes ids unique by numbering those that are repeated: `frog`, `frog (2)`."""
    seen: Counter[str] = Counter()
    numbered = []
    for example_id in ids:
        seen[example_id] += 1
        numbered.append(repeat(example_id, seen[example_id]))
    return numbered


def repeat(example_id: str, number: int) -> str:
    """Returns the name of the example that has an id for the `number`-th time, from 1."""
    return example_id if number == 1 else f"{example_id} ({number})"


def write(predictions: Predictions, class_names: Sequence[str], path: Path) -> None:
    """Writes a Parquet file with the columns `id`, `label`, `prediction` and `probabilities`.

    Args:
      predictions: the predictions for a split.
      class_names: names of the classes, in the order of their indices. They are stored in the file's
        metadata, as JSON under `class_names`.
      path: where to write the file.
    """
    columns = {
        "id": pa.array(predictions.ids, pa.string()),
        "label": pa.array(predictions.labels, pa.int32()),
        "prediction": pa.array(predictions.predicted, pa.int32()),
        "probabilities": pa.array(list(predictions.probabilities), pa.list_(pa.float32())),
    }
    table = pa.table(columns).replace_schema_metadata({_CLASS_NAMES: json.dumps(list(class_names))})
    parquet.write_table(table, path)


def read(path: Path) -> tuple[Predictions, list[str]]:
    """Reads a file that `write` wrote.

    Args:
      path: the file.

    Returns:
      The predictions and the class names.

    Raises:
      ValueError: the file is not a Parquet file, or has no class names in its metadata.
    """
    try:
        table = parquet.read_table(path)
    except RuntimeError as error:  # from pyarrow_hotfix
        raise ValueError(f"expected predictions: {str(error).strip().splitlines()[0]}") from None
    metadata = table.schema.metadata or {}
    if _CLASS_NAMES not in metadata:
        raise ValueError("expected the class names in the file's metadata, found none")
    class_names = json.loads(metadata[_CLASS_NAMES])
    probabilities = table["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return Predictions(
        ids=table["id"].to_pylist(),
        labels=table["label"].to_numpy().astype(np.int64),
        probabilities=probabilities.reshape(-1, len(class_names)),
    ), class_names
