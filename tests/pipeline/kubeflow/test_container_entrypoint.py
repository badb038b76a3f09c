import json

from pipeline.kubeflow import container_entrypoint


def test_missing_types_are_replaced_by_the_declared_types_and_others_are_kept():
    invocation = {
        "inputs": {
            "artifacts": {
                "model": {"artifacts": [{"name": "3", "uri": "/model", "type": {"instanceSchema": ""}}]},
                "baseline": {"artifacts": [{"name": "4", "uri": "/other"}]},
                "schema": {"artifacts": [{"type": {"instanceSchema": "title: tfx.Schema"}}]},
            }
        }
    }
    declared = {
        "artifacts": {
            name: {"artifactType": {"instanceSchema": "title: tfx.Model"}}
            for name in ("model", "baseline", "schema")
        }
    }
    filled = json.loads(container_entrypoint.complete(json.dumps(invocation), json.dumps(declared)))
    types = {
        name: inputs["artifacts"][0]["type"]["instanceSchema"]
        for name, inputs in filled["inputs"]["artifacts"].items()
    }
    assert types == {
        "model": "title: tfx.Model",
        "baseline": "title: tfx.Model",
        "schema": "title: tfx.Schema",
    }
    assert filled["inputs"]["artifacts"]["model"]["artifacts"][0]["uri"] == "/model"


def test_the_name_of_the_program_is_not_an_argument_for_beam():
    argv = ["entrypoint.py", "--executor_class_path", "E", "--json_serialized_invocation_args", "{}"]
    args, beam_args = container_entrypoint.parse_flags(argv)
    assert args.executor_class_path == "E"
    assert beam_args == []
    assert container_entrypoint.parse_flags([*argv, "--runner=R", "--region=r"])[1] == [
        "--runner=R",
        "--region=r",
    ]


def test_types_are_filled_in_if_the_inputs_are_declared():
    invocation = {"inputs": {"artifacts": {"model": {"artifacts": [{"uri": "/model"}]}}}}
    inputs = {"artifacts": {"model": {"artifactType": {"instanceSchema": "title: tfx.Model"}}}}
    argv = ["entrypoint.py", "--executor_class_path=E"]
    argv.append(f"--json_serialized_invocation_args={json.dumps(invocation)}")
    on_vertex, _ = container_entrypoint.parse_flags(argv)
    assert json.loads(on_vertex.json_serialized_invocation_args) == invocation
    on_kubeflow, _ = container_entrypoint.parse_flags(
        [*argv, f"--json_serialized_inputs_spec_args={json.dumps(inputs)}"]
    )
    assert "tfx.Model" in on_kubeflow.json_serialized_invocation_args


def test_without_declared_types_parameters_are_still_put_in_place():
    invocation = {
        "inputs": {
            "artifacts": {"model": {"artifacts": [{"type": {"instanceSchema": "title: tfx.Model"}}]}},
            "parameters": {
                "schema_file": {"stringValue": "/old/schema.pbtxt"},
                "data_uri": {"stringValue": "/new"},
            },
        },
        "outputs": {"outputFile": "/output.json"},
    }
    completed = json.loads(container_entrypoint.complete(json.dumps(invocation), None))
    assert completed["inputs"]["parameters"] == {"schema_file": {"stringValue": "/new/schema.pbtxt"}}
    assert completed["inputs"]["artifacts"] == invocation["inputs"]["artifacts"]
    assert completed["outputs"] == invocation["outputs"]
