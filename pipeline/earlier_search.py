"""Reads the hyperparameters that an earlier search has found, for `--hyperparameters`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from settings import search
from settings.base import ConfigError


def read(source: str, root: Path) -> dict[str, Any]:
    """Reads hyperparameters.

    Args:
      source: a file: `hyperparameters.json` of a Trainer, `best_hyperparameters.txt` of a Tuner, or a JSON
        object with values by dotted keys. Otherwise the run, as `python -m lineage` names it, whose Trainer
        used them.
      root: folder of the runs.

    Returns:
      Values of settings by their dotted keys.

    Raises:
      ConfigError: there is no such file or run, or it has no hyperparameters.
    """
    found = _read_file(Path(source)) if Path(source).is_file() else _read_run(source, root)
    if not found:
        raise ConfigError(f"--hyperparameters {source}: it has no hyperparameters")
    return found


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--hyperparameters {path}: expected a JSON file: {error}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"--hyperparameters {path}: expected a JSON object, found {type(content).__name__}")
    if isinstance(content.get("values"), Mapping):  # written by TFX's Tuner
        return search.decode(content["values"])
    return {
        key: entry["value"] if isinstance(entry, Mapping) and "value" in entry else entry
        for key, entry in content.items()
    }


def _read_run(name: str, root: Path) -> dict[str, Any]:
    # Only this flag needs the packages that read ML Metadata.
    from lineage import facts, opening  # noqa: PLC0415
    from lineage.model import LineageError  # noqa: PLC0415

    try:
        return facts.find_run(opening.read(root), name).hyperparameters
    except LineageError as error:
        raise ConfigError(f"--hyperparameters {name}: no such file, and as a run: {error}") from None
