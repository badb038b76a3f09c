"""The entry point of a step's container: completes the input of TFX's own entry point, then calls it.

It works around three limits. TFX has no runtime parameters for parts of an execution property; open-source
Kubeflow does not send the types of artifacts; and TFX passes the name of the program to Beam as an argument.
With any argument for Beam, TFX builds and ships a wheel of itself, which takes seconds in each such step.
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
    """Applies the runtime parameters and fills in missing types of input artifacts.

    Open-source Kubeflow sends artifacts with an empty `instanceSchema`, which TFX cannot read; they get the
    declared type.

    Args:
      invocation: JSON of an ExecutorInput.
      inputs_spec: JSON of the component's ComponentInputsSpec; None with schema 2.0, which does not send one.

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
    """Parses the command line as TFX does, but without the name of the program.

    Args:
      argv: name of the program, followed by its arguments.

    Returns:
      (TFX's flags, the arguments for Beam).
    """
    args, beam_args = kubeflow_v2_run_executor._parse_flags(argv[1:])
    args.json_serialized_invocation_args = complete(
        args.json_serialized_invocation_args, args.json_serialized_inputs_spec_args
    )
    return args, beam_args


if __name__ == "__main__":
    app.run(kubeflow_v2_run_executor.main, flags_parser=parse_flags)
