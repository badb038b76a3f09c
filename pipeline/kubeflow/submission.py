"""Prepares the submission of a compiled pipeline and follows its run; independent of the back end."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from datasets import digest
from pipeline.kubeflow import runtime_parameters
from settings.base import ConfigError
from settings.kubeflow import BackEnd, KfpConfig, VertexConfig
from settings.kubernetes import PodConfig
from settings.pipeline import PipelineConfig
from settings.places import (
    DATA_URI,
    LOCAL_COPIES,
    check_reachable,
    pipeline_directory,
    scheme_and_bucket,
    serving_directory,
)

State = Literal["waiting", "running", "done", "cached", "failed", "cancelled"]

# Description of a compiled file, for messages.
_DESCRIPTIONS = {
    "vertex": "a PipelineJob of schema 2.0.0 for Vertex",
    "kfp": "a PipelineSpec of schema 2.1.0 for Kubeflow",
}
# The states' names on Vertex and Kubeflow, some in two spellings; all other names mean `waiting`.
_STATES: dict[str, State] = {
    "RUNNING": "running",
    **dict.fromkeys(("CANCEL_PENDING", "CANCELING", "CANCELLING"), "running"),
    "SUCCEEDED": "done",
    "SKIPPED": "cached",
    "FAILED": "failed",
    **dict.fromkeys(("CANCELED", "CANCELLED"), "cancelled"),
}
# Seconds for which a back end may be unreachable while a run is followed.
PATIENCE_S = 600
# Interval between two polls of a back end; steps take minutes.
_POLL_SECONDS = 10.0


class SubmissionError(RuntimeError):
    """A back end refused a run or cannot be reached, or the run failed; the message is for the user."""


@dataclasses.dataclass(frozen=True)
class Submission:
    """A compiled pipeline with the values of one run.

    Attributes:
      name: name of the pipeline.
      compiled: the content of the file, with the cache disabled if `kubeflow.cache` is false.
      root: the folder or URI below which the run writes its artifacts.
      parameters: values of runtime parameters that differ from the defaults in the file, by name.
    """

    name: str
    compiled: Mapping[str, Any]
    root: str
    parameters: Mapping[str, Any]

    @property
    def steps(self) -> list[str]:
        """Names of the steps."""
        return list(_tasks(_spec(self.compiled)))


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a run.

    Attributes:
      state: state of the whole run.
      steps: states of the steps that the back end reports, by name.
      problems: error messages of the back end; that of a step begins with the step's name.
    """

    state: State
    steps: Mapping[str, State]
    problems: list[str]

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended, successfully or not."""
        return self.state not in ("waiting", "running")

    @property
    def has_succeeded(self) -> bool:
        """Whether the run has ended successfully."""
        return self.state in ("done", "cached")


def progress(state: str, steps: Mapping[str, tuple[str, str | None]], error: str | None) -> Progress:
    """Converts the answer of a back end to a Progress.

    Args:
      state: the back end's state of the run, in capitals.
      steps: name of a step -> (the back end's state of the step, its error message if there is one).
      error: error message of the run, if there is one.

    Returns:
      The progress; it names every failed step as a problem.
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
    """A run, or a schedule of runs, that a back end has accepted.

    Attributes:
      link: URL of its page.
      poll: reads the progress of the run from the back end; None for a schedule.
    """

    link: str
    poll: Callable[[], Progress] | None


def read(file: Path, target: BackEnd, settings: PipelineConfig) -> Submission:
    """Reads a compiled pipeline and applies the settings of one run.

    Args:
      file: a file that `compile` wrote.
      target: the target that it must be compiled for.
      settings: the settings of the run. Those of the command line become runtime parameters. Of a preset,
        only `kubeflow.<target>` and `kubeflow.cache` are used, since the others are compiled into the file.

    Returns:
      The compiled pipeline with the parameters and the root of the run.

    Raises:
      ConfigError: the file cannot be read or is compiled for another target, or the command line sets
        something that a run cannot change.
    """
    compiled = _read(file, target)
    spec = _spec(compiled)
    name = spec["pipelineInfo"]["name"]
    declared = _declared(spec)
    parameters = _parameters(file, name, target, settings, declared)
    if not settings.kubeflow.cache:
        for task in _tasks(spec).values():
            task["cachingOptions"] = {"enableCache": False}
    elif parameters.get(runtime_parameters.DATA_DIGEST) == digest.ANY and "ImportExampleGen" in _tasks(spec):
        # Nobody knows whether the cached examples are those that are at this place now.
        _tasks(spec)["ImportExampleGen"]["cachingOptions"] = {"enableCache": False}
    if "root" in settings.keys_of_command_line():
        root = pipeline_directory(settings.root, name)
    elif target == "vertex":
        root = compiled["runtimeConfig"]["gcsOutputDirectory"]
    else:
        root = compiled["defaultPipelineRoot"]
    return Submission(name, compiled, root, parameters)


def check_places(request: Submission, target: BackEnd, settings: PipelineConfig) -> None:
    """Checks the places that the command line sets, as compiling checks those that it writes into a file.

    Args:
      request: the compiled pipeline with the root of the run.
      target: the target that it is compiled for.
      settings: the settings of the run.

    Raises:
      ConfigError: the steps cannot reach a place, or were not compiled for its store.
    """
    copied = any(LOCAL_COPIES in command for command in _commands(_spec(request.compiled)))
    places = {"root": settings.root, DATA_URI: settings.kubeflow.data_uri}
    for key in places.keys() & set(settings.keys_of_command_line()):
        check_reachable(key, places[key], target, is_artifact=key != "root", copied=copied)
    if target == "kfp" and "serving_uri" in request.parameters:
        compiled = request.compiled["defaultPipelineRoot"]
        (scheme, _), (found, _) = scheme_and_bucket(compiled), scheme_and_bucket(request.root)
        if scheme != found:
            raise ConfigError(
                f"root: expected {scheme}://BUCKET/..., since the Pusher is compiled with the address and "
                f"the credentials of the store of {compiled}; found {settings.root}. Compile again with it"
            )


def _read(file: Path, target: BackEnd) -> dict[str, Any]:
    hint = f"expected a file that `compile --target {target}` wrote"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"--file {file}: {reason}; {hint}") from None
    try:
        documents = list(yaml.safe_load_all(text))  # JSON is YAML, too.
        compiled = functools.reduce(operator.or_, documents) if documents else None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError):
        compiled = None
    found = _target(compiled)
    if compiled is None or found is None:
        raise ConfigError(f"--file {file}: it is not a compiled pipeline; {hint}")
    if found != target:
        raise ConfigError(
            f"--file {file}: found {_DESCRIPTIONS[found]}; expected {_DESCRIPTIONS[target]}. Compile it with "
            f"--target {target}, or submit it with --target {found}"
        )
    return compiled


def _target(compiled: Any) -> BackEnd | None:
    """Returns the target of a compiled file; None if the content is not a compiled pipeline."""
    try:
        spec = _spec(compiled)
        parts = [*_tasks(spec).values(), _declared(spec)]
        if not all(isinstance(command, list) for command in _commands(spec)):
            return None
        if not (_is_text(spec["pipelineInfo"]["name"]) and _tasks(spec) and all(map(_is_object, parts))):
            return None
        if spec["schemaVersion"] == "2.0.0" and _is_text(compiled["runtimeConfig"]["gcsOutputDirectory"]):
            parameters = compiled["runtimeConfig"].get("parameters", {})
            return "vertex" if _is_object(parameters) else None
        if spec["schemaVersion"] == "2.1.0" and _is_text(compiled["defaultPipelineRoot"]):
            return "kfp"
    except (AttributeError, KeyError, TypeError):
        pass
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _tasks(spec: Mapping[str, Any]) -> Any:
    return spec["root"]["dag"]["tasks"]


def _commands(spec: Mapping[str, Any]) -> list[Any]:
    executors = spec["deploymentSpec"]["executors"].values()
    return [executor.get("container", {}).get("command", []) for executor in executors]


def _declared(spec: Mapping[str, Any]) -> Any:
    return spec["root"].get("inputDefinitions", {}).get("parameters", {})


def _spec(compiled: Mapping[str, Any]) -> Any:
    return compiled.get("pipelineSpec", compiled)


def _parameters(
    file: Path, name: str, target: BackEnd, settings: PipelineConfig, declared: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the runtime parameters that the command line sets, by name.

    Raises:
      ConfigError: the command line sets something that a run cannot change.
    """
    by_key = {parameter.key: parameter for parameter in runtime_parameters.PARAMETERS if parameter.key}
    values: dict[str, Any] = {}
    for key in settings.keys_of_command_line():
        if key == "kubeflow.cache" or (key.startswith(f"kubeflow.{target}.") and not _is_compiled_in(key)):
            continue
        other = "kfp" if target == "vertex" else "vertex"
        if key.startswith(f"kubeflow.{other}."):
            raise ConfigError(f"{key} has no effect with --target {target}")
        parameter = by_key.get(key)
        if parameter is None:
            fields = KfpConfig.model_fields if target == "kfp" else VertexConfig.model_fields
            of_target = [f"kubeflow.{target}.{name}" for name in fields]
            allowed = [*by_key, "kubeflow.cache", *(each for each in of_target if not _is_compiled_in(each))]
            raise ConfigError(
                f"{key} is compiled into the file and a run cannot change it; compile again. A run can set "
                f"{', '.join(allowed)}"
            )
        if key == "root" and parameter.name not in declared:
            continue  # Models are pushed to a place of their own, which is compiled in.
        if parameter.name not in declared:
            remedy = (
                f"its Tuner chooses the value; compile again with --no-tune or --set {key}=..."
                if key.startswith("trainer.") and "epochs" in declared
                else "compile again"
            )
            raise ConfigError(f"{key}: {file} has no parameter {parameter.name}: {remedy}")
        value: Any = settings
        for part in key.split("."):
            value = getattr(value, part)
        if key == "root":
            value = serving_directory(value, name)
        values[parameter.name] = value
    if "data_uri" in values and runtime_parameters.DATA_DIGEST in declared:
        values[runtime_parameters.DATA_DIGEST] = digest.ANY
    return values


def _is_compiled_in(key: str) -> bool:
    """Returns whether a setting of Kubeflow is one of pods, or of the store that they push to."""
    return key.split(".")[2] in (*PodConfig.model_fields, "checkpoints", "steps", "store")


def to_json(submission: Submission) -> str:
    """Returns a PipelineJob for Vertex, in JSON, with the parameters and the root of the run."""
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


def follow(poll: Callable[[], Progress], show: Callable[[str], None]) -> Progress:
    """Polls a run until its end.

    Args:
      poll: reads the progress of the run from the back end.
      show: called with a line for each change of a step's state.

    Returns:
      The progress at the end of the run.
    """
    shown: dict[str, State] = {}
    while True:
        progress = poll()
        for step, state in progress.steps.items():
            if state != shown.get(step, "waiting"):
                show(f"{step:<18} {state}")
                shown[step] = state
        if progress.has_ended:
            return progress
        time.sleep(_POLL_SECONDS)
