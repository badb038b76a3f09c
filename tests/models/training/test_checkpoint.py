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

    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("tensorflow.io.gfile.rename", fail)
    with pytest.raises(OSError, match="no space left"):
        saved.save(checkpoint.State({"epoch": 3}, [], [], []))
    assert saved.load().progress == STATE.progress


def test_a_damaged_file_raises_a_clear_error(tmp_path):
    saved = create(tmp_path)
    saved.save(STATE)
    path = tmp_path / "checkpoints" / saved.path.rpartition("/")[2]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"the checkpoint .* \(100 bytes\) cannot be read: .*Delete it"):
        saved.load()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"the checkpoint .* \(0 bytes\) cannot be read: .*Delete it"):
        saved.load()


def test_remove_deletes_the_file_if_there_is_one(tmp_path):
    saved = create(tmp_path)
    saved.remove()
    saved.save(STATE)
    saved.remove()
    assert not list((tmp_path / "checkpoints").iterdir())
