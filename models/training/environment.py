"""The environment of a training: package versions, hardware, git commit and memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
from pathlib import Path
from typing import Any

import tensorflow as tf

_PACKAGES = (
    "tensorflow",
    "keras",
    "keras-tuner",
    "tfx",
    "tensorflow-transform",
    "tensorflow-model-analysis",
    "apache-beam",
    "scikit-learn",
    "numpy",
)
_PROJECT = Path(__file__).resolve().parents[2]
# Environment variable of the container image, which has no repository: the commit that it was built from,
# with the suffix if tracked files differed from it.
_COMMIT_VARIABLE, _DIRTY = "PIPELINE_GIT_COMMIT", "-dirty"


def describe(training_seconds: float, precision: str, workers: int = 1) -> dict[str, Any]:
    """Describes the process in which a training has just ended.

    Args:
      training_seconds: duration of the training, including that of killed processes from which it resumed.
      precision: precision in which the network computed, `float32` or `mixed_bfloat16`.
      workers: number of processes that trained together, this one included.

    Returns:
      `python` (version), `packages` (name -> version), `cpus` (number), `gpus` (names), `peak_memory_bytes`
      (of this process since it started), `git_commit`, `git_changes` (whether the project's tracked files
      differ from the commit), `training_seconds`, `precision` and `workers`. In a container, `git_commit` and
      `git_changes` are what its image was built from. They are None without git, or if the project is not the
      root of a git repository.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "cpus": len(os.sched_getaffinity(0)),
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")
        ],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **describe_code(),
        "training_seconds": training_seconds,
        "precision": precision,
        "workers": workers,
    }


def describe_code() -> dict[str, Any]:
    """Returns `git_commit` and `git_changes`, as `describe` does."""
    if built_from := os.environ.get(_COMMIT_VARIABLE):
        return {"git_commit": built_from.removesuffix(_DIRTY), "git_changes": built_from.endswith(_DIRTY)}
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "git_commit": commit,
        "git_changes": None if commit is None or changes is None else bool(changes),
    }


def _git(*arguments: str) -> str | None:
    """Returns git's output for this project; None without git or a repository of the project's own."""
    if not (_PROJECT / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(_PROJECT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
