"""Workers that train together, as processes of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_TIMEOUT = 300  # seconds


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended, and what it printed."""

    returncode: int
    output: str


def tf_configs(pools: Sequence[int]) -> list[str]:
    """Returns what Vertex sets as TF_CONFIG in each replica, here on free ports of this machine.

    Args:
      pools: replicas of the first worker pool, the chief's, and of the second.
    """
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(_listening()) for _ in range(sum(pools))]
        hosts = [f"localhost:{listening.getsockname()[1]}" for listening in free]
    cluster = {"chief": hosts[: pools[0]], "worker": hosts[pools[0] :]}
    return [
        json.dumps({"cluster": cluster, "task": {"type": job, "index": index}, "environment": "cloud"})
        for job, members in cluster.items()
        for index in range(len(members))
    ]


def run(count: int, *arguments: str) -> list[Ended]:
    """Runs Python with these arguments as so many workers; the chief is the first."""
    command = [sys.executable, *arguments]
    return run_all([(command, {"TF_CONFIG": config}) for config in tf_configs([1, count - 1])])


def run_all(commands: Sequence[tuple[Sequence[str], dict[str, str]]]) -> list[Ended]:
    """Runs commands at the same time, each with what is in its environment besides that of this process."""
    with contextlib.ExitStack() as stack:
        # Files, since a process that fills a pipe would wait for others that wait for it.
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in commands]
        processes = [
            subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            for (command, environment), output in zip(commands, outputs, strict=True)
        ]
        try:
            codes = [process.wait(_TIMEOUT) for process in processes]
        finally:
            for process in processes:
                process.kill()
        return [Ended(code, _content(output)) for code, output in zip(codes, outputs, strict=True)]


def _content(file: tempfile._TemporaryFileWrapper) -> str:  # type: ignore[type-arg]
    file.seek(0)
    return file.read()


@contextlib.contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        yield listening
