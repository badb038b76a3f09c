import json

import pytest

from pipeline.kubeflow import runtime_parameters

LEGACY = {str: "stringValue", int: "intValue", float: "doubleValue"}


def _inputs(schema, values):
    """Returns the inputs of a step in the form in which a back end sends them."""
    if schema == "2.1":
        # Numbers in JSON arrive as floats.
        numbers = {key: float(v) if isinstance(v, int) else v for key, v in values.items()}
        return {"parameterValues": numbers}
    # Protobuf writes 64-bit integers as strings in JSON.
    return {
        "parameters": {
            key: {LEGACY[type(v)]: str(v) if isinstance(v, int) else v} for key, v in values.items()
        }
    }


def _put_in_place(schema, values):
    inputs = _inputs(schema, values)
    runtime_parameters.put_in_place(inputs, legacy=schema == "2.0")
    if schema == "2.1":
        return inputs["parameterValues"]
    return {key: next(iter(value.values())) for key, value in inputs["parameters"].items()}


@pytest.mark.parametrize("schema", ["2.0", "2.1"])
def test_training_parameters_change_the_settings_of_the_trainer(schema):
    custom_config = {
        "settings": {"seed": 0, "trainer": {"epochs": 2, "learning_rate": 0.1, "batch_size": 8}},
        "source_digest": "abc",
    }
    found = _put_in_place(
        schema,
        {
            "custom_config": json.dumps(custom_config),
            "run_fn": "models.trainer.run_fn",
            "epochs": 3,
            "learning_rate": 1e-3,
            "batch_size": 32,
        },
    )
    assert set(found) == {"custom_config", "run_fn"}
    assert found["run_fn"] == "models.trainer.run_fn"
    expected = {"epochs": 3, "learning_rate": 1e-3, "batch_size": 32}
    placed = json.loads(found["custom_config"])
    assert placed == {**custom_config, "settings": {"seed": 0, "trainer": expected}}
    assert isinstance(placed["settings"]["trainer"]["epochs"], int)


@pytest.mark.parametrize("schema", ["2.0", "2.1"])
def test_the_report_lists_the_settings_that_a_run_has_changed(schema):
    rows = [
        {"key": "trainer.epochs", "value": 2, "origin": "--set"},
        {"key": "trainer.batch_size", "value": 8, "origin": "default"},
        {"key": "seed", "value": 0, "origin": "default"},
    ]
    found = _put_in_place(
        schema, {"context": json.dumps({"name": "n", "configuration": rows}), "epochs": 3, "batch_size": 8}
    )
    assert list(found) == ["context"]
    assert json.loads(found["context"]) == {
        "name": "n",
        "configuration": [{"key": "trainer.epochs", "value": 3, "origin": "runtime parameter"}, *rows[1:]],
    }


@pytest.mark.parametrize("schema", ["2.0", "2.1"])
def test_the_place_of_pushed_models_changes_its_property(schema):
    destination = {"filesystem": {"base_directory": "gs://old/serving/n"}}
    pusher = {
        "push_destination": json.dumps(destination),
        "custom_config": "null",
        "serving_uri": "gs://new/serving/n",
    }
    found = _put_in_place(schema, pusher)
    assert set(found) == {"push_destination", "custom_config"}
    assert json.loads(found["push_destination"]) == {"filesystem": {"base_directory": "gs://new/serving/n"}}
    assert found["custom_config"] == "null"


@pytest.mark.parametrize("schema", ["2.0", "2.1"])
def test_a_step_without_parameters_keeps_its_properties(schema):
    properties = {"expected_digest": "any", "exclude": "[]"}
    assert _put_in_place(schema, properties) == properties
    inputs = {"artifacts": {}}
    runtime_parameters.put_in_place(inputs, legacy=schema == "2.0")
    assert inputs == {"artifacts": {}}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("parameter_field", ["parameters", "parameterValues"])
@pytest.mark.parametrize("property_field", ["parameters", "parameterValues"])
def test_all_values_end_in_the_field_that_tfx_reads(parameter_field, property_field, legacy):
    def as_sent(field, value):
        return {"stringValue": value} if field == "parameters" else value

    inputs = {"parameters": {}, "parameterValues": {}}
    inputs[parameter_field]["serving_uri"] = as_sent(parameter_field, "gs://new/serving/n")
    old = json.dumps({"filesystem": {"base_directory": "gs://old/serving/n"}})
    inputs[property_field]["push_destination"] = as_sent(property_field, old)
    # Values that no runtime parameter changes.
    inputs["parameters"] |= {"expected_digest": {"stringValue": "any"}, "count": {"intValue": "3"}}
    inputs["parameterValues"] |= {"images": 4.0, "threshold": 0.5}
    runtime_parameters.put_in_place(inputs, legacy)
    new = json.dumps({"filesystem": {"base_directory": "gs://new/serving/n"}})
    if legacy:
        assert inputs == {
            "parameters": {
                "push_destination": {"stringValue": new},
                "expected_digest": {"stringValue": "any"},
                "count": {"intValue": "3"},
                "images": {"intValue": 4},
                "threshold": {"doubleValue": 0.5},
            }
        }
    else:
        values = {
            "push_destination": new,
            "expected_digest": "any",
            "count": 3,
            "images": 4,
            "threshold": 0.5,
        }
        assert inputs == {"parameterValues": values}


def test_a_fraction_for_an_integer_is_left_to_the_check_of_the_settings():
    custom_config = json.dumps({"settings": {"trainer": {"epochs": 2}}})
    found = _put_in_place("2.1", {"custom_config": custom_config, "epochs": 2.5})
    assert json.loads(found["custom_config"])["settings"]["trainer"]["epochs"] == 2.5
