import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Result:
    """The outcome of a runner: exit code, output, and the summary of `local_runner.py`."""

    returncode: int
    output: str
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def states(self) -> dict[str, str]:
        """State of each component, by id."""
        return {c["id"]: c["state"] for c in self.summary["components"]}

    @property
    def rerun(self) -> set[str]:
        """Ids of the components that ran instead of taking their results from the cache."""
        return {component for component, state in self.states.items() if state == "complete"}


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Environment variables for a process without network and with an empty cache folder."""
    unreachable = "http://127.0.0.1:9"
    return os.environ | {
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
        "HTTP_PROXY": unreachable,
        "HTTPS_PROXY": unreachable,
        "http_proxy": unreachable,
        "https_proxy": unreachable,
    }


def _execute(
    script: str, arguments: list[str], folder: Path, environment: dict[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture(scope="session")
def local_runner(environment, tmp_path_factory):
    """Runs `local_runner.py` as a user does, in a directory outside of the repository."""
    folder = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: str) -> Result:
        summary = folder / "summary.json"
        summary.unlink(missing_ok=True)
        process = _execute(
            "local_runner.py", [*arguments, "--summary", str(summary)], folder, environment, timeout_s=600
        )
        content = json.loads(summary.read_text()) if summary.exists() else {}
        return Result(process.returncode, process.stdout + process.stderr, content)

    return run


@pytest.fixture(scope="session")
def kubeflow_runner(environment, tmp_path_factory):
    """Runs `kubeflow_runner.py` in an empty directory, and checks that the directory stays empty."""
    folder = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: str) -> Result:
        process = _execute("kubeflow_runner.py", [*arguments], folder, environment, timeout_s=120)
        assert not any(folder.iterdir())
        return Result(process.returncode, process.stdout + process.stderr)

    return run
