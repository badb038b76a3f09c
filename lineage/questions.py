"""The answers of the commands, as values that JSON can hold."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import checksums
from lineage import facts, model, where
from lineage.model import Artifact, Run, Store

_VERSIONS_TYPE = "serving.versions"  # executions that record which version answers
_ROUTES_FILE = "versions.json"  # written by serving.versions beside the versions


def list_runs(
    store: Store, condition: str | None, sort: str | None, last: int | None, changed: bool
) -> list[dict[str, Any]]:
    """Lists the facts of runs.

    Args:
      store: what was read.
      condition: as in `lineage.where`; None takes all runs.
      sort: a fact by which the runs are sorted, descending with `-` before it; None keeps the order in which
        they began.
      last: number of runs, the newest; None takes all.
      changed: whether only the facts that differ between these runs are given, settings included; otherwise
        they are those of `facts.COLUMNS`.

    Raises:
      LineageError: the condition or the fact is not known.
    """
    rows = facts.of_runs(store.runs)
    known = dict.fromkeys(key for row in rows for key in row)
    if condition is not None:
        alternatives = where.parse(condition)
        for key, _, _ in (each for alternative in alternatives for each in alternative):
            if key not in known:
                raise facts.unknown_key(key, known)
        rows = [row for row in rows if where.holds(alternatives, row)]
    if last is not None:
        rows = rows[-last:]
    if sort is not None:
        key = sort.lstrip("-")
        if key not in known:
            raise facts.unknown_key(key, known)
        present = [row for row in rows if row.get(key) is not None]
        present.sort(key=lambda row: (isinstance(row[key], str), row[key]), reverse=sort.startswith("-"))
        rows = present + [row for row in rows if row.get(key) is None]
    shown = ["run", *(key for key in facts.differing(rows) if key != "run")] if changed else facts.COLUMNS
    return [{key: row.get(key) for key in shown} for row in rows]


def show(run: Run) -> dict[str, Any]:
    """Describes one run: its facts, components, settings, hyperparameters, trials and artifacts."""
    row = facts.of_run(run)
    summary = run.decoded("summary") or {}
    made = {artifact.id: (name, artifact) for each in run.executions for name, artifact in each.outputs}
    return {
        **{key: row[key] for key in facts.COLUMNS},
        "error": (summary.get("error") or {}).get("message"),
        "notes": summary.get("notes", []),
        "report": report_page(run),
        "environment": facts.environment(run),
        "components": [
            {
                "component": each.component,
                "state": each.state,
                "seconds": each.seconds,
                "cached_from": each.cached_from.id if each.cached_from else None,
                "code": each.code,
            }
            for each in run.executions
        ],
        "settings": [
            {"key": key, "value": value, "origin": origin} for key, (value, origin) in run.settings.items()
        ],
        "hyperparameters": run.hyperparameters,
        "trials": facts.trials(run),
        "artifacts": [_list_artifact(name, artifact) for name, artifact in made.values()],
    }


def report_page(run: Run) -> str | None:
    """Returns the place of the report's page; None if the run has no report, or `clean` has taken it away."""
    report = run.output(model.REPORT)
    return posixpath.join(report.uri, "index.html") if report and report.state == model.LIVE else None


def _list_artifact(output: str, artifact: Artifact) -> dict[str, Any]:
    size = artifact.properties.get("bytes")
    folder = artifact.folder
    if size is None and artifact.state == model.LIVE and folder and folder.exists():
        size = checksums.size_of(folder)
    made_by = artifact.made_by
    return {
        "id": artifact.id,
        "type": artifact.type,
        "output": output,
        "made_by": made_by.component if made_by else None,
        "state": artifact.state,
        "note": artifact.refusal,
        "bytes": size,
        "uri": artifact.uri,
    }


def find(store: Store, conditions: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Finds artifacts and runs by their properties.

    Args:
      store: what was read.
      conditions: `KEY=VALUE` and the other comparisons of `lineage.where`, which must all hold. Keys of
        artifacts are `id`, `type`, `uri`, `state`, `component`, `run`, the names of properties, and the
        settings of the run that made them.

    Returns:
      `runs` and `artifacts`.

    Raises:
      LineageError: a condition is not of this form, or nothing in the store has one of the keys.
    """
    alternatives = where.parse(" and ".join(conditions))
    runs = facts.of_runs(store.runs)
    artifacts = [(artifact, _searched(artifact)) for artifact in store.artifacts]
    known = dict.fromkeys(key for row in [*runs, *(found for _, found in artifacts)] for key in row)
    for key, _, _ in alternatives[0]:
        if key not in known:
            raise facts.unknown_key(key, known, "a run or an artifact")
    # Types are found with and without the prefix of Kubeflow and Vertex.
    alternatives[0] = [
        (key, operator, model.bare_type(str(value)) if key == "type" else value)
        for key, operator, value in alternatives[0]
    ]
    return {
        "runs": [{key: row[key] for key in facts.COLUMNS} for row in runs if where.holds(alternatives, row)],
        "artifacts": [
            {
                **{key: found[key] for key in ("id", "type", "component", "run", "state")},
                **{key: found.get(key) for key, _, _ in alternatives[0]},
                "note": artifact.refusal,
                "uri": artifact.uri,
            }
            for artifact, found in artifacts
            if where.holds(alternatives, found) or _short_type_holds(artifact, found, alternatives)
        ],
    }


def near_values(store: Store, conditions: str) -> list[str]:
    """Lists values that somebody may have meant by those of conditions which nothing in the store has.

    Args:
      store: what was read.
      conditions: as in `lineage.where`, about facts that there are.

    Returns:
      `KEY=VALUE` texts, at most three for each condition.
    """
    described = [*(facts.of_run(run) for run in store.runs), *map(_searched, store.artifacts)]
    near = []
    for key, sign, value in (each for alternative in where.parse(conditions) for each in alternative):
        texts = {str(row[key]) for row in described if isinstance(row.get(key), str)}
        if key == "type":
            texts |= {name.rpartition(".")[2] for name in texts}
        if sign == "=" and isinstance(value, str) and value not in texts:
            near += [f"{key}={text}" for text in facts.near_words(value, sorted(texts))]
    return near


def _searched(artifact: Artifact) -> dict[str, Any]:
    made_by = artifact.made_by
    settings = made_by.run.settings if made_by and made_by.run else {}
    return {
        **{key: value for key, (value, _) in settings.items()},
        **artifact.facts,
        "id": artifact.id,
        "type": artifact.type,
        "uri": artifact.uri,
        "state": artifact.state,
        "component": made_by.component if made_by else None,
        "run": made_by.run.id if made_by and made_by.run else None,
    }


def _short_type_holds(artifact: Artifact, found: dict[str, Any], alternatives: list) -> bool:
    """Returns whether conditions hold if the type is written without its package."""
    short = artifact.type.rpartition(".")[2]
    return short != artifact.type and where.holds(alternatives, {**found, "type": short})


def serving(store: Store) -> list[dict[str, Any]]:
    """Lists the pushed versions, and what `serving.versions` has recorded, the oldest first."""
    pushed = [artifact for artifact in store.of_type(model.PUSHED) if artifact.properties.get("pushed")]
    changes = version_changes(store)
    rows: list[dict[str, Any]] = []
    for artifact in pushed:
        place = str(artifact.properties.get("pushed_destination", ""))
        base = posixpath.dirname(place)
        later = [each for each in pushed if _base(each) == base and each.created > artifact.created]
        run = artifact.made_by.run if artifact.made_by else None
        row = facts.of_run(run) if run else {}
        version, name = facts.version_of(artifact), posixpath.basename(base)
        served = _is_served(place, base)
        replacement = (None, None) if served else _replacement(version, name, later, changes)
        rows.append(
            {
                "version": version,
                "model": name,
                "served": served,
                "pushed_at": facts.moment(artifact.created),
                **{key: row.get(key) for key in ("run", "data", "accuracy", "f1_macro")},
                "replaced_by": replacement[0],
                "replaced_at": replacement[1],
                "place": place,
            }
        )
    return rows


def _replacement(
    version: str | None, name: str, later: Sequence[Artifact], changes: Sequence[dict[str, Any]]
) -> tuple[str | None, str | None]:
    """Returns which version took the place of one that answers no more, and when.

    Args:
      version: the version.
      name: name of the model.
      later: versions that were pushed after it, the oldest first.
      changes: from `version_changes`.
    """
    # A promotion, or the return to another version.
    taken = [each for each in changes if each.get("model") == name and str(each.get("previous")) == version]
    if taken:
        return str(taken[-1].get("stable")), taken[-1]["when"]
    return (facts.version_of(later[0]), facts.moment(later[0].created)) if later else (None, None)


def version_changes(store: Store) -> list[dict[str, Any]]:
    """Lists what `serving.versions` has recorded: promotions, returns and trials, the oldest first."""
    return [
        {"when": facts.moment(each.created), **each.properties}
        for each in store.executions
        if each.type == _VERSIONS_TYPE
    ]


def _base(pushed: Artifact) -> str:
    return posixpath.dirname(str(pushed.properties.get("pushed_destination", "")))


def _is_served(place: str, base: str) -> bool | None:
    """Returns whether a version answers; None if its place is not on this machine."""
    if "://" in place:
        return None
    folder, version = Path(base), posixpath.basename(place)
    if not Path(place).is_dir():
        return False
    try:
        routes = json.loads((folder / _ROUTES_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        routes = {}
    stable = routes.get("stable")
    present = [int(each.name) for each in folder.iterdir() if each.name.isdecimal()]
    present = [number for number in present if number not in (routes.get("canary"), routes.get("shadow"))]
    return int(version) == (stable if stable is not None else max(present, default=None))
