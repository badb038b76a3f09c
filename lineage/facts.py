"""What people ask about a run, as one dictionary of named facts."""

from __future__ import annotations

import datetime
import difflib
import json
import math
import posixpath
import time
from collections.abc import Iterable, Mapping, Sequence
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
    "refused_by",
    "pushed",
    "seconds",
)
ENVIRONMENT = ("tensorflow", "tfx", "python", "git_commit", "git_changes")
HYPERPARAMETERS = "hyperparameters."  # before the names of these facts
_TRIALS = "trials.parquet"  # written by the Tuner
# Who has to bless a model before it is pushed: component -> type of its verdict.
_JUDGES = {"Evaluator": model.BLESSING, "ServingCheck": model.SERVING_BLESSING}
_LAST = "last"
_NEAR = 3  # similar names that a message proposes
_LEAST_ID = 8  # characters of a shortened id of a run


def of_run(run: Run) -> dict[str, Any]:
    """Returns the facts of a run: those of `COLUMNS`, its environment, and its settings by their keys.

    A setting has the value that was used, which is the Tuner's if it chose one.

    A fact that the store does not have is None. `blessed` tells whether the model may be pushed, `refused_by`
    which components refused it, and `pushed` is the number of the pushed version.
    """
    report, pushed = run.output(model.REPORT), run.output(model.PUSHED)
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
        **_verdict(run),
        "pushed": version_of(pushed) if pushed else None,
        "seconds": _seconds(run),
        "calibration_error": figures.get("calibration_error"),
        "corrupted_accuracy": figures.get("corrupted_accuracy"),
        "loss": figures.get("loss"),
        "data_digest": data_digest(run),
        **environment(run),
        **{f"{HYPERPARAMETERS}{key}": value for key, value in run.hyperparameters.items()},
        **{key: value for key, (value, _) in run.settings.items() if key not in COLUMNS},
    }


def of_runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns the facts of several runs.

    A run whose settings are known has all settings of the others, too: None for those that it lacks, as a
    limit of a search that it does not have. One whose settings are unknown has none of them.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in COLUMNS)
    rows = [of_run(run) for run in runs]
    for run, row in zip(runs, rows, strict=True):
        if run.settings:
            row |= {key: None for key in keys if key not in row}
    return rows


def _verdict(run: Run) -> dict[str, Any]:
    """Returns `blessed` and `refused_by`; a model is pushed only if Evaluator and ServingCheck bless it."""
    found = {component: run.output(kind) for component, kind in _JUDGES.items()}
    verdicts = {name: verdict.facts.get("blessed") if verdict else None for name, verdict in found.items()}
    refusing = [name for name, blessed in verdicts.items() if blessed is False]
    waited_for = [name for name, blessed in verdicts.items() if blessed is None and _is_due(run, name)]
    blessed = False if refusing else None if waited_for else True
    return {"blessed": blessed, "refused_by": ", ".join(refusing) or None}


def _is_due(run: Run, component: str) -> bool:
    """Returns whether a verdict is needed; runs of old versions of this project have no ServingCheck."""
    return component == "Evaluator" or run.execution(component) is not None


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
    written = (trained.read_json("environment.json") if trained else None) or {}
    packages = written.get("packages", {})
    return {**noted, **written, **packages} if written else noted


def trials(run: Run) -> list[dict[str, Any]]:
    """Returns the trials of the Tuner, failed ones, too; empty if their table is not on this machine.

    Returns:
      For each trial its number from 1 (`trial`), `state`, `score`, the `reason` of a failure, `epochs`,
      `seconds`, and the values of the searched settings by their dotted keys.
    """
    results = run.output(model.TUNER_RESULTS)
    file = results.folder / _TRIALS if results and results.folder else None
    if file is None or not file.is_file():
        return []
    from pyarrow import parquet  # noqa: PLC0415 - takes a tenth of a second, and most runs have no Tuner.

    table = parquet.read_table(file)
    search = json.loads(table.schema.metadata[b"search"])
    return [
        {
            **{name: row[name] for name in ("trial", "state", "score", "reason", "epochs", "seconds")},
            **{
                key: json.loads(row[key]) if key in search["json"] else row[key] for key in search["settings"]
            },
        }
        for row in table.to_pylist()
    ]


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
    near = _near_runs(name, [run.id for run in store.runs]) if name else []
    advice = f"did you mean {', '.join(near)}?" if near else f"the newest is {store.runs[-1].id}"
    raise LineageError(f"{name or repr(name)}: no such run in {store.place}; {advice}")


def _near_runs(name: str, ids: Sequence[str]) -> list[str]:
    """Lists ids, the newest first, whose beginnings are similar to what was given for one."""
    if difflib.get_close_matches(name, [_LAST], 1, 0.7):
        return [_LAST]
    beginnings = {run[: len(name)]: run for run in ids}
    return [beginnings[near] for near in difflib.get_close_matches(name, beginnings, _NEAR, 0.8)]


def short_ids(store: Store) -> dict[str, str]:
    """Returns for the id of each run the shortest beginning that names only this run.

    All have the same length, and end where a word or a number of the id ends.
    """
    ids = [run.id for run in store.runs]
    for length in range(_LEAST_ID, max(map(len, ids), default=0)):
        short = {run: run[:length] for run in ids}
        if len(set(short.values())) == len(ids) and not any(
            run[length : length + 1].isalnum() for run in ids
        ):
            return short
    return {run: run for run in ids}


def differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lists the keys whose values differ between the rows that have them, in the order of appearance.

    A hyperparameter that is a setting, too, counts as that.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    values = {
        key: [row[key] for row in rows if key in row]
        for key in keys
        if not (key.startswith(HYPERPARAMETERS) and key.removeprefix(HYPERPARAMETERS) in keys)
    }
    return [key for key, found in values.items() if any(value != found[0] for value in found)]


def unknown_key(key: str, known: Iterable[str], what: str = "a run") -> LineageError:
    """Describes a name of a fact that there is not, with similar ones.

    Args:
      key: the name.
      known: the names that there are.
      what: of which the fact would be.
    """
    near = near_words(key, list(known))
    advice = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(COLUMNS)}, and settings"
    return LineageError(f"{key or repr(key)}: there is no such fact of {what}; {advice}")


def near_words(word: str, known: Sequence[str]) -> list[str]:
    """Lists names that somebody may have meant: those whose last part it is, otherwise similar ones."""
    ends = [name for name in known if name.rpartition(".")[2].lower() == word.lower()]
    return ends[:_NEAR] or difflib.get_close_matches(word, known, _NEAR, 0.7)


def _seconds(run: Run) -> float | None:
    """Returns how long a run took, or has been running; None if it never ended, since nothing tells when."""
    if (noted := run.properties.get("seconds")) is not None:
        return float(noted)
    if run.state == model.RUNNING:
        return round(time.time() - run.created / 1000, 2)
    if run.state in (model.ABANDONED, model.UNCONFIRMED):
        return None
    # Where the runner has not noted the whole, the components tell.
    taken = [each.seconds for each in run.executions if each.seconds is not None]
    return round(math.fsum(taken), 2) if taken else None
