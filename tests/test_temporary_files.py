"""Temporary files are safe in a folder that all users of a machine share."""

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import temporary
from pipeline.code_digest import PACKAGES

REPOSITORY = Path(__file__).resolve().parents[1]
# They make names that nobody can foresee, for this user alone; `gettempdir` only tells where.
SAFE = {"TemporaryDirectory", "TemporaryFile", "mkdtemp", "mkstemp", "gettempdir", "tempdir"}
# Prints the mode of a run's temporary folder, of a file that a library makes in it, and both paths.
CODE = """
import os, sys, tempfile
from pathlib import Path
from pipeline import temporary
os.umask(0)
with temporary.folder() as folder:
    descriptor, made = tempfile.mkstemp()
    print(oct(os.stat(folder).st_mode & 0o777), oct(os.stat(made).st_mode & 0o777), folder, made)
assert not folder.exists()
"""


def _run(folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    variables = {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder), **more}
    return subprocess.run(
        [sys.executable, "-c", CODE], env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("package", [*PACKAGES, "lineage", "serving"])
def test_temporary_names_are_made_by_tempfile(package):
    for file in (REPOSITORY / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "tempfile":
                assert node.attr in SAFE, f"{file}:{node.lineno}"
            is_name = isinstance(node, ast.Constant) and isinstance(node.value, str)
            assert not (is_name and node.value.startswith(("/tmp", "/var/tmp", "/dev/shm/"))), file


def test_a_runs_temporary_files_are_its_users_alone_even_with_umask_000(tmp_path):
    tmp_path.chmod(0o777)  # and without the sticky bit
    done = _run(tmp_path)
    folder_mode, file_mode, folder, made = done.stdout.split()
    assert (folder_mode, file_mode) == ("0o700", "0o600")
    assert Path(folder).parent == tmp_path and Path(made).parent == Path(folder)
    assert list(tmp_path.iterdir()) == []


def test_links_of_somebody_else_are_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / f"{temporary._PREFIX}aaaaaaaa").symlink_to(victim)
    (shared / f"{temporary._PREFIX}bbbbbbbb").symlink_to(victim / "file")
    (shared / f"{temporary._PREFIX}cccccccc").symlink_to("nowhere")
    assert _run(shared).returncode == 0
    assert (victim / "file").read_text() == "precious"


def test_a_folder_that_another_user_has_prepared_is_left_alone(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    prepared = tmp_path / f"{temporary._PREFIX}aaaaaaaa"
    prepared.mkdir()
    (prepared / "file").write_text("")
    os.chown(prepared, 12345, 12345)
    assert _run(tmp_path).returncode == 0
    assert (prepared / "file").exists()


def test_without_the_folder_of_tmpdir_another_one_is_used_which_is_safe_too(tmp_path):
    done = _run(tmp_path / "missing")
    folder_mode, _, folder, _ = done.stdout.split()
    assert folder_mode == "0o700"
    assert not (tmp_path / "missing").exists()
    parent = Path(folder).parent
    # As everywhere, a shared folder has to keep users from removing files of others.
    assert parent.stat().st_uid == os.geteuid() or parent.stat().st_mode & stat.S_ISVTX
