"""Locks a root, so that only one run at a time uses it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from settings.base import ConfigError


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Locks a root until the body or the process ends.

    Two runs would wait for each other's writes to the SQLite database of ML Metadata until one fails.

    Args:
      root: the folder below which a run writes; it is created.

    Raises:
      ConfigError: another run holds the lock.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another run is using {root}; wait until it ends, or choose another --root"
            ) from None
        yield
