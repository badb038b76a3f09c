"""Describes a sample of the test split, with which the images that a server gets are compared later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from pyarrow import parquet

from components import tfrecords
from datasets import features
from models.data.images import at_a_time

FILE = "assets.extra/reference.parquet"  # path within a SavedModel
ROWS = 2000
STATISTICS = ("brightness", "contrast", "sharpness")
_SEED = 0
_BATCH = 64  # images that are described at a time, or fewer if they are large


def describe(
    loaded: Any, files: Sequence[str], class_names: Sequence[str], size: Sequence[int], rows: int = ROWS
) -> pa.Table:
    """Describes a random sample of a split, the same one for the same split.

    Args:
      loaded: the exported model.
      files: TFRecord files of the split.
      class_names: names of the classes, in the order of the labels.
      size: (height, width) of the network's images, in pixels.
      rows: largest number of examples; a smaller split is used whole.

    Returns:
      A table with the columns `brightness`, `contrast`, `sharpness` and `confidence` (float32), `class_id`
      (int32), `class_name` and `label` (string), and `features` (a list of float32).
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("features", "probabilities", "class_id", *STATISTICS)
    }
    labels: list[int] = []
    for images, batch_labels in _sample(files, rows, at_a_time(size, _BATCH)):
        described = loaded.signatures["describe_image_bytes"](image_bytes=tf.constant(images))
        for name, values in columns.items():
            values.append(described[name].numpy())
        labels += batch_labels
    arrays = {name: np.concatenate(values) for name, values in columns.items()}
    class_ids = arrays["class_id"]
    width = arrays["features"].shape[1]
    return pa.table(
        {
            **{name: pa.array(arrays[name], pa.float32()) for name in STATISTICS},
            "confidence": pa.array(arrays["probabilities"].max(axis=1), pa.float32()),
            "class_id": pa.array(class_ids, pa.int32()),
            "class_name": pa.array([class_names[i] for i in class_ids], pa.string()),
            "label": pa.array([class_names[i] for i in labels], pa.string()),
            "features": pa.FixedSizeListArray.from_arrays(
                pa.array(arrays["features"].ravel(), pa.float32()), width
            ),
        }
    )


def write(table: pa.Table, path: str) -> None:
    """Writes a table as a Parquet file, on this machine or into a bucket."""
    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(buffer.getvalue().to_pybytes())


def _sample(files: Sequence[str], rows: int, batch_size: int) -> Iterator[tuple[list[bytes], list[int]]]:
    """Yields batches of the images and labels of a random sample, in the order of the files."""
    records = tfrecords.read(files)
    count = int(records.reduce(np.int64(0), lambda total, _: total + 1))
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(_SEED).permutation(count)[:rows]] = True
    spec = {
        features.IMAGE: tf.io.FixedLenFeature([], tf.string),
        features.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }
    picked = tf.data.Dataset.zip((records, tf.data.Dataset.from_tensor_slices(chosen)))
    picked = picked.filter(lambda record, is_chosen: is_chosen)
    for batch in picked.map(lambda record, _: record).batch(batch_size):
        parsed = tf.io.parse_example(batch, spec)
        yield parsed[features.IMAGE].numpy().tolist(), parsed[features.LABEL].numpy().tolist()
