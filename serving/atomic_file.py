"""Writes files that are complete or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Provides a hidden file beside a file, which is synced and takes its place at the end of the body.

    If the body raises an error, the hidden file is removed, and the file stays as it was.

    Yields:
      Path of the hidden file, which does not exist yet. Readers of folders skip names that begin with a dot.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
