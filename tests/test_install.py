"""Tests the messages of scripts/install.sh if something is missing; `make test` covers the normal case."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "install.sh"


@pytest.fixture
def install(tmp_path):
    """Runs a copy of the script, with only a few tools and the given programs on PATH."""

    def run(**programs):
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in ("sh", "dirname", "touch", "rm"):
            (tools / name).symlink_to(shutil.which(name))
        for name, text in programs.items():
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
        (tmp_path / "scripts").mkdir()
        shutil.copy(SCRIPT, tmp_path / "scripts")
        return subprocess.run(
            [tmp_path / "scripts" / "install.sh"],
            env={"PATH": str(tools)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_without_python_3_10_the_message_says_how_to_install_it(install):
    process = install(uv='case "$*" in "python find"*) exit 2;; esac; echo "not reached"')
    assert process.returncode == 1
    assert "no Python 3.10 was found" in process.stderr
    assert "uv python install 3.10" in process.stderr
    assert "not reached" not in process.stdout


def test_without_uv_and_python_the_message_names_both(install):
    process = install()
    assert process.returncode == 1
    assert "neither uv nor a Python" in process.stderr


def test_with_uv_and_python_the_locked_packages_are_installed(install, tmp_path):
    (tmp_path / ".venv").mkdir()
    process = install(uv='echo "uv $*"')
    assert process.returncode == 0, process.stderr
    assert "uv sync --locked" in process.stdout
    assert (tmp_path / ".venv" / ".installed").exists()
