"""What differs between two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lineage import facts, model
from lineage.model import Run

_METRICS = ("accuracy", "f1_macro", "loss", "calibration_error", "corrupted_accuracy")
_OUTCOME = ("state", "blessed", "refused_by", "pushed")


def between(a: Run, b: Run) -> dict[str, Any]:
    """Compares two runs.

    Returns:
      `a` and `b`, the ids; `data`, `schema`, `settings`, `hyperparameters`, `code`, `environment` and
      `outcome`, each a map of what differs -> {"a": ..., "b": ...}; `modules`, the modules of the code that
      differ, if the runner has noted them; `metrics`, with `a`, `b` and `change`; and `comparison`, what
      `components.model_report.compare` finds on the images of both reports, or `not_compared`, why it cannot.
    """
    facts_a, facts_b = facts.of_run(a), facts.of_run(b)
    compared, reason = _compare_reports(a, b)
    return {
        "a": a.id,
        "b": b.id,
        "data": _differences(_data(a), _data(b)),
        "schema": _differences(_content(a, model.SCHEMA), _content(b, model.SCHEMA)),
        "settings": _differences(_settings(a), _settings(b)),
        "hyperparameters": _differences(_hyperparameters(a, b), _hyperparameters(b, a)),
        "code": _differences(_code(a), _code(b)),
        "modules": sorted(_differences(_modules(a), _modules(b))),
        "environment": _differences(facts.environment(a), facts.environment(b)),
        "outcome": _differences(*({key: row[key] for key in _OUTCOME} for row in (facts_a, facts_b))),
        "metrics": {
            name: {"a": facts_a[name], "b": facts_b[name], "change": _change(facts_a[name], facts_b[name])}
            for name in _METRICS
            if facts_a[name] is not None or facts_b[name] is not None
        },
        "comparison": compared,
        "not_compared": reason,
    }


def _change(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else b - a


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    keys = dict.fromkeys([*a, *b])
    return {key: {"a": a.get(key), "b": b.get(key)} for key in keys if a.get(key) != b.get(key)}


def _data(run: Run) -> dict[str, Any]:
    examples = run.output(model.EXAMPLES)
    counts = {
        name: value
        for name, value in (examples.properties if examples else {}).items()
        if name.endswith("_examples")
    }
    return {"name": facts.of_run(run)["data"], "digest": facts.data_digest(run), **counts}


def _content(run: Run, kind: str) -> dict[str, Any]:
    """Returns the checksum of an artifact; without one, which artifact it is."""
    artifact = run.output(kind)
    if artifact is None:
        return {}
    checksum = artifact.properties.get("sha256")
    return {"sha256": checksum} if checksum else {"artifact": artifact.label}


def _settings(run: Run) -> dict[str, Any]:
    return {key: value for key, (value, _) in run.settings.items()}


def _hyperparameters(run: Run, other: Run) -> dict[str, Any]:
    """Returns what the Trainer used; where only the other run searched, what the settings of this one say."""
    settings = _settings(run) if run.hyperparameters else {}
    return {
        name: run.hyperparameters.get(name, settings.get(name))
        for name in [*run.hyperparameters, *other.hyperparameters]
    }


def _code(run: Run) -> dict[str, Any]:
    noted = (run.decoded("code") or {}).get("steps", {})
    return noted or {each.component: each.code for each in run.executions if each.code}


def _modules(run: Run) -> dict[str, Any]:
    """Returns the digests of modules, as noted by the runner, otherwise by the steps with their artifacts."""
    if noted := (run.decoded("code") or {}).get("modules"):
        return dict(noted)
    made = (artifact for each in run.executions for _, artifact in each.outputs)
    described = (model.decode(artifact.properties.get("modules")) or {} for artifact in made)
    return {module: digest for modules in described for module, digest in modules.items()}


def _compare_reports(a: Run, b: Run) -> tuple[dict[str, Any] | None, str | None]:
    folders = []
    for run in (a, b):
        report = run.output(model.REPORT)
        folder = report.folder if report else None
        if folder is None or not (folder / "predictions.parquet").is_file():
            return None, f"{run.id} has no report with predictions on this machine"
        folders.append(str(folder))
    # Loads SciPy, which the other commands do not need.
    from components.model_report import compare  # noqa: PLC0415

    try:
        return compare.compare_reports(*folders), None
    except (OSError, ValueError) as error:
        return None, str(error)
