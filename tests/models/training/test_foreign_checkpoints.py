"""Foreign bytes in place of a checkpoint: the state that was saved, or one error that says what to do."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training import checkpoint
from tests.fuzzing import cases, changed_bytes

STATE = checkpoint.State(
    progress={"phase": "training", "epoch": 2},
    model=[np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)],
    optimizer=[np.ones(3, np.float32)],
    best=[np.zeros((2, 3), np.float32)],
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint, and the content of its file."""
    written = checkpoint.Checkpoint(str(tmp_path_factory.mktemp("checkpoints")), "parts")
    written.save(STATE)
    return written, Path(written.path).read_bytes()


@cases(60)
@given(st.data())
def test_foreign_checkpoints_are_whole_or_refused(saved, data):
    file, content = saved
    Path(file.path).write_bytes(data.draw(changed_bytes(content) | st.binary(max_size=300)))
    try:
        state = file.load()
    except checkpoint.CheckpointError as error:
        assert file.path in str(error)
        assert "Delete this file" in str(error)
    else:
        assert state.progress == STATE.progress
        np.testing.assert_array_equal(state.model[0], STATE.model[0])
