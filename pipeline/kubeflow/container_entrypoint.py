"""The entry point of a step's container: TFX's own, behind what TFX does not do itself.

Open-source Kubeflow leaves out the types of artifacts, and TFX takes the name of the program for an argument
of Beam: with any argument of Beam it packs itself for remote workers, seconds in every step that uses Beam.
"""

from __future__ import annotations

import argparse
import json

from absl import app
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

from pipeline.kubeflow import runtime_parameters


def complete(invocation: str, inputs_spec: str | None) -> str:
    """Puts runtime parameters in place, and gives each input artifact without a type the declared one.

    Open-source Kubeflow hands them over with an empty `instanceSchema`, which TFX cannot read.

    Args:
      invocation: JSON of an ExecutorInput.
      inputs_spec: JSON of the ComponentInputsSpec of the component; None with schema 2.0, which has none.

    Returns:
      JSON of the completed ExecutorInput.
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
    runtime_parameters.put_in_place(completed.get("inputs", {}))
    return json.dumps(completed)


def parse_flags(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads a command line.

    Args:
      argv: the name of the program, and its arguments.

    Returns:
      (TFX's flags, the arguments of Beam).
    """
    args, beam_args = kubeflow_v2_run_executor._parse_flags(argv[1:])
    args.json_serialized_invocation_args = complete(
        args.json_serialized_invocation_args, args.json_serialized_inputs_spec_args
    )
    return args, beam_args


if __name__ == "__main__":
    app.run(kubeflow_v2_run_executor.main, flags_parser=parse_flags)
