"""Reads the records of Examples artifacts."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf


def read(files: Iterable[str]) -> tf.data.Dataset:
    """Returns a dataset of the records of TFRecord files, in the order of the files.

    Args:
      files: paths or URIs. As for TFX's own readers, the suffix `.gz` says that a file is compressed.

    Returns:
      A dataset of scalar strings, the serialised examples.

    Raises:
      ValueError: some of the files are compressed, but not all.
    """
    paths = list(files)
    compressed = {path.endswith(".gz") for path in paths}
    if len(compressed) > 1:
        raise ValueError(f"expected either compressed or uncompressed files, found both: {', '.join(paths)}")
    return tf.data.TFRecordDataset(paths, compression_type="GZIP" if True in compressed else "")
