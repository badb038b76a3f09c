"""Locks a root, so that only one run at a time uses it, and tells whether one does."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from settings.base import ConfigError
from settings.places import LOCK_FILE

_ATTEMPTS = 20  # 0.2 seconds: whoever only asks whether the root is in use holds the lock for less


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
    with (root / LOCK_FILE).open("w") as file:
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt + 1 == _ATTEMPTS:
                    raise ConfigError(
                        f"another run is using {root}, or `python -m lineage clean` is; wait until it ends, "
                        "or choose another --root"
                    ) from None
                time.sleep(0.01)
        yield


def is_held(root: Path) -> bool:
    """Returns whether a process of this machine holds the lock of a root; nothing is written."""
    try:
        with (root / LOCK_FILE).open("rb") as file:
            # A shared lock, which other readers do not hinder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
