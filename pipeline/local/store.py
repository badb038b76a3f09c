"""Checks the database of ML Metadata before TFX is loaded, so that a fault is told within a second."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import ml_metadata as mlmd

from components import metadata
from datasets import terminal
from settings.base import ConfigError

_WAIT_SECONDS = 30
_ATTEMPT_SECONDS = 1.0
_START_AFRESH = (
    "Restore it from a copy, or move it away: the next run then begins with an empty one, without cached "
    "results and without a last blessed model; pushed models stay"
)
# Part of a message of ML Metadata or SQLite -> (what was found, what to do).
_FAULTS = {
    "is greater than library version": (
        "one with a newer schema than this version of ml-metadata reads",
        "Install the packages with which it was written, or choose another --root",
    ),
    "is older than library version": (
        "one with an older schema than this version of ml-metadata reads",
        "Move it away: the next run then begins with an empty one",
    ),
    "not a database": ("another kind of file", _START_AFRESH),
    "malformed": ("a damaged one", _START_AFRESH),
    "readonly database": (
        "one that cannot be written to",
        "Change its permissions, or choose another --root",
    ),
    "unable to open": ("something that cannot be opened", "Change its permissions, or choose another --root"),
    "disk I/O error": (
        "that its disk cannot be read or written",
        "Look for the disk in the kernel's messages",
    ),
    "disk is full": ("no space left on its disk", "Free some space, or choose another --root"),
}
_LOCKED = ("locked", "Concurrent writes")


def check(database: Path) -> None:
    """Checks that ML Metadata can read and write a database.

    Args:
      database: an SQLite file that exists.

    Raises:
      ConfigError: the file is damaged, of another kind or version, cannot be written to, or another process
        keeps it locked for 30 seconds.
    """
    with errors_named(database):
        _check_file(database)
        metadata.open_store(database)


@contextlib.contextmanager
def errors_named(database: Path) -> Iterator[None]:
    """Turns the errors of SQLite and ML Metadata in the body into ones that name the file and say what to do.

    Raises:
      ConfigError: the body cannot read or write the database.
    """
    try:
        yield
    except (sqlite3.Error, mlmd.errors.StatusError) as error:
        raise ConfigError(describe(database, str(error))) from error


def describe(database: Path, reason: str) -> str:
    """Says what is wrong with a database, and what to do.

    Args:
      database: the SQLite file.
      reason: the message of SQLite or of ML Metadata.
    """
    if any(part in reason for part in _LOCKED):
        return (
            f"{database}: another process keeps it locked; `fuser {database}` says which one. End that "
            "process, or choose another --root"
        )
    found, remedy = next(
        (fault for part, fault in _FAULTS.items() if part in reason),
        (reason.splitlines()[0] if reason else "one that cannot be read", _START_AFRESH),
    )
    return f"{database}: expected the database of ML Metadata, found {found}. {remedy}"


@contextlib.contextmanager
def connect(database: Path, wait_seconds: float = 5.0) -> Iterator[sqlite3.Connection]:
    """Opens an existing SQLite file, and closes it after the body.

    Args:
      database: the file.
      wait_seconds: how long a statement waits for another process that has locked the file.

    Raises:
      sqlite3.Error: the file cannot be opened.
    """
    uri = f"file:{urllib.parse.quote(str(database))}?mode=rw"
    with contextlib.closing(sqlite3.connect(uri, timeout=wait_seconds, uri=True)) as connection:
        yield connection


def _check_file(database: Path) -> None:
    with connect(database, _ATTEMPT_SECONDS) as connection:
        _lock(connection, database)
        (found,) = connection.execute("pragma quick_check(1)").fetchone()
        connection.rollback()
    if found != "ok":
        raise sqlite3.DatabaseError(f"malformed: {found}")


def _lock(connection: sqlite3.Connection, database: Path) -> None:
    """Begins to write, and waits if another process does so."""
    end = time.monotonic() + _WAIT_SECONDS
    is_said = False
    while True:
        try:
            connection.execute("begin immediate")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= end:
                raise
            if not is_said:
                terminal.note(f"Another process has locked {database}: waiting, {_WAIT_SECONDS} s at most")
                is_said = True
        else:
            return
