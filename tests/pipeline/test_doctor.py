"""Tests what `python -m pipeline.doctor` says about a machine."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import doctor
from pipeline.doctor import OK, WARNING, WRONG
from pipeline.machine import Memory

PROJECT = Path(__file__).resolve().parents[2]
SUBJECTS = {
    *("Python", "glibc", "packages", "cores", "memory", "disk", "CIFAR-10", "MobileNetV2 weights"),
    *("EfficientNetV2B0 weights", "browser", "docker", "ports", "open files", "encoding", "clock"),
    *("TensorFlow", "GPU", "bfloat16"),
}
GB = 10**9


def run(folder: Path, *flags: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Runs the command in a folder that can shadow packages; returns its exit code and lines by name."""
    process = subprocess.run(
        [sys.executable, "-m", "pipeline.doctor", "--json", *flags],
        env={
            **os.environ,
            "PYTHONPATH": f"{PROJECT}{os.pathsep}{folder}",
            "KERAS_HOME": str(folder / "keras"),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode in (0, 1), process.stderr
    return process.returncode, {line["name"]: line for line in json.loads(process.stdout)}


def test_only_the_standard_library_is_loaded():
    code = "import sys; from pipeline import doctor; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert set(loaded.stdout.split()) - sys.stdlib_module_names - {"__main__"} == {"pipeline"}


@pytest.mark.slow
def test_this_machine_has_a_line_for_every_subject(tmp_path):
    weights = (
        tmp_path / "keras" / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    )
    weights.parent.mkdir(parents=True)
    weights.touch()
    code, lines = run(tmp_path)
    assert lines.keys() == SUBJECTS
    assert code == int(WRONG in {line["status"] for line in lines.values()})
    # The tests run with these packages.
    for subject in ("Python", "glibc", "packages", "TensorFlow"):
        assert lines[subject]["status"] == OK
    assert lines["MobileNetV2 weights"]["found"] == str(weights)
    assert lines["EfficientNetV2B0 weights"]["status"] == WARNING


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('libcuda.so: not found')", "ImportError: libcuda.so: not found"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "SIGILL; the package was built for another",
        ),
    ],
)
def test_a_broken_tensorflow_is_one_wrong_line(tmp_path, code, reason):
    (tmp_path / "tensorflow.py").write_text(code)
    exit_code, lines = run(tmp_path)
    assert exit_code == 1
    assert lines["TensorFlow"]["status"] == WRONG
    assert reason in lines["TensorFlow"]["found"]
    assert "scripts/install.sh" in lines["TensorFlow"]["advice"]
    assert lines["CIFAR-10"]["status"] in (OK, WARNING)  # needs other packages


def test_versions_are_those_of_the_project():
    text = (PROJECT / "pyproject.toml").read_text()
    for name in ("tfx", "tensorflow"):
        pinned = dict(re.findall(rf"\"{name}==([\d.]+); python_version (< |>= )'3.11'\"", text))
        expected = {
            version: "< " if python == (3, 10) else ">= "
            for python, both in doctor.PACKAGES.items()
            for version in [both[name]]
        }
        assert pinned == expected
    assert doctor._packages(sys.version_info[:2], doctor._installed()).status == OK
    script = (PROJECT / "scripts" / "install.sh").read_text()
    assert f"new_glibc={'.'.join(map(str, doctor.GLIBC))}\n" in script


def test_missing_and_other_packages_are_wrong():
    right = {"tfx": "1.16.0", "tensorflow": "2.16.2", "pooch": "1"}
    assert doctor._packages((3, 10), right).status == OK
    line = doctor._packages((3, 10), {**right, "pooch": ""})
    assert (line.status, line.found) == (WRONG, "missing: pooch")
    line = doctor._packages((3, 12), right)
    assert line.status == WRONG
    assert "tfx 1.21.0 is expected" in line.advice


@pytest.mark.parametrize(
    ("python", "version", "status"),
    [((3, 10), (2, 31), OK), ((3, 12), (2, 39), OK), ((3, 12), (2, 36), WRONG), ((3, 10), None, WRONG)],
)
def test_glibc(python, version, status):
    assert doctor._glibc(python, version).status == status


@pytest.mark.parametrize(("version", "status"), [((3, 9), WRONG), ((3, 10), OK), ((3, 14), WRONG)])
def test_python(version, status):
    assert doctor._python(version).status == status


@pytest.mark.parametrize(
    ("memory", "status", "found"),
    [
        (Memory(16 * GB, 8 * GB), OK, "16.0 GB in this machine, 8.0 GB available"),
        (Memory(4 * GB, 3 * GB, is_limited=True), WARNING, "4.0 GB limit of the container, 3.0 GB available"),
        (Memory(2 * GB, 2 * GB), WRONG, "2.0 GB in this machine, 2.0 GB available"),
        (None, WARNING, "unknown: there is no /proc/meminfo"),
    ],
)
def test_memory(memory, status, found):
    line = doctor._memory(memory)
    assert (line.status, line.found) == (status, found)


def test_one_line_for_folders_on_the_same_disk(tmp_path):
    lines = list(doctor._disks([tmp_path / "not" / "there", tmp_path]))
    assert len(lines) == 1
    assert str(tmp_path) in lines[0].found


def test_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**8}))
    (line,) = doctor._disks([tmp_path])
    assert line.status == WRONG
    assert line.found.startswith("0.1 GB free for ")


def test_folder_without_rights(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    (line,) = doctor._disks([tmp_path])
    assert (line.status, line.found) == (WRONG, f"{tmp_path} cannot be written")


def test_ports():
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        port = server.getsockname()[1]
        line = doctor._ports({port: "REST"})
    assert (line.status, line.found) == (WARNING, f"in use: {port} (REST)")
    assert doctor._ports({port: "REST"}).status == OK


@pytest.mark.parametrize(("limit", "status"), [(256, WARNING), (1024, OK), (-1, OK)])
def test_open_files(limit, status):
    assert doctor._open_files(limit).status == status


@pytest.mark.parametrize(
    ("files", "terminal", "status"),
    [
        ("utf-8", "UTF-8", OK),
        ("utf-8", "none", OK),
        ("ascii", "utf-8", WARNING),
        ("utf-8", "iso8859-1", WARNING),
    ],
)
def test_encoding(files, terminal, status):
    assert doctor._encoding(files, terminal).status == status


def test_a_clock_before_the_newest_pushed_model_is_wrong(tmp_path):
    assert doctor._clock(time.time(), doctor._dates(tmp_path)).status == OK
    (tmp_path / "serving" / "birds" / str(int(time.time()) + 3600)).mkdir(parents=True)
    line = doctor._clock(time.time(), doctor._dates(tmp_path))
    assert line.status == WRONG
    assert "a model in" in line.found


def test_downloads_are_tried_only_when_asked(tmp_path, monkeypatch):
    asked = []

    def reach(address):
        asked.append(address)
        return "" if "cifar" in address else "weights.example does not answer"

    monkeypatch.setattr(doctor, "_reach", reach)
    found = {
        "cifar10": [None, "https://cifar.example/c"],
        "weights": [["Net", None, "https://weights.example/w"]],
    }
    assert [line.status for line in doctor._downloads(found, tmp_path, network=False)] == [WARNING, WARNING]
    assert asked == []
    assert [line.status for line in doctor._downloads(found, tmp_path, network=True)] == [OK, WARNING]
    assert asked == ["https://cifar.example/c", "https://weights.example/w"]


def test_an_unreachable_server_is_named(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    problem = doctor._reach("http://127.0.0.1:9/file")
    assert problem.startswith("127.0.0.1:9 does not answer (")


def test_text_and_exit_code(monkeypatch, capsys):
    lines = [doctor.Line("memory", OK, "16 GB"), doctor.Line("disk", WRONG, "full", "Delete files")]
    monkeypatch.setattr(doctor, "examine", lambda root, network: iter(lines))
    assert doctor.main([]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"ok       {'memory':<24} 16 GB",
        f"wrong    {'disk':<24} full -> Delete files",
    ]
    monkeypatch.setattr(doctor, "examine", lambda root, network: iter(lines[:1]))
    assert doctor.main([]) == 0
