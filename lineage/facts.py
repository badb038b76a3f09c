"""What people ask about a run, as one dictionary of named facts."""

from __future__ import annotations

import datetime
import difflib
import json
import math
import posixpath
from collections.abc import Iterable, Sequence
from typing import Any

from lineage import model
from lineage.model import Artifact, LineageError, Run, Store

# The columns of a table of runs.
COLUMNS = (
    "run",
    "when",
    "name",
    "data",
    "model",
    "state",
    "accuracy",
    "f1_macro",
    "blessed",
    "pushed",
    "seconds",
)
ENVIRONMENT = ("tensorflow", "tfx", "python", "git_commit", "git_changes")
_LAST = "last"
_NEAR = 3  # similar names that a message proposes


def of_run(run: Run) -> dict[str, Any]:
    """Returns the facts of a run: those of `COLUMNS`, its environment, and its settings by their keys.

    A fact that the store does not have is None. `pushed` is the number of the pushed version.
    """
    report, blessing, pushed = (run.output(kind) for kind in (model.REPORT, model.BLESSING, model.PUSHED))
    figures = report.properties if report else {}
    dataset = run.output(model.DATASET)
    architecture = run.settings.get("model.architecture", (None, ""))[0]
    return {
        "run": run.id,
        "when": moment(run.created),
        "name": run.pipeline,
        "data": run.properties.get("data") or (posixpath.basename(dataset.uri) if dataset else None),
        "model": run.properties.get("model") or architecture,
        "state": run.state,
        "accuracy": figures.get("accuracy"),
        "f1_macro": figures.get("f1_macro"),
        "blessed": bool(blessing.properties.get("blessed")) if blessing else None,
        "pushed": version_of(pushed) if pushed else None,
        "seconds": run.properties.get("seconds", _seconds(run)),
        "calibration_error": figures.get("calibration_error"),
        "loss": figures.get("loss"),
        "data_digest": data_digest(run),
        **environment(run),
        **{f"hyperparameters.{key}": value for key, value in hyperparameters(run).items()},
        **{key: value for key, (value, _) in run.settings.items() if key not in COLUMNS},
    }


def environment(run: Run) -> dict[str, Any]:
    """Returns versions and the git commit.

    The runner notes them, on Kubeflow and Vertex the step of the Trainer. Otherwise the Trainer has written
    them into its files.
    """
    trained = run.output(model.MODEL_RUN)
    for properties in (run.properties, trained.properties if trained else {}):
        noted = {key: properties.get(key) for key in ENVIRONMENT}
        if any(value is not None for value in noted.values()):
            if noted["git_changes"] is not None:
                noted["git_changes"] = bool(noted["git_changes"])
            return noted
    written = read_json(trained, "environment.json") or {}
    packages = written.get("packages", {})
    return {**noted, **written, **packages} if written else noted


def hyperparameters(run: Run) -> dict[str, Any]:
    """Returns the values that the Trainer used: name -> value; empty if the store and its files lack them."""
    summary = run.decoded("summary") or {}
    if found := summary.get("hyperparameters"):
        return dict(found)
    written = read_json(run.output(model.MODEL_RUN), "hyperparameters.json") or {}
    return {name: entry["value"] for name, entry in written.items()}


def trials(run: Run) -> list[dict[str, Any]]:
    """Returns the trials of the Tuner; empty if there was none, or its files are not on this machine."""
    return read_json(run.output(model.TUNER_RESULTS), "tuner_results.json") or []


def data_digest(run: Run) -> str | None:
    """Returns the digest of the content of the run's data."""
    dataset, examples = run.output(model.DATASET), run.output(model.EXAMPLES)
    for artifact, name in ((examples, "input_fingerprint"), (dataset, "digest")):
        if artifact and artifact.properties.get(name):
            return str(artifact.properties[name])
    return None


def version_of(pushed: Artifact) -> str | None:
    """Returns the number of a pushed version; None if the model was not pushed."""
    if not pushed.properties.get("pushed"):
        return None
    version = pushed.properties.get("pushed_version")
    return str(version or posixpath.basename(str(pushed.properties.get("pushed_destination", ""))))


def read_json(artifact: Artifact | None, name: str) -> Any:
    """Reads a JSON file of an artifact; None if it is not on this machine."""
    if artifact is None or artifact.folder is None:
        return None
    try:
        return json.loads((artifact.folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def moment(milliseconds: int) -> str:
    """Returns a time, in the zone of this machine, as `2026-01-31 14:05:09`."""
    return datetime.datetime.fromtimestamp(milliseconds / 1000).isoformat(" ", "seconds")


def find_run(store: Store, name: str) -> Run:
    """Finds a run by its id, by the beginning of its id, or as `last`.

    Raises:
      LineageError: there is no such run, or several begin so.
    """
    if not store.runs:
        raise LineageError(f"{store.place} holds no runs yet")
    if name == _LAST:
        return store.runs[-1]
    found = [run for run in store.runs if run.id == name] or [
        run for run in store.runs if run.id.startswith(name) and name
    ]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(run.id for run in found[:_NEAR])
        raise LineageError(f"{name}: {len(found)} runs begin so, among them {listed}; give more of the id")
    ids = [run.id for run in store.runs]
    near = difflib.get_close_matches(name, ids, _NEAR, 0.3) or ids[-_NEAR:]
    shown = name or "''"
    raise LineageError(f"{shown}: no such run in {store.place}; near ones are {', '.join(near)}")


def differing(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lists the keys whose values differ between the rows that have them, in the order of appearance."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if len({json.dumps(row[key], default=str) for row in rows if key in row}) > 1]


def unknown_key(key: str, known: Iterable[str]) -> LineageError:
    """Describes a name of a fact that there is not, with similar ones."""
    known = list(known)
    near = difflib.get_close_matches(key, known, _NEAR, 0.5)
    near += [name for name in known if name.endswith(f".{key}") and name not in near]
    listed = ", ".join(near) or ", ".join(COLUMNS)
    return LineageError(f"{key}: there is no such fact of a run; did you mean {listed}?")


def _seconds(run: Run) -> float | None:
    """Adds what the components took, where the runner has not noted the whole."""
    taken = [each.seconds for each in run.executions if each.seconds is not None]
    return round(math.fsum(taken), 2) if taken else None
