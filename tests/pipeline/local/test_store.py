import contextlib
import os
import sqlite3
import threading
import time

import pytest

from components import metadata
from pipeline.local import store
from settings.base import ConfigError


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a database that ML Metadata has created."""
    database = tmp_path_factory.mktemp("store") / "metadata.sqlite"
    metadata.open_store(database)
    return database.read_bytes()


@pytest.fixture
def database(content, tmp_path):
    file = tmp_path / "metadata.sqlite"
    file.write_bytes(content)
    return file


def _execute(database, statement):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(statement)
        connection.commit()


def _overwrite(database):
    with database.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(30_000))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda file: os.truncate(file, file.stat().st_size // 2), "a damaged one. Restore it from a copy"),
        (lambda file: os.truncate(file, 1000), "a damaged one. Restore it"),
        (_overwrite, "a damaged one. Restore it"),
        (lambda file: file.write_text("hello, world\n" * 99), "another kind of file. Restore it from a copy"),
        (lambda file: _execute(file, "update MLMDEnv set schema_version = 99"), "a newer schema than this"),
        (lambda file: [file.unlink(), file.mkdir()], "something that cannot be opened"),
    ],
    ids=["half", "1,000 bytes", "foreign bytes", "text", "newer", "folder"],
)
def test_a_database_that_cannot_be_used_is_named_with_the_remedy_at_once(database, damage, found):
    damage(database)
    start = time.monotonic()
    with pytest.raises(ConfigError) as error:
        store.check(database)
    assert str(error.value).startswith(f"{database}: expected the database of ML Metadata, found ")
    assert found in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 2


def test_a_good_database_and_an_empty_file_are_used(database):
    store.check(database)
    database.write_bytes(b"")
    store.check(database)


def test_a_lock_is_waited_for_with_a_word(database, capsys, monkeypatch):
    monkeypatch.setattr(store, "_ATTEMPT_SECONDS", 0.1)
    other = sqlite3.connect(database, check_same_thread=False)
    other.execute("begin exclusive")
    timer = threading.Timer(0.3, other.rollback)
    timer.start()
    store.check(database)
    timer.join()
    other.close()
    assert capsys.readouterr().err == f"Another process has locked {database}: waiting, 30 s at most\n"


def test_a_lock_that_stays_is_given_up(database, monkeypatch):
    monkeypatch.setattr(store, "_WAIT_SECONDS", 0)
    monkeypatch.setattr(store, "_ATTEMPT_SECONDS", 0)
    with contextlib.closing(sqlite3.connect(database)) as other:
        other.execute("begin exclusive")
        with pytest.raises(ConfigError, match=r"metadata\.sqlite: another process keeps it locked; `fuser "):
            store.check(database)
