"""Finds the message of a failure that helps most: the project's own one, or that of the first cause."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import ml_metadata as mlmd

from pipeline.local import store

# Characters of an error message; the messages of some exceptions contain the data that caused them.
_MAX_MESSAGE_LENGTH = 2000
_PROJECT = Path(__file__).resolve().parents[2]
_PACKAGES = ("components", "datasets", "lineage", "models", "pipeline", "settings")
_FULL = (errno.ENOSPC, errno.EDQUOT)
# The same in messages of libraries whose exceptions have no `errno`.
_FULL_TEXTS = ("No space left on device", "disk is full", "Disk quota exceeded")
_MEGABYTE = 1e6


def describe(error: BaseException, database: Path) -> str:
    """Describes why a run has failed.

    TFX, Beam and Keras Tuner wrap exceptions in others, and the code of this project wraps those of libraries
    in ones that name the file and say what to do. Therefore the message is that of the outermost exception
    that this project has raised. If it has raised none, it is that of the innermost one.

    Args:
      error: the exception that ended the run.
      database: the SQLite database of ML Metadata.

    Returns:
      The message, cut to 2,000 characters. If a disk is full, it says which one, and how much is free.
    """
    chain = list(_chain(error))
    own = next((each for each in chain if _is_own(each)), None)
    if own and _is_of_full_disk(own):
        return _message(own)
    if any(map(_is_of_full_disk, chain)):
        reason = f"{_message(own).rstrip('.')}. " if own else ""
        return f"{reason}{_describe_disks(database.parent)}"
    if own:
        return _message(own)
    if _is_of_ml_metadata(error):
        return store.describe(database, str(error))
    while error.__cause__ is not None:
        error = error.__cause__
    return _message(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and those that it comes from, the outermost first."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _is_own(error: BaseException) -> bool:
    """Returns whether code of this project, and none that it called, has raised an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    raised = frames[-1]
    is_ours = any(Path(raised.filename).is_relative_to(_PROJECT / package) for package in _PACKAGES)
    # A function that is written in C has no frame of its own.
    return is_ours and (raised.line or "").startswith("raise ")


def _is_of_ml_metadata(error: BaseException) -> bool:
    if isinstance(error, mlmd.errors.StatusError):
        return True
    # It raises a RuntimeError where it opens the database.
    frames = traceback.extract_tb(error.__traceback__)
    return (
        isinstance(error, RuntimeError) and bool(frames) and "ml_metadata" in Path(frames[-1].filename).parts
    )


def _message(error: BaseException) -> str:
    # Beam appends the name of its step to the message.
    message = re.sub(r"\s*\[while running '.*'\]\s*$", "", str(error), flags=re.DOTALL).strip()
    if len(message) > _MAX_MESSAGE_LENGTH:
        message = f"{message[:_MAX_MESSAGE_LENGTH]} ... (the log has the whole message)"
    return message or type(error).__name__


def _is_of_full_disk(error: BaseException) -> bool:
    is_full = isinstance(error, OSError) and error.errno in _FULL
    return is_full or any(text in str(error) for text in _FULL_TEXTS)


def _describe_disks(root: Path) -> str:
    """Says how much is free on the disks that a run writes to, the one with the least first."""
    places = {place.stat().st_dev: place for place in (Path(tempfile.gettempdir()), root)}
    usages = sorted(
        ((shutil.disk_usage(place), place) for place in places.values()), key=lambda each: each[0].free
    )
    told = "; ".join(
        f"{usage.free / _MEGABYTE:,.1f} of {usage.total / _MEGABYTE:,.0f} MB are free in {place}"
        for usage, place in usages
    )
    return (
        f"A disk is full: {told}, now that unfinished files are removed. `python -m lineage clean --keep N "
        f"--root {root}` lists the files that no new run needs; --root and TMPDIR choose another disk. The "
        "same command resumes the run"
    )
