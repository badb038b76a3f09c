"""Runs several workers of one training as processes on this machine."""

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
    """The exit status and the output of a process that has ended."""

    returncode: int
    output: str


def tf_configs(pools: Sequence[int]) -> list[str]:
    """Returns the TF_CONFIG of each replica as Vertex sets it, with free ports of this machine.

    Args:
      pools: number of replicas of the first worker pool, which is the chief's, and of the second.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_bound_socket()) for _ in range(sum(pools))]
        hosts = [f"localhost:{bound.getsockname()[1]}" for bound in sockets]
    cluster = {"chief": hosts[: pools[0]], "worker": hosts[pools[0] :]}
    return [
        json.dumps({"cluster": cluster, "task": {"type": job, "index": index}, "environment": "cloud"})
        for job, members in cluster.items()
        for index in range(len(members))
    ]


def run(count: int, *arguments: str) -> list[Ended]:
    """Runs `count` Python processes with these arguments as workers; the first is the chief."""
    command = [sys.executable, *arguments]
    return run_all([(command, {"TF_CONFIG": config}) for config in tf_configs([1, count - 1])])


def run_all(commands: Sequence[tuple[Sequence[str], dict[str, str]]]) -> list[Ended]:
    """Runs commands at the same time and waits for all of them.

    Args:
      commands: each command, with the variables that are added to this process's environment.
    """
    with contextlib.ExitStack() as stack:
        # The output goes to files: a process blocks when a pipe is full, and the others would wait for it.
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
def _bound_socket() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("localhost", 0))  # 0: any free port
        yield bound
