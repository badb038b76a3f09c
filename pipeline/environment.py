"""What ML Metadata is told about the environment of a run or of a step."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from models.training import environment

_PACKAGES = ("tensorflow", "tfx")


def describe() -> dict[str, Any]:
    """Returns the versions `python`, `tensorflow` and `tfx`, and the git commit if it is known.

    `git_commit` and `git_changes` are as in `models.training.environment.describe`.
    """
    known = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        **environment.describe_code(),
    }
    return {name: value for name, value in known.items() if value is not None}
