"""Runs compiled pipelines without a cluster: imitates the back ends, with containers as processes.

Vertex sends the types of all artifacts, searches for artifacts for tasks that are resolvers, and runs the
`preCacheCheck` of a container before it looks into its cache. Open-source Kubeflow does none of this; it
sends input artifacts with an empty `instanceSchema`. Both import artifacts.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from pipeline import code_digest

REPOSITORY = Path(__file__).resolve().parents[1]
# A step on a few hundred images takes less, even on a busy machine.
_TIMEOUT_S = 600

Artifact = dict[str, Any]
Outputs = dict[str, list[Artifact]]


class StepFailedError(RuntimeError):
    """A step failed; the message ends with the last lines that its container printed."""


@dataclass
class Run:
    """The outcome of a submitted pipeline.

    Attributes:
      outputs: output artifacts by task and by name of the output.
      cached: names of the tasks that the cache answered.
    """

    outputs: dict[str, Outputs] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)

    def place(self, task: str, output: str) -> str:
        """Returns the path or the URI of a task's only artifact under an output."""
        (artifact,) = self.outputs[task][output]
        return artifact["uri"]


class BackEnd:
    """A back end, with metadata and a cache that all its submissions share."""

    def __init__(self, folder: Path) -> None:
        """Creates a back end.

        Args:
          folder: an empty folder, for a copy of the code in the image and for the steps' working directories.
        """
        self._folder = folder
        self._code = folder / "code"
        for name in code_digest.PACKAGES:
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            (self._code / name).parent.mkdir(parents=True, exist_ok=True)
            copy(REPOSITORY / name, self._code / name)
        self._artifacts: list[Artifact] = []
        self._cache: dict[str, Outputs] = {}
        self._submissions = 0

    def environment(self, directory: Path) -> dict[str, str]:
        """Returns the environment variables of a container: those of the Dockerfile, and no network.

        Args:
          directory: working directory of the container's process.
        """
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(directory),
            "PYTHONPATH": str(self._code),
            "TF_ENABLE_ONEDNN_OPTS": "1",
            "https_proxy": "http://127.0.0.1:9",
        }

    def submit(
        self,
        file: Path,
        parameters: Mapping[str, Any] | None = None,
        root: str | None = None,
        last: str | None = None,
        given: Mapping[str, Outputs] = MappingProxyType({}),
    ) -> Run:
        """Runs a compiled pipeline, task by task.

        Args:
          file: a PipelineJob of schema 2.0 or a PipelineSpec of schema 2.1.
          parameters: values of runtime parameters; the others keep their defaults.
          root: folder for the artifacts; None takes the compiled root.
          last: the last task to run; None runs all tasks.
          given: outputs of tasks that do not run.

        Returns:
          The outcome of the tasks.

        Raises:
          StepFailedError: a step failed; the tasks after it do not run.
        """
        # JSON is YAML, too. What Kubernetes provides would be a second document.
        compiled = next(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        vertex = "pipelineSpec" in compiled
        spec = compiled["pipelineSpec"] if vertex else compiled
        assert spec["schemaVersion"] == ("2.0.0" if vertex else "2.1.0")
        if root is None:
            job = compiled.get("runtimeConfig", {})
            root = job["gcsOutputDirectory"] if vertex else compiled["defaultPipelineRoot"]
        values = _parameter_values(compiled, spec["root"]["inputDefinitions"]["parameters"], parameters or {})
        self._submissions += 1
        run = Run()
        for name in _topological_order(spec["root"]["dag"]["tasks"]):
            folder = posixpath.join(root, str(self._submissions), name)
            task = Task(spec, name, vertex, folder, run, values)
            if name in given:
                run.outputs[name] = given[name]
            elif "resolver" in task.executor:
                assert vertex, f"open-source Kubeflow has no resolvers, but {name} is one"
                run.outputs[name] = self._resolve(task)
            elif "importer" in task.executor:
                run.outputs[name] = self._import(task)
            else:
                run.outputs[name] = self._execute(task, run)
            if name == last:
                break
        return run

    def _record(self, artifact: Artifact) -> Artifact:
        recorded = {"name": str(len(self._artifacts) + 1), "metadata": {}, **artifact}
        self._artifacts.append(recorded)
        return recorded

    def _import(self, task: Task) -> Outputs:
        """Registers an artifact, or finds it if it was imported before: both back ends look by its URI."""
        importer = task.executor["importer"]
        assert not importer.get("reimport")
        uri = importer["artifactUri"]
        if "runtimeParameter" in uri:
            value = task.parameters()[uri["runtimeParameter"]]
        else:
            value = uri["constantValue"] if task.vertex else uri["constant"]
        place = value["stringValue"] if task.vertex else value
        ((output, artifact_type),) = task.output_types().items()
        imported = {"uri": place, "type": artifact_type}
        known = [a for a in self._artifacts if {"uri": a["uri"], "type": a["type"]} == imported]
        return {output: [known[-1] if known else self._record(imported)]}

    def _resolve(self, task: Task) -> Outputs:
        """Finds the newest artifact for each query of a resolver."""
        outputs: Outputs = {}
        for output, query in task.executor["resolver"]["outputArtifactQueries"].items():
            conditions = query["filter"]
            for placeholder in re.findall(r"\{\{(.*?)\}\}", conditions):
                key, metadata_key = re.fullmatch(
                    r"\$\.inputs\.artifacts\['(\w+)'\]\.metadata\['(\w+)'\]", placeholder
                ).groups()
                values = [artifact["metadata"][metadata_key] for artifact in task.inputs()[key]]
                conditions = conditions.replace(f"{{{{{placeholder}}}}}", values[0] if values else "")
            found = [a for a in self._artifacts if _matches(a, conditions)]
            outputs[output] = found[-1:]
        return outputs

    def _execute(self, task: Task, run: Run) -> Outputs:
        container = task.executor["container"]
        invocation = task.executor_input()
        for output in task.output_types():
            Path(task.folder, output).mkdir(parents=True)  # In a bucket, folders need not be created.
        if task.vertex and "lifecycle" in container:
            hook = container["lifecycle"]["preCacheCheck"]
            self._run(task, hook["command"] + hook["args"], invocation)
        key = json.dumps([container, invocation["inputs"], _executor_output(task).get("parameterValues")])
        if key in self._cache:
            run.cached.add(task.name)
            return self._cache[key]
        self._run(task, container["command"] + container["args"], invocation)
        updated = _executor_output(task).get("artifacts", {})
        outputs: Outputs = {}
        for output, artifact_type in task.output_types().items():
            (artifact,) = invocation["outputs"]["artifacts"][output]["artifacts"]
            (update,) = updated[output]["artifacts"]
            recorded = {**artifact, "type": artifact_type, "metadata": update.get("metadata", {})}
            outputs[output] = [self._record(recorded)]
        self._cache[key] = outputs
        return outputs

    def _run(
        self,
        task: Task,
        command: list[str],
        invocation: dict[str, Any],
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        directory = self._folder / f"{self._submissions}-{task.name}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        process = subprocess.run(
            [argument.replace("{{$}}", json.dumps(invocation)) for argument in command],
            cwd=directory,
            env={**self.environment(directory), **container_variables(task), **variables},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if process.returncode:
            raise StepFailedError(f"{task.name}: {process.stderr.strip()[-2000:]}")


@dataclass
class Task:
    """A task of a compiled pipeline; `folder` is the path or the URI below which its outputs lie."""

    spec: dict[str, Any]
    name: str
    vertex: bool
    folder: str
    run: Run
    values: dict[str, Any]

    @property
    def definition(self) -> dict[str, Any]:
        return self.spec["root"]["dag"]["tasks"][self.name]

    @property
    def _component(self) -> dict[str, Any]:
        return self.spec["components"][self.definition["componentRef"]["name"]]

    @property
    def executor_label(self) -> str:
        return self._component["executorLabel"]

    @property
    def executor(self) -> dict[str, Any]:
        return self.spec["deploymentSpec"]["executors"][self.executor_label]

    @property
    def output_file(self) -> Path:
        return Path(self.folder, "executor_output.json")

    def inputs(self) -> Outputs:
        sources = {
            key: source["taskOutputArtifact"]
            for key, source in self.definition.get("inputs", {}).get("artifacts", {}).items()
        }
        return {
            key: self.run.outputs[output["producerTask"]][output["outputArtifactKey"]]
            for key, output in sources.items()
        }

    def output_types(self) -> dict[str, Any]:
        outputs = self._component.get("outputDefinitions", {}).get("artifacts", {})
        return {key: declared["artifactType"] for key, declared in outputs.items()}

    def parameters(self) -> dict[str, Any]:
        """Returns the values of the task's parameters, in the form of the schema."""
        constant = "constantValue" if self.vertex else "constant"
        values = {
            key: value["runtimeValue"][constant]
            if "runtimeValue" in value
            else self.values[value["componentInputParameter"]]
            for key, value in self.definition.get("inputs", {}).get("parameters", {}).items()
        }
        assert values.keys() <= self._component.get("inputDefinitions", {}).get("parameters", {}).keys()
        return values

    def executor_input(self) -> dict[str, Any]:
        """Returns the ExecutorInput as a JSON object."""
        inputs = {
            key: {"artifacts": [self._as_sent(artifact) for artifact in artifacts]}
            for key, artifacts in self.inputs().items()
        }
        parameters = {"parameters" if self.vertex else "parameterValues": self.parameters()}
        outputs = {
            key: {"artifacts": [{"uri": posixpath.join(self.folder, key), "type": artifact_type}]}
            for key, artifact_type in self.output_types().items()
        }
        return {
            "inputs": {"artifacts": inputs, **parameters},
            "outputs": {"artifacts": outputs, "outputFile": str(self.output_file)},
        }

    def _as_sent(self, artifact: Artifact) -> Artifact:
        return artifact if self.vertex else {**artifact, "type": {"instanceSchema": ""}}


def _parameter_values(
    compiled: dict[str, Any], declared: dict[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the values of all runtime parameters, in the form of the schema.

    Args:
      compiled: the compiled pipeline.
      declared: the definitions of the parameters in the compiled pipeline.
      given: values that replace defaults, by name.
    """
    assert given.keys() <= declared.keys(), f"unknown parameters among {', '.join(given)}"
    if "runtimeConfig" not in compiled:
        defaults = {name: definition["defaultValue"] for name, definition in declared.items()}
        return {**defaults, **given}
    fields = {"STRING": "stringValue", "INT": "intValue", "DOUBLE": "doubleValue"}
    typed = {name: {fields[declared[name]["type"]]: value} for name, value in given.items()}
    values = {**compiled["runtimeConfig"]["parameters"], **typed}
    assert values.keys() == declared.keys(), "schema 2.0 has no defaults: a job must give all values"
    return values


def _topological_order(tasks: dict[str, Any]) -> Iterator[str]:
    """Yields the names of tasks, each after the tasks that it depends on."""
    waiting = {
        name: set(task.get("dependentTasks", ()))
        | {
            source["taskOutputArtifact"]["producerTask"]
            for source in task.get("inputs", {}).get("artifacts", {}).values()
        }
        for name, task in tasks.items()
    }
    while waiting:
        ready = [name for name, before in waiting.items() if not before & waiting.keys()]
        assert ready, f"a cycle among {', '.join(waiting)}"
        for name in ready:
            del waiting[name]
            yield name


def container_variables(task: Task) -> dict[str, str]:
    """Returns the environment variables that the compiled pipeline gives to a task's container."""
    return {each["name"]: each["value"] for each in task.executor["container"].get("env", ())}


def _executor_output(task: Task) -> dict[str, Any]:
    return json.loads(task.output_file.read_text(encoding="utf-8")) if task.output_file.exists() else {}


def _matches(artifact: Artifact, conditions: str) -> bool:
    """Returns whether an artifact meets the conditions of a resolver's query."""
    for condition in conditions.split(" AND "):
        key, _, value = condition.partition("=")
        expected = value.strip('"')
        if key == "schema_title":
            met = yaml.safe_load(artifact["type"]["instanceSchema"])["title"] == expected
        elif key == "name":
            met = artifact["name"] == expected
        elif key == "state":
            met = expected == "LIVE"
        else:
            metadata_key = re.fullmatch(r"metadata\.(\w+)\.number_value", key)
            assert metadata_key, f"unknown condition {condition}"
            met = artifact["metadata"].get(metadata_key[1]) == float(expected)
        if not met:
            return False
    return True
