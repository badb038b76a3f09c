import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline import temporary


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that is TMPDIR for this process and its children."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_all_temporary_files_lie_in_a_folder_that_is_removed(place):
    ask = [sys.executable, "-c", "import tempfile; print(tempfile.mkdtemp())"]
    with temporary.folder() as folder:
        assert folder.parent == place
        assert oct(folder.stat().st_mode)[-3:] == "700"
        assert Path(tempfile.mkdtemp()).parent == folder
        child = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        assert Path(child.strip()).parent == folder
    assert list(place.iterdir()) == []
    assert (tempfile.gettempdir(), os.environ["TMPDIR"]) == (str(place), str(place))


def test_the_folder_of_a_killed_process_is_swept_and_that_of_a_running_one_is_left_alone(place):
    code = (
        "import sys, tempfile, time; from pipeline import temporary\n"
        "with temporary.folder(): tempfile.mkdtemp(); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.read(1)
        (left,) = place.iterdir()
        with temporary.folder():
            assert left.exists()
        process.send_signal(signal.SIGKILL)
    assert left.exists()
    with temporary.folder():
        assert not left.exists()


def test_what_others_have_put_under_such_a_name_is_left_alone(place, tmp_path_factory):
    precious = tmp_path_factory.mktemp("precious")
    (precious / "file").touch()
    (place / "pipeline-link").symlink_to(precious)
    (place / "pipeline-file").touch()
    with temporary.folder():
        pass
    assert (precious / "file").exists()
    assert {each.name for each in place.iterdir()} == {"pipeline-link", "pipeline-file"}
