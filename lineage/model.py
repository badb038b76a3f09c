"""What a store of metadata tells: runs, their executions, and artifacts, whichever reader has read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

# Kinds of artifacts that commands look for, without the prefix that Kubeflow and Vertex add.
DATASET, EXAMPLES, SCHEMA, MODEL = "components.DatasetDirectory", "Examples", "Schema", "Model"
MODEL_RUN, TUNER_RESULTS, BLESSING, PUSHED = "ModelRun", "TunerResults", "ModelBlessing", "PushedModel"
SERVING_BLESSING, REPORT = "InfraBlessing", "components.ModelReport"
_PREFIX = "tfx."

# Names of inputs that are not what a step works on, but an earlier model that it compares this with.
BASELINES = ("baseline_model", "baseline")
# Properties that say yes or no; ML Metadata has them as numbers.
_FLAGS = ("blessed", "pushed", "git_changes")

# States of executions and runs. The first four are final.
COMPLETE, CACHED, FAILED, CANCELED = "complete", "cached", "failed", "canceled"
RUNNING = "running"
ABANDONED = "abandoned"  # the process that should have ended it is gone
UNCONFIRMED = "unconfirmed"  # recorded as running; nothing tells whether a process still works on it
INTERRUPTED = "interrupted"  # ended by Ctrl-C or another signal

TUNER = "Tuner"  # origin of a setting whose value the Tuner chose

LIVE = "live"  # state of an artifact whose files should be there


class LineageError(ValueError):
    """A question that cannot be answered; the message says what was expected, found, and what to do."""


@dataclass(eq=False)
class Artifact:
    """Something that an execution has made or imported.

    Attributes:
      id: its number in the store, as text.
      type: its type, without the prefix `tfx.` of Kubeflow and Vertex.
      uri: where its files are.
      state: `live`, `deleted`, or another state of ML Metadata in lower case.
      created: milliseconds since 1970.
      properties: name -> value; numbers, texts, or for structures what JSON would hold.
      made_by: the execution that made it; None if the store does not tell.
      used_by: the executions that read it.
    """

    id: str
    type: str
    uri: str
    state: str
    created: int
    properties: Mapping[str, Any]
    made_by: Execution | None = field(default=None, repr=False)
    used_by: list[Execution] = field(default_factory=list, repr=False)

    @property
    def folder(self) -> Path | None:
        """Where its files are; None if that is a bucket, or the store tells no place."""
        return Path(self.uri) if self.uri and "://" not in self.uri else None

    def read_json(self, name: str) -> Any:
        """Reads one of its files, which is JSON; None if that is not on this machine."""
        if self.folder is None:
            return None
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    @property
    def label(self) -> str:
        """The type without a package, and the number: `Model #9`."""
        return f"{self.type.rpartition('.')[2]} #{self.id}"

    @property
    def facts(self) -> dict[str, Any]:
        """The properties, with truth values where ML Metadata has 0 or 1."""
        return {
            name: bool(value) if name in _FLAGS and value is not None else value
            for name, value in self.properties.items()
        }

    @property
    def refusal(self) -> str | None:
        """`not pushed` or `not blessed` if that is what the artifact records; None otherwise."""
        kinds = {PUSHED: "pushed", BLESSING: "blessed", SERVING_BLESSING: "blessed"}
        name = kinds.get(self.type, "")
        return f"not {name}" if self.facts.get(name) is False else None


@dataclass(eq=False)
class Execution:
    """One execution of a component.

    Attributes:
      id: its number in the store, as text.
      type: the dotted name of the component's class.
      component: id of the component in its pipeline.
      state: one of the states of this module.
      created, updated: milliseconds since 1970.
      properties: parameters of the component, and what the runner has noted.
      run: the run that it belongs to; None for an execution outside of runs.
      inputs, outputs: (name, artifact) in the order of the events. An artifact that is used in several roles
        is there under each of their names.
    """

    id: str
    type: str
    component: str
    state: str
    created: int
    updated: int
    properties: Mapping[str, Any]
    run: Run | None = field(default=None, repr=False)
    inputs: list[tuple[str, Artifact]] = field(default_factory=list, repr=False)
    outputs: list[tuple[str, Artifact]] = field(default_factory=list, repr=False)

    @property
    def seconds(self) -> float | None:
        """How long it took: as the runner has noted, otherwise from the times of the store."""
        if (noted := self.properties.get("seconds")) is not None:
            return float(noted)
        if self.state not in (COMPLETE, CACHED, FAILED, INTERRUPTED) or self._was_settled:
            return None
        return (self.updated - self.created) / 1000

    @property
    def _was_settled(self) -> bool:
        """Whether its run was killed and the next run has marked it as failed, at a time of its own."""
        return self.state == FAILED and self.run is not None and self.run.state == ABANDONED

    @property
    def cached_from(self) -> Run | None:
        """The run from whose results a cached execution took its own."""
        if self.state != CACHED:
            return None
        makers = (artifact.made_by for _, artifact in self.outputs)
        return next((made_by.run for made_by in makers if made_by), None)

    @property
    def code(self) -> str | None:
        """Digest of the code of this project that it ran; None if it ran none or the store does not tell."""
        for holder in (self.properties, self.parameter("custom_config")):
            if isinstance(holder, Mapping) and holder.get("source_digest"):
                return str(holder["source_digest"])
        noted = (self.run.decoded("code") if self.run else None) or {}
        return noted.get("steps", {}).get(self.component)

    def parameter(self, name: str) -> Any:
        """Returns a parameter of the component, decoded if it is JSON; None if it has none of that name.

        Kubeflow keeps all parameters in one structure.
        """
        value = self.properties.get(name)
        if value is None and isinstance(inputs := self.properties.get("inputs"), Mapping):
            value = inputs.get(name)
        return decode(value)


@dataclass(eq=False)
class Run:
    """One run of a pipeline.

    Attributes:
      id: its name in the store.
      pipeline: name of the pipeline.
      created: milliseconds since 1970.
      properties: what the runner has noted about it.
      state: one of the states of this module.
      executions: in the order in which they began.
    """

    id: str
    pipeline: str
    created: int
    properties: Mapping[str, Any]
    state: str = COMPLETE
    executions: list[Execution] = field(default_factory=list, repr=False)

    def output(self, kind: str) -> Artifact | None:
        """Returns the newest artifact of a type that the run made or took from the cache."""
        made = [
            artifact
            for execution in self.executions
            for name, artifact in execution.outputs
            if artifact.type == kind and not is_resolved(execution)
        ]
        return made[-1] if made else None

    def execution(self, component: str) -> Execution | None:
        """Returns the last execution of a component in this run."""
        return next((each for each in reversed(self.executions) if each.component == component), None)

    def decoded(self, name: str) -> Any:
        """Returns a property, decoded if it is JSON; None if there is none of that name."""
        return decode(self.properties.get(name))

    @cached_property
    def settings(self) -> dict[str, tuple[Any, str]]:
        """The settings of the run: dotted key -> (the value that was used, where it came from).

        Where the Tuner chose a value, it is that one, and it came from `Tuner`: what was set before has had
        no effect. Runs on other machines, and older ones, have the settings as a parameter of ModelReport
        only.
        """
        rows = self.decoded("settings")
        report = self.execution("ModelReport")
        if rows is None and report and isinstance(context := report.parameter("context"), Mapping):
            rows = context.get("configuration")
        settings = {row["key"]: (row["value"], row["origin"]) for row in rows or ()}
        chosen = {key: (value, TUNER) for key, (value, is_tuned) in self._trained_with.items() if is_tuned}
        return settings | {key: each for key, each in chosen.items() if key in settings}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The values with which the Trainer trained: name -> value; empty if nothing here tells them."""
        return {name: value for name, (value, _) in self._trained_with.items()}

    @cached_property
    def _trained_with(self) -> dict[str, tuple[Any, bool]]:
        """Name -> (value, whether the Tuner chose it), from the summary of the run or the Trainer's file."""
        summary = self.decoded("summary") or {}
        if found := summary.get("hyperparameters"):
            return {name: (value, name in summary.get("tuned", ())) for name, value in found.items()}
        trained = self.output(MODEL_RUN)
        written = (trained.read_json("hyperparameters.json") if trained else None) or {}
        return {name: (entry["value"], entry["source"] == "tuner") for name, entry in written.items()}


@dataclass(eq=False)
class Store:
    """All records of a store at one time.

    Attributes:
      place: where the store is, for messages.
      runs: the oldest first.
      executions: of all runs, and those outside of runs, the oldest first.
      artifacts: the oldest first.
    """

    place: str
    runs: list[Run]
    executions: list[Execution]
    artifacts: list[Artifact]

    def of_type(self, kind: str) -> Iterator[Artifact]:
        """Yields the artifacts of a type, given with or without its prefix."""
        bare = bare_type(kind)
        return (artifact for artifact in self.artifacts if artifact.type == bare)


def connect(events: Iterable[tuple[Execution, Artifact, str, bool]]) -> None:
    """Connects executions and artifacts.

    Args:
      events: (execution, artifact, name of the input or output, whether it is an output), the oldest first.
    """
    for execution, artifact, name, is_output in events:
        if not is_output:
            execution.inputs.append((name, artifact))
            if execution not in artifact.used_by[-1:]:
                artifact.used_by.append(execution)
            continue
        execution.outputs.append((name, artifact))
        # Cached executions and resolvers have events for artifacts that others have made.
        makes = execution.state != CACHED and not is_resolved(execution)
        if makes and artifact.made_by is None:
            artifact.made_by = execution


def is_resolved(execution: Execution) -> bool:
    """Returns whether an execution only looks up artifacts of others."""
    return execution.type.endswith(".Resolver") or execution.component == "Baseline"


def settle(runs: Iterable[Run], live: Run | None, is_local: bool) -> None:
    """Finds the states of runs, and corrects those of executions that were never ended.

    Args:
      runs: runs whose executions have the states of the store.
      live: the run on which a process of this machine works.
      is_local: whether it is known that no process works on any other run.
    """
    for run in runs:
        ended = run.properties.get("state")
        for execution in run.executions:
            if execution.state == RUNNING and run is not live and (is_local or ended):
                execution.state = ABANDONED
            elif execution.state == RUNNING and run is not live:
                execution.state = UNCONFIRMED
            elif execution.state == FAILED and ended == INTERRUPTED:
                execution.state = INTERRUPTED  # ML Metadata has no such state.
        states = {execution.state for execution in run.executions}
        if run is live:
            run.state = RUNNING
        elif ended:
            run.state = str(ended)
        elif is_local and "settings" in run.properties and FAILED not in states:
            run.state = ABANDONED  # The runner notes how a run ended, unless it is killed.
        else:
            order = (FAILED, ABANDONED, UNCONFIRMED, CANCELED)
            run.state = next((state for state in order if state in states), COMPLETE)


def bare_type(name: str) -> str:
    """Returns the name of an artifact's type without the prefix of Kubeflow and Vertex."""
    return name.removeprefix(_PREFIX)


def decode(value: Any) -> Any:
    """Decodes a text that is JSON; returns any other value as it is."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
