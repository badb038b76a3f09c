"""Tests which interpreter scripts/install.sh chooses, and its messages if something is missing.

`make test` covers the normal case on this machine. Here, programs on PATH are replaced by small scripts.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "install.sh"
NEW, OLD = "glibc 2.41", "glibc 2.36"
UV = 'case "$*" in "--version") echo uv 1;; "python "*) exit 2;; *) echo "uv $*"; mkdir -p .venv;; esac'
COMPILER = "exit 0"


def python(version):
    """The text of a program that answers as an interpreter of that version, with headers and without venv."""
    return f'case "$*" in "-c "*print*) echo "{version} $0";; "-m venv"*) exit 1;; esac'


@pytest.fixture
def install(tmp_path):
    """Runs a copy of the script, with only a few tools and the given programs on PATH."""

    def run(*, glibc=NEW, variables=(), pyenv=(), venv=None, **programs):
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in ("sh", "dirname", "touch", "rm", "sed", "sort", "head", "mkdir", "ls"):
            (tools / name).symlink_to(shutil.which(name))
        programs["getconf"] = f"echo {glibc}" if glibc else "exit 1"
        for name, text in programs.items():
            _write_program(tools / name.replace("python3_", "python3."), text)
        for version in pyenv:
            path = tmp_path / ".pyenv" / "versions" / f"{version}.7" / "bin" / "python"
            path.parent.mkdir(parents=True)
            _write_program(path, python(version))
        if venv:
            (tmp_path / ".venv" / "bin").mkdir(parents=True)
            _write_program(tmp_path / ".venv" / "bin" / "python", f"echo {venv}")
        (tmp_path / "scripts").mkdir()
        shutil.copy(SCRIPT, tmp_path / "scripts")
        return subprocess.run(
            [tmp_path / "scripts" / "install.sh"],
            env={"PATH": str(tools), "HOME": str(tmp_path), **dict(variables)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def _write_program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("glibc", "versions", "chosen"),
    [
        (NEW, ("3.10", "3.11", "3.13"), "3.13"),
        (NEW, ("3.10", "3.11"), "3.11"),
        (NEW, ("3.10",), "3.10"),
        (OLD, ("3.10", "3.11", "3.13"), "3.10"),
        (None, ("3.10", "3.13"), "3.10"),
    ],
)
def test_the_newest_python_that_the_packages_support_is_chosen(install, tmp_path, glibc, versions, chosen):
    programs = {version.replace("3.", "python3_"): python(version) for version in versions}
    process = install(glibc=glibc, uv=UV, **{"c++": COMPILER}, **programs)
    assert process.returncode == 0, process.stderr
    packages = "TFX 1.16" if chosen == "3.10" else "TFX 1.21"
    assert f"Python {chosen} ({tmp_path}/bin/python{chosen}): {packages}" in process.stdout
    assert "uv sync --locked --quiet --compile-bytecode --python" in process.stdout


def test_a_distributions_python3_and_versions_of_pyenv_are_found(install, tmp_path):
    process = install(uv=UV, python3=python("3.12"), pyenv=["3.11"])
    assert f"Python 3.12 ({tmp_path}/bin/python3)" in process.stdout


def test_a_version_of_pyenv_that_is_not_selected_is_found(install, tmp_path):
    # A shim of pyenv fails where its version is not selected.
    process = install(
        uv=UV, python3_13="echo 'pyenv: python3.13: command not found' >&2; exit 127", pyenv=["3.13"]
    )
    assert f"Python 3.13 ({tmp_path}/.pyenv/versions/3.13.7/bin/python): TFX 1.21" in process.stdout


@pytest.mark.parametrize("value", ["3.10", "3.12"])
def test_the_variable_chooses_and_the_next_run_keeps_the_choice(install, value):
    versions = {"python3_10": python("3.10"), "python3_12": python("3.12"), "python3_13": python("3.13")}
    process = install(uv=UV, variables={"PYTHON": value}, **versions, **{"c++": COMPILER})
    assert f"Python {value} (" in process.stdout


def test_an_existing_environment_keeps_its_python(install):
    versions = {"python3_10": python("3.10"), "python3_13": python("3.13")}
    assert "Python 3.10 (" in install(uv=UV, venv="3.10", **versions, **{"c++": COMPILER}).stdout


@pytest.mark.parametrize(
    ("value", "glibc", "message"),
    [
        ("3.9", NEW, "PYTHON=3.9: expected one of 3.13 3.12 3.11 3.10."),
        ("3.13", OLD, "PYTHON=3.13: TFX 1.21 needs glibc 2.39 or newer, found 2.36."),
        ("3.13", None, "found another C library."),
    ],
)
def test_a_version_that_cannot_work_is_refused(install, value, glibc, message):
    process = install(uv=UV, glibc=glibc, variables={"PYTHON": value}, python3_13=python("3.13"))
    assert process.returncode == 1
    assert message in process.stderr


@pytest.mark.parametrize(("glibc", "version"), [(NEW, "3.13"), (OLD, "3.10")])
def test_without_a_python_uv_is_asked_to_download_one_unless_that_is_forbidden(install, glibc, version):
    process = install(uv=UV, glibc=glibc)
    assert process.returncode == 1
    assert f"uv downloads Python {version}" in process.stdout
    assert "was found on PATH, in pyenv or in uv, and none could be downloaded." in process.stderr
    assert f"This machine has {glibc}: TFX 1.21 needs 2.39 and Python 3.11 to 3.13" in process.stderr
    assert f"uv python install {version}" in process.stderr


def test_nothing_is_downloaded_where_that_is_forbidden(install):
    process = install(uv=UV, variables={"UV_PYTHON_DOWNLOADS": "never"})
    assert process.returncode == 1
    assert "uv downloads" not in process.stdout


def test_a_uv_that_does_not_answer_does_not_count(install):
    process = install(uv="echo 'pyenv: uv: command not found' >&2; exit 127", python3=python("3.11"))
    assert "uv is not installed; installing it into .uv" in process.stdout
    assert process.returncode == 1
    assert "neither uv nor a Python with its venv module was found" in process.stderr
    assert "apt install python3-venv" in process.stderr


def test_a_compiler_and_headers_are_needed_for_python_3_10_alone(install):
    process = install(uv=UV, glibc=OLD, python3_10=python("3.10"))
    assert process.returncode == 1
    assert "there is no C++ compiler" in process.stderr
    assert "apt install g++" in process.stderr


def test_missing_headers_are_named(install):
    without_headers = 'case "$*" in *Python.h*) exit 1;; "-c "*print*) echo "3.10 $0";; esac'
    process = install(uv=UV, glibc=OLD, python3_10=without_headers, **{"c++": COMPILER})
    assert process.returncode == 1
    assert "apt install python3.10-dev" in process.stderr


def test_after_the_installation_the_stamp_of_make_is_there(install, tmp_path):
    process = install(uv=UV, python3_13=python("3.13"))
    assert process.returncode == 0, process.stderr
    assert (tmp_path / ".venv" / ".installed").exists()


def test_an_environment_that_this_system_cannot_use_is_replaced(install):
    versions = {"python3_10": python("3.10"), "python3_13": python("3.13")}
    process = install(uv=UV, glibc=OLD, venv="3.11", **versions, **{"c++": COMPILER})
    assert "Python 3.10 (" in process.stdout
