"""Makes a store of ML Metadata with made-up runs: `python -m tests.lineage.made_store ROOT --runs 300`.

The records have the types, properties and events that runs of `local_runner.py` write. With `--files`, each
artifact also has a small file.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import ml_metadata as mlmd
import typer
from ml_metadata.proto import metadata_store_pb2 as pb

from datasets import checksums
from settings import loading
from settings.places import METADATA_FILE
from settings.steps import STEPS

START = datetime.datetime(2026, 1, 1, 8, tzinfo=datetime.timezone.utc)
_EXECUTION_TYPES = {
    "Dataset": "tfx.dsl.components.common.importer.Importer",
    "ImportExampleGen": "components.example_gen.component.ImportExampleGen",
    "StatisticsGen": "tfx.components.statistics_gen.component.StatisticsGen",
    "ExampleValidator": "tfx.components.example_validator.component.ExampleValidator",
    "DataGate": "components.data_gate.component.DataGate",
    "Transform": "tfx.components.transform.component.Transform",
    "Trainer": "tfx.components.trainer.component.Trainer",
    "Baseline": "tfx.dsl.components.common.resolver.Resolver",
    "ServingCheck": "components.serving_check.component.ServingCheck",
    "Evaluator": "tfx.components.evaluator.component.Evaluator",
    "ModelReport": "components.model_report.component.ModelReport",
    "Pusher": "components.pusher.component.Pusher",
}
# Step -> outputs, as name -> type of the artifact.
_OUTPUTS = {
    "Dataset": {"dataset": "components.DatasetDirectory"},
    "ImportExampleGen": {"examples": "Examples", "schema": "Schema"},
    "StatisticsGen": {"statistics": "ExampleStatistics"},
    "ExampleValidator": {"anomalies": "ExampleAnomalies"},
    "DataGate": {"report": "components.DataGateReport"},
    "Transform": {"transform_graph": "TransformGraph"},
    "Trainer": {"model": "Model", "model_run": "ModelRun"},
    "Baseline": {},
    "ServingCheck": {"blessing": "InfraBlessing"},
    "Evaluator": {"evaluation": "ModelEvaluation", "blessing": "ModelBlessing"},
    "ModelReport": {"report": "components.ModelReport"},
    "Pusher": {"pushed_model": "PushedModel"},
}
# Step -> inputs, as (name, step, output).
_INPUTS = {
    "Dataset": (),
    "ImportExampleGen": (("dataset", "Dataset", "dataset"),),
    "StatisticsGen": (("examples", "ImportExampleGen", "examples"),),
    "ExampleValidator": (
        ("statistics", "StatisticsGen", "statistics"),
        ("schema", "ImportExampleGen", "schema"),
    ),
    "DataGate": (
        ("examples", "ImportExampleGen", "examples"),
        ("anomalies", "ExampleValidator", "anomalies"),
    ),
    "Transform": (("examples", "ImportExampleGen", "examples"), ("schema", "ImportExampleGen", "schema")),
    "Trainer": (
        ("examples", "ImportExampleGen", "examples"),
        ("schema", "ImportExampleGen", "schema"),
        ("transform_graph", "Transform", "transform_graph"),
    ),
    "Baseline": (("candidate", "Trainer", "model"),),
    "ServingCheck": (("model", "Trainer", "model"), ("examples", "ImportExampleGen", "examples")),
    "Evaluator": (("model", "Trainer", "model"), ("examples", "ImportExampleGen", "examples")),
    "ModelReport": (
        ("model", "Trainer", "model"),
        ("model_run", "Trainer", "model_run"),
        ("evaluation", "Evaluator", "evaluation"),
        ("examples", "ImportExampleGen", "examples"),
        ("statistics", "StatisticsGen", "statistics"),
        ("anomalies", "ExampleValidator", "anomalies"),
        ("data_gate", "DataGate", "report"),
    ),
    # ServingCheck's blessing holds the model.
    "Pusher": (
        ("model_blessing", "Evaluator", "blessing"),
        ("infra_blessing", "ServingCheck", "blessing"),
    ),
}
_BASELINES = {"Evaluator": "baseline_model", "ModelReport": "baseline"}  # names of their inputs
_BEFORE_TRAINING = STEPS[: STEPS.index("Tuner")]


@dataclass
class Plan:
    """What one made-up run does.

    Attributes:
      data: name of the dataset, also its content: runs of one name share their data.
      settings: key -> value of the settings that differ from the defaults.
      tuned: key -> value of the settings that the Tuner chose.
      accuracy: accuracy on the test split.
      ends_at: the step at which the run ends early; None if it reaches its end.
      ended_by: `failed`, `interrupted`, or `killed`.
      blessed: whether the Evaluator blesses the model.
      served: whether ServingCheck blesses it; it is pushed if both do.
      commit: git commit of the code.
      code: digest of the code of the Trainer.
    """

    data: str = "shapes"
    settings: dict[str, Any] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)
    accuracy: float = 0.8
    ends_at: str | None = None
    ended_by: str = "failed"
    blessed: bool = True
    served: bool = True
    commit: str = "8a4155b0c2"
    code: str = "a1"


def plans(runs: int) -> Iterator[Plan]:
    """Yields made-up plans of runs, always the same ones."""
    rng = random.Random(0)
    best = 0.0
    for index in range(runs):
        epochs = rng.choice([10, 20, 40, 80])
        rate = round(10 ** rng.uniform(-3, -0.5), 5)
        accuracy = round(min(0.97, 0.6 + 0.002 * index**0.9 + 0.0015 * epochs + rng.gauss(0, 0.03)), 4)
        best = max(best, accuracy)
        ends_at = "Trainer" if index % 12 == 7 else None
        yield Plan(
            data="cifar10" if index % 60 > 30 else "shapes",
            settings={"trainer.epochs": epochs, "trainer.learning_rate": rate},
            accuracy=accuracy,
            ends_at=ends_at,
            ended_by=("failed", "killed", "interrupted")[index // 12 % 3],
            blessed=accuracy >= best,
            commit=hashlib.sha256(str(index // 20).encode()).hexdigest()[:40],
            code=str(index // 20),
        )


class Store:
    """A store that is being made."""

    def __init__(
        self,
        root: Path,
        name: str = "tiny",
        files: bool = False,
        kubeflow: bool = False,
        server: pb.ConnectionConfig | None = None,
    ) -> None:
        """Creates the store, or opens it to add runs.

        Args:
          root: folder of the runs.
          name: name of the pipeline.
          files: whether each artifact gets a file.
          kubeflow: whether the records are as Kubeflow 2 and the containers of the steps write them.
          server: database of the store; None takes the file below the root.
        """
        root.mkdir(parents=True, exist_ok=True)
        self.root, self._name, self._files, self._kubeflow = root.absolute(), name, files, kubeflow
        self._on_server = server is not None
        config = server or pb.ConnectionConfig()
        if not server:
            config.sqlite.filename_uri = str(self.root / METADATA_FILE)
            config.sqlite.connection_mode = 3
        self._store = mlmd.MetadataStore(config)
        names = ("system.Pipeline", "system.PipelineRun") if kubeflow else ("pipeline", "pipeline_run")
        kinds = dict(zip(("pipeline", "pipeline_run"), names, strict=True)) | {"node": "node"}
        self._types = {
            kind: self._store.put_context_type(pb.ContextType(name=name)) for kind, name in kinds.items()
        }
        self._type_names = kinds
        self._pipeline = self._context("pipeline", name)
        self._cache: dict[str, dict[str, pb.Artifact]] = {}
        self._baselines: dict[str, pb.Artifact] = {}  # data -> the last model that the Evaluator blessed
        self._count = len(self._store.get_contexts_by_type(self._type_names["pipeline_run"]))
        self._times: list[tuple[int, str, int]] = []  # (id, table, time)
        self._clock = int(START.timestamp() * 1000)

    def _context(self, kind: str, name: str, properties: dict[str, Any] | None = None) -> int:
        found = self._store.get_context_by_type_and_name(self._type_names[kind], name)
        context = found or pb.Context(name=name, type_id=self._types[kind])
        _set(context, properties or {})
        return self._store.put_contexts([context])[0]

    def add(self, plan: Plan) -> str:
        """Adds a run, and returns its id."""
        self._count += 1
        moment = START + datetime.timedelta(hours=6 * self._count)
        run = moment.replace(tzinfo=None).isoformat(timespec="microseconds")
        self._clock = int(moment.timestamp() * 1000)
        start = self._clock
        run_id = self._context("pipeline_run", run, {} if self._kubeflow else self._description(plan))
        self._note_time("Context", run_id)
        self._store.put_parent_contexts([pb.ParentContext(child_id=run_id, parent_id=self._pipeline)])
        if self._kubeflow:
            self._execute_root(run_id)
        outputs: dict[str, dict[str, pb.Artifact]] = {}
        state = "complete"
        for step in _EXECUTION_TYPES:
            ends = step == plan.ends_at
            key = json.dumps([step, plan.data, plan.settings if step not in _BEFORE_TRAINING else None])
            cached = key in self._cache and step not in ("Dataset", "Baseline")
            outcome = pb.Execution.COMPLETE
            if ends:
                outcome = pb.Execution.RUNNING if plan.ended_by == "killed" else pb.Execution.FAILED
            elif cached:
                outcome = pb.Execution.CACHED
            self._execute(run_id, step, plan, outcome, key, outputs)
            if ends:
                state = plan.ended_by
                break
        if plan.blessed and state == "complete":
            self._baselines[plan.data] = outputs["Trainer"]["model"]
        if state != "killed" and not self._kubeflow:
            self._context("pipeline_run", run, self._end(plan, state, (self._clock - start) / 1000))
        return run

    def close(self) -> None:
        """Writes the times of the records in the file, which the interface of ML Metadata sets to now."""
        del self._store
        if self._on_server:
            return
        with sqlite3.connect(self.root / METADATA_FILE) as connection:
            for number, table, time in self._times:
                connection.execute(
                    f"update {table} set create_time_since_epoch = ?, last_update_time_since_epoch = ? "
                    "where id = ?",
                    (time, time, number),
                )

    def _note_time(self, table: str, number: int) -> None:
        self._times.append((number, table, self._clock))

    def _description(self, plan: Plan) -> dict[str, Any]:
        given = {key: {"key": key, "value": value, "origin": "--set"} for key, value in plan.settings.items()}
        defaults = {row["key"]: row for row in loading.load().describe()}
        rows = list((defaults | given).values())
        return {
            "settings": json.dumps(rows),
            "data": plan.data,
            "model": "cnn",
            "git_commit": plan.commit,
            "git_changes": 0,
            "python": "3.10.18",
            "tensorflow": "2.16.2",
            "tfx": "1.16.0",
            "code": json.dumps(
                {
                    "steps": {"Trainer": plan.code * 8, "Transform": "b2" * 8},
                    "modules": {"models.training.loop": plan.code, "models.preprocessing": "b2"},
                }
            ),
        }

    def _end(self, plan: Plan, state: str, seconds: float) -> dict[str, Any]:
        summary = {"notes": [], "hyperparameters": plan.tuned, "tuned": list(plan.tuned)}
        return {"state": state, "seconds": seconds, "summary": json.dumps(summary)}

    def _execute(
        self,
        run: int,
        step: str,
        plan: Plan,
        state: int,
        key: str,
        outputs: dict[str, dict[str, pb.Artifact]],
    ) -> None:
        seconds = {"Trainer": 60.0, "Transform": 5.0}.get(step, 2.0) if state != pb.Execution.CACHED else 0.05
        self._clock += int(1000 * seconds)
        name = "system.ContainerExecution" if self._kubeflow else _EXECUTION_TYPES[step]
        type_id = self._store.put_execution_type(pb.ExecutionType(name=name))
        execution = pb.Execution(type_id=type_id, last_known_state=state)
        if self._kubeflow:
            _set(execution, {"task_name": step, "display_name": step})
            if inputs := self._parameters(step, plan):
                execution.custom_properties["inputs"].struct_value.update(inputs)
        else:
            _set(execution, {"seconds": seconds, **self._parameters(step, plan)})
        events = [
            (outputs[made_by][output], _event(pb.Event.INPUT, name))
            for name, made_by, output in _INPUTS[step]
        ]
        baseline = self._baselines.get(plan.data)
        if baseline and step in _BASELINES and baseline is not outputs["Trainer"]["model"]:
            events.append((baseline, _event(pb.Event.INPUT, _BASELINES[step])))
        if step == "Dataset":
            outcome = self._cache.get(key) or self._make(step, plan)
        elif state == pb.Execution.CACHED:
            outcome = self._cache[key]
        else:
            outcome = self._make(step, plan) if state == pb.Execution.COMPLETE else {}
        events += [(artifact, _event(pb.Event.OUTPUT, name)) for name, artifact in outcome.items()]
        nodes = [] if self._kubeflow else [self._context("node", f"{self._name}.{step}")]
        contexts = self._store.get_contexts_by_id([run, self._pipeline, *nodes])
        execution_id, artifact_ids, _ = self._store.put_execution(execution, events, contexts)
        self._note_time("Execution", execution_id)
        if state == pb.Execution.COMPLETE:
            for (artifact, event), number in zip(events, artifact_ids, strict=True):
                if event.type == pb.Event.OUTPUT and not artifact.id:
                    artifact.id = number
                    self._note_time("Artifact", number)
            self._cache[key] = outcome
        outputs[step] = outcome

    def _execute_root(self, run: int) -> None:
        """Adds the execution that Kubeflow has for a whole run."""
        type_id = self._store.put_execution_type(pb.ExecutionType(name="system.DAGExecution"))
        execution = pb.Execution(type_id=type_id, last_known_state=pb.Execution.COMPLETE)
        contexts = self._store.get_contexts_by_id([run, self._pipeline])
        number, _, _ = self._store.put_execution(execution, [], contexts)
        self._note_time("Execution", number)

    def _parameters(self, step: str, plan: Plan) -> dict[str, str]:
        if step == "Trainer":
            return {"custom_config": json.dumps({"settings": {}, "source_digest": plan.code * 8})}
        if step == "ModelReport" and self._kubeflow:
            rows = json.loads(self._description(plan)["settings"])
            return {"context": json.dumps({"configuration": rows}), "source_digest": "b2" * 8}
        return {"source_digest": "b2" * 8} if step not in ("Dataset", "Baseline") else {}

    def _noted_by_step(self, step: str, plan: Plan) -> dict[str, Any]:
        """Returns what the container of a step notes about its artifacts."""
        modules = {"models.training.loop": plan.code} if step == "Trainer" else {"components.metadata": "b2"}
        return {
            **{"python": "3.13.5", "tensorflow": "2.21.0", "tfx": "1.21.0", "git_commit": plan.commit},
            **{"git_changes": 0, "seconds": 2.0, "modules": json.dumps(modules)},
        }

    def _make(self, step: str, plan: Plan) -> dict[str, pb.Artifact]:
        made = {}
        for name, kind in _OUTPUTS[step].items():
            uri = self.root / "pipelines" / self._name / step / name / str(len(self._times))
            if step == "Dataset":
                uri = self.root / "data" / plan.data
            if self._files:
                uri.mkdir(parents=True, exist_ok=True)
                (uri / "content").write_text(f"{kind} {plan}")
            prefixed = f"tfx.{kind}" if self._kubeflow and "." not in kind else kind
            type_id = self._store.put_artifact_type(pb.ArtifactType(name=prefixed))
            artifact = pb.Artifact(type_id=type_id, uri=str(uri), state=pb.Artifact.LIVE)
            checksum = checksums.of_folder(uri) if self._files else None
            noted = {"sha256": checksum.sha256, "bytes": checksum.size} if checksum else {}
            if self._kubeflow and step != "Dataset":
                noted |= self._noted_by_step(step, plan)
            facts = {"files": 1, "tfx_version": "1.16.0", **noted, **self._facts(step, name, plan)}
            if self._kubeflow:
                # Its launcher knows no integers, except for truth values.
                facts = {
                    k: float(v) if isinstance(v, int) and k != "git_changes" else v for k, v in facts.items()
                }
            _set(artifact, facts)
            made[name] = artifact
        return made

    def _facts(self, step: str, output: str, plan: Plan) -> dict[str, Any]:  # noqa: PLR0911 - one for each step
        digest = hashlib.sha256(plan.data.encode()).hexdigest()
        match step, output:
            case "Dataset", _:
                return {"digest": digest}
            case "ImportExampleGen", "examples":
                return {"input_fingerprint": digest, "train_examples": 1600}
            case "Evaluator", "blessing":
                return {"blessed": int(plan.blessed)}
            case "ServingCheck", _:
                return {"blessed": int(plan.served)}
            case "ModelReport", _:
                figures = {"accuracy": plan.accuracy, "f1_macro": plan.accuracy - 0.01}
                corrupted = {"corrupted_accuracy": plan.accuracy - 0.3}
                return {"blessed": int(plan.blessed), **figures, **corrupted}
            case "Pusher", _ if plan.blessed and plan.served:
                version = str(self._clock // 1000)
                place = self.root / "serving" / self._name / version
                if self._files:
                    place.mkdir(parents=True)
                    (place / "content").write_text(f"PushedModel {plan}")
                return {"pushed": 1, "pushed_destination": str(place), "pushed_version": version}
            case "Pusher", _:
                return {"pushed": 0}
        return {}


def _event(kind: int, name: str) -> pb.Event:
    event = pb.Event(type=kind)
    event.path.steps.add().key = name
    event.path.steps.add().index = 0
    return event


def _set(record: Any, properties: dict[str, Any]) -> None:
    for name, value in properties.items():
        kind = {int: "int_value", float: "double_value", str: "string_value"}[type(value)]
        setattr(record.custom_properties[name], kind, value)


def write(root: Path, runs: int, files: bool = False) -> list[str]:
    """Makes a store of runs below a root, and returns their ids."""
    store = Store(root, name="shapes", files=files)
    ids = [store.add(plan) for plan in plans(runs)]
    store.close()
    return ids


def main(
    root: Annotated[Path, typer.Argument(help="Folder of the runs; it must have no store yet.")],
    runs: Annotated[int, typer.Option(min=1)] = 300,
    files: Annotated[bool, typer.Option("--files", help="Gives each artifact a small file.")] = False,
) -> None:
    """Makes a store of made-up runs."""
    if (root / METADATA_FILE).exists():
        raise typer.BadParameter(f"{root} has a store already")
    write(root, runs, files)


if __name__ == "__main__":
    typer.run(main)
