"""Paths of artifacts, served models and metadata below the root directory of all runs."""

from __future__ import annotations

import posixpath
import re

METADATA_FILE = "metadata.sqlite"  # ML Metadata database of all local runs


def pipeline_directory(root: str, name: str) -> str:
    """Returns the directory of a pipeline's artifacts."""
    return posixpath.join(root, "pipelines", name)


def serving_directory(root: str, name: str) -> str:
    """Returns the directory that the Pusher writes blessed models to."""
    return posixpath.join(root, "serving", name)


def bucket_of(uri: str | None) -> str | None:
    """Returns the bucket of a gs:// URI, or None for any other value."""
    found = re.match(r"gs://([^/]+)", uri or "")
    return found and found[1]
