import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.training import checkpoint

STATE = checkpoint.State(
    progress={"phase": "training", "epoch": 2, "lowest": 0.1 + 0.2},
    model=[np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)],
    optimizer=[np.ones(11, np.float32) * index for index in range(12)],
    best=[np.zeros((2, 3), np.float32)],
)


def create(directory, parts=("a", 1)):
    return checkpoint.Checkpoint(str(directory / "checkpoints"), parts)


def test_load_returns_what_another_object_saved(tmp_path):
    assert create(tmp_path).load() is None
    create(tmp_path).save(STATE)
    loaded = create(tmp_path).load()
    assert loaded.progress == STATE.progress
    for kind in ("model", "optimizer", "best"):
        for expected, array in zip(getattr(STATE, kind), getattr(loaded, kind), strict=True):
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)


def test_different_parts_have_different_files(tmp_path):
    create(tmp_path).save(STATE)
    assert create(tmp_path, ("a", 2)).load() is None
    assert create(tmp_path, ("a", 1)).load() is not None


def test_a_failed_write_leaves_the_previous_file(tmp_path, monkeypatch):
    saved = create(tmp_path)
    saved.save(STATE)

    def fail(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        saved.save(checkpoint.State({"epoch": 3}, [], [], []))
    assert saved.load().progress == STATE.progress


def test_a_kill_in_the_middle_of_writing_leaves_the_previous_file(tmp_path):
    saved = create(tmp_path)
    saved.save(STATE)
    # The content is in the system's memory but not on the disk when the process is killed.
    program = (
        "import os, signal, sys, types\n"
        "sys.modules['tensorflow'] = types.ModuleType('tensorflow')  # is not needed for a local file\n"
        "from models.training import atomic_write\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"atomic_write.replace({saved.path!r}, b'half a checkpoint')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False, stderr=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert saved.load().progress == STATE.progress
    saved.remove()
    assert not list((tmp_path / "checkpoints").iterdir())


def _arrays(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _array():
    content = io.BytesIO()
    np.save(content, np.arange(3))
    return content.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[: len(content) // 2],
        lambda _: b"",
        lambda content: content[:-1],
        lambda content: content[:300] + bytes([content[300] ^ 1]) + content[301:],
        lambda _: b"\x89PNG, and so on",
        lambda _: _array(),
        lambda _: _arrays(other=np.arange(3)),
        lambda _: _arrays(progress=np.array("[1]")),
        lambda _: _arrays(progress=np.array("no JSON")),
    ],
    ids=["half", "empty", "cut", "a bit", "foreign", "one array", "other arrays", "a list", "no JSON"],
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, change):
    saved = create(tmp_path)
    saved.save(STATE)
    path = Path(saved.path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(checkpoint.CheckpointError) as error:
        saved.load()
    assert f"from the checkpoint {path}, which has {path.stat().st_size:,} bytes, is not whole" in str(
        error.value
    )
    assert "Delete this file and run the same command again" in str(error.value)


def test_remove_deletes_the_file_if_there_is_one(tmp_path):
    saved = create(tmp_path)
    saved.remove()
    saved.save(STATE)
    saved.remove()
    assert not list((tmp_path / "checkpoints").iterdir())
