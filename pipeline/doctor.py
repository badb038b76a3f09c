"""Says what this machine has, and what to do about what it lacks: `python -m pipeline.doctor`.

Nothing but the standard library is imported here, and packages are tried in processes of their own
(`pipeline.probes`), so that the answer comes also where packages are missing or broken.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import errno
import importlib.metadata
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import machine

OK, WARNING, WRONG = "ok", "warning", "wrong"

# Python -> the versions of TFX and TensorFlow, as in pyproject.toml.
PACKAGES = {
    (3, 10): {"tfx": "1.16.0", "tensorflow": "2.16.2"},
    (3, 11): {"tfx": "1.21.0", "tensorflow": "2.21.0"},
    (3, 12): {"tfx": "1.21.0", "tensorflow": "2.21.0"},
    (3, 13): {"tfx": "1.21.0", "tensorflow": "2.21.0"},
}
GLIBC = (2, 39)  # the oldest that the packages for Python 3.11 and later support
_PROJECT = Path(__file__).resolve().parents[1]
_INSTALL = "Run scripts/install.sh, and then .venv/bin/python"
_PROBE_SECONDS = 60
_NETWORK_SECONDS = 5
_PORTS = {8501: "REST", 8500: "gRPC"}  # of TensorFlow Serving
_GB = 1e9
# In bytes. `configs/quick.yaml` on CIFAR-10 needs the first, `configs/photos.yaml` the second.
_SMALLEST_MEMORY, _USUAL_MEMORY = 2.5 * _GB, 4 * _GB
_SMALLEST_DISK, _USUAL_DISK = 1 * _GB, 5 * _GB
_OPEN_FILES = 1024
_LISTED = 3  # missing packages that a line names


@dataclasses.dataclass(frozen=True)
class Line:
    """What was found about one subject.

    Attributes:
      name: the subject, such as `memory`.
      status: `ok`, `warning` (something works less well or not at all, but not the pipeline itself), or
        `wrong` (the pipeline cannot work).
      found: what was found.
      advice: what to do; empty if there is nothing to do.
    """

    name: str
    status: str
    found: str
    advice: str = ""


def examine(root: Path, network: bool = False) -> Iterator[Line]:
    """Examines this machine.

    Args:
      root: folder of the runs, which need not exist.
      network: whether to ask the servers for what a run would download.

    Yields:
      A line for each subject.
    """
    tensorflow, downloads, docker = _start("tensorflow"), _start("downloads"), _start_docker()
    yield _python(sys.version_info[:2])
    yield _glibc(sys.version_info[:2], _glibc_version())
    yield _packages(sys.version_info[:2], _installed())
    yield _cores()
    yield _memory(machine.memory())
    found = _answer(downloads)
    yield from _disks([root, Path(tempfile.gettempdir()), *map(Path, found.get("folders", ()))])
    yield from _downloads(found, root, network)
    yield _browser()
    yield _docker(docker)
    yield _ports(_PORTS)
    yield _open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield _encoding(sys.getfilesystemencoding(), getattr(sys.stdout, "encoding", None) or "none")
    yield _clock(time.time(), _dates(root))
    yield from _tensorflow(_answer(tensorflow))


def _python(version: tuple[int, ...]) -> Line:
    found = f"{sys.version.split()[0]}, {sys.executable}"
    if version in PACKAGES:
        return Line("Python", OK, found)
    return Line("Python", WRONG, found, f"Python 3.10 to 3.13 is needed. {_INSTALL}")


def _glibc_version() -> tuple[int, ...] | None:
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""  # such as `glibc 2.36`
    except (ValueError, OSError):
        return None
    return tuple(map(int, re.findall(r"\d+", name)))


def _glibc(python: tuple[int, ...], version: tuple[int, ...] | None) -> Line:
    if not version:
        return Line(
            "glibc", WRONG, "another C library", "TensorFlow needs glibc, as in Debian, Ubuntu or Fedora"
        )
    found = ".".join(map(str, version))
    needed = ".".join(map(str, GLIBC))
    if version < GLIBC and python >= (3, 11):
        return Line(
            "glibc", WRONG, found, f"TFX 1.21 needs {needed} or newer. PYTHON=3.10 scripts/install.sh"
        )
    return Line("glibc", OK, found)


def _installed() -> dict[str, str]:
    """Returns the version of each installed package that the project needs, and "" for missing ones."""
    names = ["tfx", "tensorflow"]
    try:
        text = (_PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:  # the container image has no such file
        pass
    else:
        block = text.partition("\ndependencies = [")[2].partition("\n]")[0]
        names = re.findall(r'^ *"([\w.-]+)', block, re.MULTILINE)
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    return versions


def _packages(python: tuple[int, ...], installed: Mapping[str, str]) -> Line:
    missing = [name for name, version in installed.items() if not version]
    found = ", ".join(f"{name} {installed[name] or 'is missing'}" for name in ("tfx", "tensorflow"))
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        return Line("packages", WRONG, f"missing: {', '.join(missing[:_LISTED])}{more}", _INSTALL)
    expected = PACKAGES.get((python[0], python[1]), {})
    for name, version in expected.items():
        if installed[name] != version:
            return Line("packages", WRONG, found, f"{name} {version} is expected. {_INSTALL}")
    return Line("packages", OK, found)


def _cores() -> Line:
    return Line("cores", OK, str(len(os.sched_getaffinity(0))))


def _memory(memory: machine.Memory | None) -> Line:
    if memory is None:
        return Line("memory", WARNING, "unknown: there is no /proc/meminfo")
    place = "limit of the container" if memory.is_limited else "in this machine"
    found = f"{memory.total / _GB:.1f} GB {place}, {memory.available / _GB:.1f} GB available"
    if memory.available < _SMALLEST_MEMORY:
        need = f"configs/quick.yaml needs {_SMALLEST_MEMORY / _GB:g} GB"
        return Line("memory", WRONG, found, f"{need}: end other programs, or raise the limit")
    if memory.available < _USUAL_MEMORY:
        need = f"Pretrained networks need up to {_USUAL_MEMORY / _GB:g} GB"
        return Line("memory", WARNING, found, f"{need}: keep trainer.batch_size and model.image_size small")
    return Line("memory", OK, found)


def _disks(folders: Iterable[Path]) -> Iterator[Line]:
    """Yields a line for each file system on which a run writes."""
    by_device: dict[int, list[Path]] = {}
    for folder in folders:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not os.access(existing, os.W_OK | os.X_OK):
            yield Line(
                "disk", WRONG, f"{folder} cannot be written", "Change its rights, or use another folder"
            )
            continue
        by_device.setdefault(existing.stat().st_dev, []).append(existing)
    for paths in by_device.values():
        free = shutil.disk_usage(paths[0]).free
        found = f"{free / _GB:.1f} GB free for {', '.join(map(str, dict.fromkeys(paths)))}"
        if free < _SMALLEST_DISK:
            yield Line("disk", WRONG, found, "Delete files, or use --root and TMPDIR on a larger disk")
        elif machine.is_in_memory(paths[0]):
            yield Line("disk", WARNING, f"{found}, in memory", "Set TMPDIR to a folder on a disk")
        elif free < _USUAL_DISK:
            yield Line("disk", WARNING, found, "A large dataset may not fit")
        else:
            yield Line("disk", OK, found)


def _downloads(found: Mapping[str, Any], root: Path, network: bool) -> Iterator[Line]:
    if "error" in found:
        yield Line("downloads", WRONG, f"cannot be looked for: {found['error']}", _INSTALL)
        return
    prepared = root / "data" / "cifar10"
    archive, address = found["cifar10"]
    rows = [("CIFAR-10", str(prepared) if prepared.exists() else archive, address)]
    rows += [(f"{title} weights", path, address) for title, path, address in found["weights"]]
    for name, path, address in rows:
        if path:
            yield Line(name, OK, path)
        elif not network:
            yield Line(
                name, WARNING, "not on this machine", "A run that needs it downloads it; --network tries"
            )
        elif problem := _reach(address):
            advice = f"Bring the file of {address} here; docs/data.md and docs/training.md say where to"
            yield Line(name, WARNING, f"not on this machine; {problem}", advice)
        else:
            yield Line(name, OK, f"can be downloaded from {address}")


def _reach(address: str) -> str:
    """Asks a server for a file without receiving it; returns the problem, or "" if there is none."""
    try:
        urllib.request.urlopen(
            urllib.request.Request(address, method="HEAD"), timeout=_NETWORK_SECONDS
        ).close()
    except (OSError, urllib.error.URLError) as error:
        return f"{address.split('/')[2]} does not answer ({error})"
    return ""


def _browser() -> Line:
    if path := shutil.which("chromium"):
        return Line("browser", OK, path)
    return Line(
        "browser", WARNING, "no chromium", "Only the tests of the report's page need it: apt install chromium"
    )


def _start_docker() -> subprocess.Popen[str] | None:
    if shutil.which("docker") is None:
        return None
    return subprocess.Popen(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _docker(process: subprocess.Popen[str] | None) -> Line:
    if process is None:
        return Line(
            "docker", WARNING, "not installed", "Only serving a pushed model and images for Kubeflow need it"
        )
    try:
        output = process.communicate(timeout=_NETWORK_SECONDS)[0].strip()
    except subprocess.TimeoutExpired:
        process.kill()
        output = "its server does not answer"
    if process.returncode == 0:
        return Line("docker", OK, output)
    reason = output.splitlines()[-1] if output else "no answer"
    return Line("docker", WARNING, reason, "Start the server, and add yourself to the group docker")


def _ports(ports: Mapping[int, str]) -> Line:
    used = []
    for port, name in ports.items():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                used.append(f"{port} ({name})")
    if used:
        advice = "Serve a model on another port, such as docker run -p 8511:8501"
        return Line("ports", WARNING, f"in use: {', '.join(used)}", advice)
    return Line("ports", OK, f"{', '.join(map(str, ports))} are free")


def _open_files(limit: int) -> Line:
    if 0 <= limit < _OPEN_FILES:  # -1 stands for no limit
        return Line(
            "open files", WARNING, f"at most {limit}", f"Large datasets need more: ulimit -n {_OPEN_FILES}"
        )
    return Line("open files", OK, "no limit" if limit < 0 else f"at most {limit}")


def _encoding(files: str, terminal: str) -> Line:
    found = f"{files} for files, {terminal} for output"
    if all(name.lower().replace("-", "") in ("utf8", "none") for name in (files, terminal)):
        return Line("encoding", OK, found)
    advice = "Names with letters beyond ASCII cannot be used or shown: export LC_ALL=C.UTF-8"
    return Line("encoding", WARNING, found, advice)


def _dates(root: Path) -> dict[str, float]:
    """Returns times in the past, in seconds since 1970, with what happened then."""
    versions = [int(path.name) for path in root.glob("serving/*/*") if path.name.isdigit()]
    times = {f"{__file__} was written": Path(__file__).stat().st_mtime}
    return {**times, **({f"a model in {root / 'serving'} was pushed": max(versions)} if versions else {})}


def _clock(now: float, dates: Mapping[str, float]) -> Line:
    found = f"{datetime.datetime.fromtimestamp(now):%Y-%m-%d %H:%M}"
    for event, date in dates.items():
        if now < date - 60:
            advice = "Set the clock: servers choose the model whose version, its time, is the highest"
            return Line("clock", WRONG, f"{found}, earlier than when {event}", advice)
    return Line("clock", OK, found)


def _tensorflow(found: Mapping[str, Any]) -> Iterator[Line]:
    if "error" in found:
        yield Line("TensorFlow", WRONG, f"cannot be loaded: {found['error']}", _INSTALL)
        return
    yield Line("TensorFlow", OK, f"{found['version']} can be loaded")
    gpus = found["gpus"]
    if not gpus and machine.has_gpu():
        advice = "Install CUDA's libraries: .venv/bin/python -m pip install 'tensorflow[and-cuda]'"
        yield Line("GPU", WARNING, "there is one that TensorFlow cannot use", advice)
    else:
        yield Line("GPU", OK, f"{gpus} that TensorFlow can use" if gpus else "none; the CPU trains")
    in_hardware = found["precision"] != "float32"
    yield Line(
        "bfloat16",
        OK,
        "in hardware: trainer.precision=auto uses it"
        if in_hardware
        else "not in hardware: trainer.precision=auto trains in float32, in up to twice the time",
    )


def _start(probe: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.probes", probe],
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Returns the answer of a probe, or `error` with the reason why there is none."""
    try:
        output, errors = process.communicate(timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return {"error": f"no answer within {_PROBE_SECONDS} seconds"}
    if process.returncode == 0:
        return json.loads(output)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        reason = "; the package was built for another CPU" if name == "SIGILL" else ""
        return {"error": f"the process was ended by {name}{reason}"}
    return {"error": (errors.strip().splitlines() or ["no message"])[-1]}


def main(arguments: list[str] | None = None) -> int:
    """Prints what this machine has; returns the exit code: 1 if something is wrong, otherwise 0."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.doctor", description="Says what this machine has."
    )
    parser.add_argument(
        "--root", type=Path, default=Path("runs"), help="folder of the runs; `runs` by default"
    )
    parser.add_argument(
        "--network", action="store_true", help="also ask the servers for what a run would download"
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects as JSON")
    options = parser.parse_args(arguments)
    lines = list(examine(options.root, options.network))
    if options.json:
        print(json.dumps([dataclasses.asdict(line) for line in lines], indent=2))
    else:
        for line in lines:
            advice = f" -> {line.advice}" if line.advice else ""
            print(f"{line.status:<8} {line.name:<24} {line.found}{advice}")
    return int(any(line.status == WRONG for line in lines))


if __name__ == "__main__":
    sys.exit(main())
