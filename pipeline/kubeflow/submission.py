"""Submitting a compiled pipeline: what is asked for, and how its run is followed to its end."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.kubeflow import runtime_parameters
from settings.base import ConfigError
from settings.kubeflow import BackEnd
from settings.pipeline import PipelineConfig
from settings.places import pipeline_directory, serving_directory

State = Literal["waiting", "running", "done", "cached", "failed", "cancelled"]

_DESCRIPTIONS = {
    "vertex": "a PipelineJob of schema 2.0.0 for Vertex",
    "kfp": "a PipelineSpec of schema 2.1.0 for Kubeflow",
}
# What Vertex and Kubeflow call the states, of which some are spelt in two ways.
_STATES: dict[str, State] = {
    "RUNNING": "running",
    **dict.fromkeys(("CANCEL_PENDING", "CANCELING", "CANCELLING"), "running"),
    "SUCCEEDED": "done",
    "SKIPPED": "cached",
    "FAILED": "failed",
    **dict.fromkeys(("CANCELED", "CANCELLED"), "cancelled"),
}
# How long a back end may be unreachable while a run is followed.
PATIENCE_S = 600
# Between two questions to a back end. Steps take minutes.
_POLL_SECONDS = 10.0


class SubmissionError(RuntimeError):
    """A run that a back end did not take, or of which it says nothing more; the message is for people."""


@dataclasses.dataclass(frozen=True)
class Submission:
    """A compiled pipeline and what one run of it gets.

    Attributes:
      name: of the pipeline.
      compiled: the content of the file, the cache switched off where that was asked for.
      root: under which the run keeps its artifacts.
      parameters: the runtime parameters that were set; all others keep the defaults of the file.
    """

    name: str
    compiled: Mapping[str, Any]
    root: str
    parameters: Mapping[str, Any]

    @property
    def steps(self) -> list[str]:
        return list(_spec(self.compiled)["root"]["dag"]["tasks"])


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
      state: of the whole run.
      steps: states of the steps that the back end tells of.
      problems: what went wrong, as the back end says it; of a step with its name before it.
    """

    state: State
    steps: Mapping[str, State]
    problems: list[str]

    @property
    def has_ended(self) -> bool:
        return self.state not in ("waiting", "running")

    @property
    def has_succeeded(self) -> bool:
        return self.state in ("done", "cached")


def progress(state: str, steps: Mapping[str, tuple[str, str | None]], error: str | None) -> Progress:
    """Returns what a back end tells of a run.

    Args:
      state: of the run, in capitals.
      steps: state of each step, and what its error says, if it says anything.
      error: what that of the run says, if it says anything.
    """
    problems = [
        f"{name} failed: {message}" if message else f"{name} failed"
        for name, (step_state, message) in steps.items()
        if step_state == "FAILED"
    ]
    return Progress(
        state=_STATES.get(state, "waiting"),
        steps={name: _STATES.get(step_state, "waiting") for name, (step_state, _) in steps.items()},
        problems=[*problems, error] if error else problems,
    )


@dataclasses.dataclass(frozen=True)
class Submitted:
    """A run, or a schedule of runs, that a back end has taken.

    Attributes:
      link: of its page.
      look: asks the back end how far the run is; None for a schedule.
    """

    link: str
    look: Callable[[], Progress] | None


def read(file: Path, target: BackEnd, settings: PipelineConfig) -> Submission:
    """Reads a compiled pipeline, and applies to it what the command line sets.

    Args:
      file: as `compile` wrote it.
      target: what it has to be compiled for.
      settings: of the command line; what a preset alone sets counts for `kubeflow.<target>` and
        `kubeflow.cache`, since all else of a preset is compiled in.

    Raises:
      ConfigError: no such file, a file for something else, or a setting that cannot be changed any more.
    """
    compiled = _read(file, target)
    spec = _spec(compiled)
    name = spec["pipelineInfo"]["name"]
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    parameters = _parameters(file, name, target, settings, declared)
    if not settings.kubeflow.cache:
        for task in spec["root"]["dag"]["tasks"].values():
            task["cachingOptions"] = {"enableCache": False}
    if "root" in settings.keys_of_command_line():
        root = pipeline_directory(settings.root, name)
    elif target == "vertex":
        root = compiled["runtimeConfig"]["gcsOutputDirectory"]
    else:
        root = compiled["defaultPipelineRoot"]
    return Submission(name, compiled, root, parameters)


def _read(file: Path, target: BackEnd) -> dict[str, Any]:
    hint = f"expected what `compile --target {target}` wrote"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise ConfigError(f"--file {file}: {reason}; {hint}") from None
    try:
        compiled = yaml.safe_load(text)  # JSON is YAML, too.
    except yaml.YAMLError:
        compiled = None
    found = _target(compiled)
    if found is None:
        raise ConfigError(f"--file {file}: is no compiled pipeline; {hint}")
    if found != target:
        raise ConfigError(
            f"--file {file}: is {_DESCRIPTIONS[found]}; expected {_DESCRIPTIONS[target]}. Compile it with "
            f"--target {target}, or submit it with --target {found}"
        )
    return compiled


def _target(compiled: Any) -> BackEnd | None:
    """Returns what a file was compiled for; None if it is nothing that `compile` writes."""
    try:
        spec = _spec(compiled)
        if not (spec["pipelineInfo"]["name"] and spec["root"]["dag"]["tasks"]):
            return None
        if spec["schemaVersion"] == "2.0.0" and compiled["runtimeConfig"]["gcsOutputDirectory"]:
            return "vertex"
        if spec["schemaVersion"] == "2.1.0" and compiled["defaultPipelineRoot"]:
            return "kfp"
    except (AttributeError, KeyError, TypeError):
        pass
    return None


def _spec(compiled: Mapping[str, Any]) -> Any:
    return compiled.get("pipelineSpec", compiled)


def _parameters(
    file: Path, name: str, target: BackEnd, settings: PipelineConfig, declared: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the runtime parameters that the command line sets, by name; refuses what is none."""
    by_key = {parameter.key: parameter for parameter in runtime_parameters.PARAMETERS}
    values: dict[str, Any] = {}
    for key in settings.keys_of_command_line():
        if key == "kubeflow.cache" or key.startswith(f"kubeflow.{target}."):
            continue
        other = "kfp" if target == "vertex" else "vertex"
        if key.startswith(f"kubeflow.{other}."):
            raise ConfigError(f"{key} has no effect with --target {target}")
        parameter = by_key.get(key)
        if parameter is None:
            raise ConfigError(
                f"{key} is compiled into the file and cannot be set any more; compile it again. What a run "
                f"can set is {', '.join(by_key)}, kubeflow.cache and kubeflow.{target}.*"
            )
        if parameter.name not in declared:
            why = (
                "its Tuner chooses the value; compile with --no-tune"
                if parameter.is_tuned and "epochs" in declared
                else "compile it again"
            )
            raise ConfigError(f"{key}: {file} has no parameter {parameter.name}: {why}")
        value: Any = settings
        for part in key.split("."):
            value = getattr(value, part)
        if key == "root":
            value = serving_directory(value, name)
        values[parameter.name] = value
    return values


def to_json(submission: Submission) -> str:
    """Returns the compiled file with the parameters and the root of a run, for Vertex."""
    config = submission.compiled["runtimeConfig"]
    values = {
        name: runtime_parameters.legacy_value(name, value) for name, value in submission.parameters.items()
    }
    runtime = {
        **config,
        "gcsOutputDirectory": submission.root,
        "parameters": {**config.get("parameters", {}), **values},
    }
    return json.dumps({**submission.compiled, "runtimeConfig": runtime})


def follow(look: Callable[[], Progress], show: Callable[[str], None]) -> Progress:
    """Waits for the end of a run.

    Args:
      look: asks the back end.
      show: is called with a line for each change of a step.

    Returns:
      The last progress; it has ended.
    """
    shown: dict[str, State] = {}
    while True:
        progress = look()
        for step, state in progress.steps.items():
            if state != shown.get(step, "waiting"):
                show(f"{step:<18} {state}")
                shown[step] = state
        if progress.has_ended:
            return progress
        time.sleep(_POLL_SECONDS)
