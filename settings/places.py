"""Paths of artifacts, served models and metadata below the root directory of all runs."""

from __future__ import annotations

import posixpath
import re

# Schemes of object stores with the interface of S3, which neither TensorFlow nor Beam reads here.
_S3_SCHEMES = ("s3", "minio")
# Characters with which TFX and Beam describe several files at once, in every path that they are given.
_PATTERN_CHARACTERS = "*?[]\\"
METADATA_FILE = "metadata.sqlite"  # ML Metadata database of all local runs
LOCK_FILE = ".lock"  # which a local run locks as long as it lasts


def pipeline_directory(root: str, name: str) -> str:
    """Returns the directory of a pipeline's artifacts."""
    return posixpath.join(root, "pipelines", name)


def serving_directory(root: str, name: str) -> str:
    """Returns the directory that the Pusher writes blessed models to."""
    return posixpath.join(root, "serving", name)


def is_s3(uri: str) -> bool:
    """Returns whether a URI names a place in an object store with the interface of S3."""
    return uri.startswith(tuple(f"{scheme}://" for scheme in _S3_SCHEMES))


def check_literal(path: str) -> str:
    """Checks that TFX and Beam read a path as it is, and not as a pattern of paths.

    Returns:
      The path, unchanged.

    Raises:
      ValueError: the path has a character that patterns are made of.
    """
    found = sorted(set(path) & set(_PATTERN_CHARACTERS))
    if found:
        raise ValueError(
            f"expected a path without {' and '.join(found)}, which TFX and Beam read as parts of a pattern; "
            "rename the folder or choose another one"
        )
    return path


def bucket_of(uri: str | None) -> str | None:
    """Returns the bucket of a gs:// URI, or None for any other value."""
    found = re.match(r"gs://([^/]+)", uri or "")
    return found and found[1]
