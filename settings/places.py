"""Where things lie below the root of all runs."""

from __future__ import annotations

import posixpath
import re

METADATA_FILE = "metadata.sqlite"  # ML Metadata of all runs on this machine


def pipeline_directory(root: str, name: str) -> str:
    """Returns the directory of a pipeline's artifacts."""
    return posixpath.join(root, "pipelines", name)


def serving_directory(root: str, name: str) -> str:
    """Returns the directory that blessed models are pushed to."""
    return posixpath.join(root, "serving", name)


def bucket_of(uri: str | None) -> str | None:
    """Returns the bucket of a gs:// URI; None for anything else."""
    found = re.match(r"gs://([^/]+)", uri or "")
    return found and found[1]
