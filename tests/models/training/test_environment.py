import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from models.training import environment

ROOT = Path(__file__).parents[3]
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def _git(*arguments, folder=ROOT):
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_versions_and_hardware_are_those_of_this_process():
    described = environment.describe(12.5, "mixed_bfloat16")
    assert set(described) == {
        *("python", "packages", "cpus", "gpus", "peak_memory_bytes", "git_commit", "git_changes"),
        *("training_seconds", "precision", "workers"),
    }
    assert (described["training_seconds"], described["precision"]) == (12.5, "mixed_bfloat16")
    assert described["workers"] == 1
    assert described["python"] == platform.python_version()
    assert {"tensorflow", "keras", "tfx", "numpy"} <= set(described["packages"])
    for name, version in described["packages"].items():
        assert version == importlib.metadata.version(name)
    assert 1 <= described["cpus"] <= os.cpu_count()
    assert all(isinstance(name, str) for name in described["gpus"])


def test_peak_memory_is_that_of_this_process_in_bytes():
    allocated = b"x" * (300 * 2**20)
    peak = environment.describe(0.0, "float32")["peak_memory_bytes"]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # TensorFlow itself takes more than 2**27 bytes in addition.
    assert len(allocated) + 2**27 < peak < total


@needs_git
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the tests run outside a git repository")
def test_the_commit_is_that_of_this_repository():
    assert environment.describe(0.0, "float32")["git_commit"] == _git("rev-parse", "HEAD")


def test_a_container_knows_what_its_image_was_built_from(monkeypatch):
    for built_from, changed in (("f00d", False), ("f00d-dirty", True)):
        monkeypatch.setenv("PIPELINE_GIT_COMMIT", built_from)
        assert environment.describe_code() == {"git_commit": "f00d", "git_changes": changed}


@needs_git
def test_changes_since_the_commit_are_reported(tmp_path, monkeypatch):
    _git("init", folder=tmp_path)
    (tmp_path / "a").write_text("1")
    _git("add", "a", folder=tmp_path)
    _git("commit", "-m", "a", folder=tmp_path)
    monkeypatch.setattr(environment, "_PROJECT", tmp_path)
    described = environment.describe(0.0, "float32")
    assert described["git_commit"] == _git("rev-parse", "HEAD", folder=tmp_path)
    assert described["git_changes"] is False
    (tmp_path / "a").write_text("2")
    assert environment.describe(0.0, "float32")["git_changes"] is True


@needs_git
def test_a_copy_inside_another_repository_has_no_commit(tmp_path, monkeypatch):
    # The commit of the surrounding repository is not that of the project's code.
    _git("init", folder=tmp_path)
    _git("commit", "--allow-empty", "-m", "a", folder=tmp_path)
    (tmp_path / "copy").mkdir()
    monkeypatch.setattr(environment, "_PROJECT", tmp_path / "copy")
    described = environment.describe(0.0, "float32")
    assert (described["git_commit"], described["git_changes"]) == (None, None)


@needs_git
def test_a_repository_without_a_commit_has_none(tmp_path, monkeypatch):
    _git("init", folder=tmp_path)
    monkeypatch.setattr(environment, "_PROJECT", tmp_path)
    described = environment.describe(0.0, "float32")
    assert (described["git_commit"], described["git_changes"]) == (None, None)


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(environment, "_PROJECT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    described = environment.describe(0.0, "float32")
    assert (described["git_commit"], described["git_changes"]) == (None, None)
