"""What an artifact was made of, and what was made of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lineage import facts, model
from lineage.model import Artifact, Execution, LineageError, Run, Store

# Properties of artifacts that a tree shows.
_SHOWN = (
    *("digest", "input_fingerprint", "sha256", "accuracy", "f1_macro", "blessed"),
    *("pushed", "pushed_destination", "pushed_version"),
)


def find_artifact(store: Store, name: str) -> Artifact:
    """Finds the artifact that a name stands for.

    Args:
      store: what was read.
      name: the number of an artifact, with or without `#`; its URI or a place below it; the place of a pushed
        version; or a run, which stands for its model, or for its newest artifact if it has none.

    Raises:
      LineageError: there is no such artifact.
    """
    number = name.removeprefix("#")
    by_id = next((artifact for artifact in store.artifacts if artifact.id == number), None)
    if by_id:
        return by_id
    if found := _at(store, name):
        return found
    is_number = number.isdecimal() and not any(run.id.startswith(name) for run in store.runs)
    if is_number and store.artifacts:
        raise LineageError(
            f"{name}: {store.place} has no artifact of this number; the newest is #{store.artifacts[-1].id}"
        )
    if "/" in name or Path(name).is_file():
        raise LineageError(
            f"{name}: no artifact and no pushed version of {store.place} is there; expected a path such as "
            f"{store.artifacts[-1].uri if store.artifacts else 'runs/serving/NAME/VERSION'}"
        )
    run = facts.find_run(store, name)
    if not (artifact := run.output(model.MODEL) or _newest(run)):
        raise LineageError(f"{run.id} has made no artifact")
    return artifact


def _newest(run: Run) -> Artifact | None:
    return next((artifact for each in reversed(run.executions) for _, artifact in each.outputs), None)


def _at(store: Store, name: str) -> Artifact | None:
    """Returns the newest artifact at a place or around it."""
    place = name.rstrip("/") if "://" in name else str(Path(name).absolute())
    if "/" not in name and not Path(name).exists():
        return None
    place = os.path.normpath(place) if "://" not in place else place
    for artifact in reversed(store.artifacts):
        for uri in (artifact.uri, str(artifact.properties.get("pushed_destination", ""))):
            if uri and (place == uri or place.startswith(f"{uri.rstrip('/')}/")):
                return artifact
    return None


def of_artifact(artifact: Artifact) -> dict[str, Any]:
    """Describes an artifact with its whole lineage.

    Returns:
      The artifact's `id`, `type`, `uri`, `state`, `created` and `facts`; under `made_by` the execution with
      its `inputs`, each with what it was made by; under `used_by` the executions with their `outputs`, and
      under `as` the names of the input that the artifact was. What was described before is only named, with
      `repeated`.
    """
    described = _describe(artifact)
    seen = {artifact.id}
    described["made_by"] = _up(artifact.made_by, seen) if artifact.made_by else None
    described["used_by"] = [_down(execution, artifact, seen) for execution in artifact.used_by]
    return described


def related(artifact: Artifact) -> tuple[list[Artifact], list[Execution]]:
    """Lists all artifacts and executions from which an artifact comes, and those that come from it."""
    artifacts: dict[str, Artifact] = {}
    executions: dict[str, Execution] = {}

    def ascend(each: Artifact) -> None:
        artifacts[each.id] = each
        if each.made_by and each.made_by.id not in executions:
            executions[each.made_by.id] = each.made_by
            for _, source in each.made_by.inputs:
                ascend(source)

    def descend(each: Artifact) -> None:
        artifacts[each.id] = each
        for execution in _makers(each):
            if execution.id not in executions:
                executions[execution.id] = execution
                for _, made in execution.outputs:
                    descend(made)

    ascend(artifact)
    descend(artifact)
    by_number = [
        sorted(found.values(), key=lambda each: _number(each.id)) for found in (artifacts, executions)
    ]
    return by_number[0], by_number[1]  # type: ignore[return-value]


def _number(text: str) -> tuple[int, str]:
    return (int(text) if text.isdecimal() else 0), text


def _makers(artifact: Artifact) -> list[Execution]:
    """Lists the executions that used an artifact and made something new of it."""
    return [each for each in artifact.used_by if each.state != model.CACHED and not model.is_resolved(each)]


def _describe(artifact: Artifact) -> dict[str, Any]:
    return {
        "id": artifact.id,
        "type": artifact.type,
        "uri": artifact.uri,
        "state": artifact.state,
        "created": facts.moment(artifact.created),
        "note": artifact.refusal,
        "facts": {name: artifact.facts[name] for name in _SHOWN if name in artifact.properties},
    }


def _describe_execution(execution: Execution) -> dict[str, Any]:
    run = execution.run
    trained = execution.component in ("Trainer", "Tuner") and run
    return {
        "component": execution.component,
        "execution": execution.id,
        "run": run.id if run else None,
        "when": facts.moment(execution.created),
        "state": execution.state,
        "seconds": execution.seconds,
        "code": execution.code,
        "settings": changed_settings(run) if trained and run else {},
    }


def changed_settings(run: Run) -> dict[str, Any]:
    """Returns the settings of a run that are not defaults: key -> value and origin."""
    return {
        key: {"value": value, "origin": origin}
        for key, (value, origin) in run.settings.items()
        if origin != "default"
    }


def _up(execution: Execution, seen: set[str]) -> dict[str, Any]:
    inputs = []
    for name, artifact in execution.inputs:
        described: dict[str, Any] = {"input": name, **_describe(artifact)}
        if artifact.id in seen:
            described["repeated"] = True
        else:
            seen.add(artifact.id)
            described["made_by"] = _up(artifact.made_by, seen) if artifact.made_by else None
        inputs.append(described)
    return {**_describe_execution(execution), "inputs": inputs}


def _down(execution: Execution, source: Artifact, seen: set[str]) -> dict[str, Any]:
    outputs = []
    if execution.state != model.CACHED and not model.is_resolved(execution):
        for name, artifact in execution.outputs:
            described: dict[str, Any] = {"output": name, **_describe(artifact)}
            if artifact.id in seen:
                described["repeated"] = True
            else:
                seen.add(artifact.id)
                described["used_by"] = [_down(each, artifact, seen) for each in artifact.used_by]
            outputs.append(described)
    names = [name for name, artifact in execution.inputs if artifact is source]
    return {"as": ", ".join(names), **_describe_execution(execution), "outputs": outputs}
