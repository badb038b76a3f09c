"""One run at a time in one root."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from settings.base import ConfigError


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Keeps other runs out of a root, until the body or the process ends.

    Two runs would wait for each other's writes to the SQLite database of ML Metadata until one fails.

    Raises:
      ConfigError: another run is in it.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another run is going on in {root}; wait for it, or choose another --root"
            ) from None
        yield
