"""The entry point of a step's container: completes the input of TFX's own entry point, then calls it.

Afterwards it notes what is known of the step. It also works around four limits. TFX has no runtime parameters
for parts of an execution property. Open-source Kubeflow does not send the types of artifacts, and its default
store is one that neither TensorFlow nor Beam reads. And TFX passes the name of the program to Beam as an
argument: with any argument for Beam, TFX builds and ships a wheel of itself, which takes seconds in each such
step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from absl import app
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

from pipeline.kubeflow import local_copies, runtime_parameters, step_facts


def complete(invocation: str, inputs_spec: str | None) -> dict[str, Any]:
    """Applies the runtime parameters and fills in missing types of input artifacts.

    Open-source Kubeflow sends artifacts with an empty `instanceSchema`, which TFX cannot read; they get the
    declared type.

    Args:
      invocation: JSON of an ExecutorInput.
      inputs_spec: JSON of the component's ComponentInputsSpec; None with schema 2.0, which does not send one.

    Returns:
      The completed ExecutorInput as a JSON object.
    """
    executor_input = pipeline_spec_pb2.ExecutorInput()
    json_format.Parse(invocation, executor_input, ignore_unknown_fields=True)
    if inputs_spec:
        declared = pipeline_spec_pb2.ComponentInputsSpec()
        json_format.Parse(inputs_spec, declared, ignore_unknown_fields=True)
        for name, inputs in executor_input.inputs.artifacts.items():
            for artifact in inputs.artifacts:
                if not (artifact.type.instance_schema or artifact.type.schema_title):
                    artifact.type.CopyFrom(declared.artifacts[name].artifact_type)
    completed = json_format.MessageToDict(executor_input)
    # TFX reads the parameters of schema 2.1 if it is told the declared inputs, and those of 2.0 otherwise.
    runtime_parameters.put_in_place(completed.get("inputs", {}), legacy=not inputs_spec)
    return completed


@dataclasses.dataclass(frozen=True)
class Step:
    """What the command line asks for.

    Attributes:
      flags: TFX's flags.
      beam_arguments: the arguments for Beam.
      output_file: the file that TFX writes the step's results to.
      uris: path of each local copy of an artifact -> URI; None if the step uses the URIs.
    """

    flags: argparse.Namespace
    beam_arguments: list[str]
    output_file: str
    uris: dict[str, str] | None


def parse(argv: list[str]) -> Step:
    """Reads the command line, and completes the ExecutorInput in it.

    Args:
      argv: name of the program; `local-copies` if the launcher of Kubeflow copies the artifacts; then TFX's
        flags and the arguments for Beam.
    """
    copied = argv[1:2] == [local_copies.FLAG]
    flags, beam_arguments = kubeflow_v2_run_executor._parse_flags(argv[2 if copied else 1 :])
    completed = complete(flags.json_serialized_invocation_args, flags.json_serialized_inputs_spec_args)
    uris = local_copies.use(completed) if copied else None
    flags.json_serialized_invocation_args = json.dumps(completed)
    return Step(flags, beam_arguments, completed.get("outputs", {}).get("outputFile", ""), uris)


def main(step: Step) -> None:
    """Runs a step."""
    start = time.monotonic()
    kubeflow_v2_run_executor.main((step.flags, step.beam_arguments))
    step_facts.note(step.output_file, time.monotonic() - start)
    if step.uris is not None:
        local_copies.restore(Path(step.output_file), step.uris)


if __name__ == "__main__":
    # TFX's parser is also absl's, which has to have read the command line before `main`.
    app.run(main, flags_parser=parse)
