import subprocess
import sys

import pytest

from lineage import lock
from settings.base import ConfigError


def test_a_second_run_is_refused_until_the_first_one_ends(tmp_path):
    with (
        lock.exclusive(tmp_path / "runs"),
        pytest.raises(ConfigError, match="another run is using"),
        lock.exclusive(tmp_path / "runs"),
    ):
        pass
    with lock.exclusive(tmp_path / "runs"):
        pass


def test_a_killed_process_releases_the_lock(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from lineage import lock
with lock.exclusive(Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with lock.exclusive(tmp_path):
        pass
