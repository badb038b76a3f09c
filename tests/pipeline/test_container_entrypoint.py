import json

from pipeline import container_entrypoint


def test_a_type_that_is_missing_is_the_declared_one_and_any_other_is_kept():
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


def test_without_declared_types_the_parameters_are_put_in_place():
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
