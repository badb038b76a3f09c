"""The entry point of a step's container: TFX's own, with the types that Kubeflow leaves out."""

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


def _parse_flags(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    args, beam_args = kubeflow_v2_run_executor._parse_flags(argv)
    args.json_serialized_invocation_args = fill_in_types(
        args.json_serialized_invocation_args, args.json_serialized_inputs_spec_args
    )
    return args, beam_args


if __name__ == "__main__":
    app.run(kubeflow_v2_run_executor.main, flags_parser=_parse_flags)
