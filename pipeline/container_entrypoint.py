"""The entry point of a step's container: TFX's own, with what goes wrong there put right.

Open-source Kubeflow leaves out the types of artifacts. And TFX takes the name of the program for an argument
of Beam; with any argument of Beam it packs itself for remote workers, seconds in every step that uses Beam.
"""

from __future__ import annotations

import argparse

from absl import app
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor


def fill_in_types(invocation: str, inputs_spec: str) -> str:
    """Gives each input artifact without a type the one that its component declares.

    Open-source Kubeflow hands them over with an empty `instanceSchema`, which TFX cannot read.

    Args:
      invocation: JSON of an ExecutorInput.
      inputs_spec: JSON of the ComponentInputsSpec of the component.

    Returns:
      JSON of the completed ExecutorInput.
    """
    executor_input = pipeline_spec_pb2.ExecutorInput()
    json_format.Parse(invocation, executor_input, ignore_unknown_fields=True)
    declared = pipeline_spec_pb2.ComponentInputsSpec()
    json_format.Parse(inputs_spec, declared, ignore_unknown_fields=True)
    for name, inputs in executor_input.inputs.artifacts.items():
        for artifact in inputs.artifacts:
            if not (artifact.type.instance_schema or artifact.type.schema_title):
                artifact.type.CopyFrom(declared.artifacts[name].artifact_type)
    return json_format.MessageToJson(executor_input)


def parse_flags(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads a command line.

    Args:
      argv: the name of the program, and its arguments.

    Returns:
      (TFX's flags, the arguments of Beam).
    """
    args, beam_args = kubeflow_v2_run_executor._parse_flags(argv[1:])
    # Vertex, where nothing is missing, gives no specification of the inputs.
    if args.json_serialized_inputs_spec_args:
        args.json_serialized_invocation_args = fill_in_types(
            args.json_serialized_invocation_args, args.json_serialized_inputs_spec_args
        )
    return args, beam_args


if __name__ == "__main__":
    app.run(kubeflow_v2_run_executor.main, flags_parser=parse_flags)
