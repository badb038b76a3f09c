import errno
import tempfile
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2

from components import metadata
from datasets import atomic_directory
from pipeline.local import failures


def _raised(error, cause=None):
    try:
        raise error from cause
    except Exception as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("too small"), "too small"),
        (_raised(RuntimeError("outer"), ValueError("inner")), "inner"),
        (RuntimeError("bad label [while running 'Step/Inner(X)']"), "bad label"),
        (KeyError(), "KeyError"),
        (ValueError("x" * 5000), "x" * 2000 + " ... (the log has the whole message)"),
    ],
)
def test_without_a_message_of_this_project_that_of_the_first_cause_is_told(tmp_path, error, expected):
    assert failures.describe(error, tmp_path / "metadata.sqlite") == expected


@pytest.mark.parametrize("content", [b"", b"\x00hello", b"half"], ids=["empty", "foreign", "half"])
def test_a_damaged_checkpoint_is_named_with_the_remedy_however_it_is_wrapped(tmp_path, content):
    from models.training import checkpoint  # noqa: PLC0415 - it loads TensorFlow.

    saved = checkpoint.Checkpoint(str(tmp_path), parts=1)
    saved.save(checkpoint.State({}, [], [], []))
    file = Path(saved.path)
    file.write_bytes(file.read_bytes()[:200] if content == b"half" else content)
    with pytest.raises(checkpoint.CheckpointError) as error:
        saved.load()
    for wrapped in (error.value, _raised(RuntimeError("Beam"), error.value)):
        told = failures.describe(wrapped, tmp_path / "metadata.sqlite")
        assert told == str(error.value)
        assert saved.path in told
        assert "Delete this file" in told


def test_an_error_of_a_library_that_code_of_this_project_has_called_is_not_a_message_of_this_project(
    tmp_path,
):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as error:
        atomic_directory.lock(tmp_path / "file" / "x")
    error.value.__cause__ = ValueError("the first cause")
    told = failures.describe(_raised(RuntimeError("TFX"), error.value), tmp_path / "metadata.sqlite")
    assert told == "the first cause"


FULL = OSError(errno.ENOSPC, "No space left on device", "/x")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        _raised(RuntimeError("Trainer"), FULL),
        mlmd.errors.ResourceExhaustedError("database or disk is full query: UPDATE `Execution` SET"),
        ValueError("/x/model: No space left on device; while writing a SavedModel"),
    ],
)
def test_of_a_full_disk_it_is_told_which_one_and_how_much_is_free(tmp_path, error):
    told = failures.describe(error, tmp_path / "metadata.sqlite")
    assert told.startswith("A disk is full: ")
    assert "MB are free in " in told
    assert str(tmp_path) in told or tempfile.gettempdir() in told
    assert "UPDATE" not in told


def test_a_database_that_cannot_be_opened_in_a_run_is_told_without_its_sql(tmp_path):
    (tmp_path / "metadata.sqlite").mkdir()
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(tmp_path / "metadata.sqlite")
    with pytest.raises(RuntimeError) as error:
        mlmd.MetadataStore(config)  # as TFX opens it
    told = failures.describe(error.value, tmp_path / "metadata.sqlite")
    assert "expected the database of ML Metadata, found something that cannot be opened" in told
    with pytest.raises(mlmd.errors.StatusError):
        metadata.open_store(tmp_path / "metadata.sqlite")


def test_what_happens_to_ml_metadata_in_a_run_is_told_with_its_file(tmp_path):
    error = mlmd.errors.AbortedError("Concurrent writes aborted after max number of retries.")
    told = failures.describe(error, tmp_path / "metadata.sqlite")
    assert told.startswith(f"{tmp_path / 'metadata.sqlite'}: another process keeps it locked")
