"""The parameters of a compiled pipeline that every run may set anew: where they stand, and where they arrive.

TFX itself has parameters for whole execution properties only, such as all settings of the Trainer in one
JSON string, and leaves out their defaults. Here a parameter is one value with its default, as the pages of
Vertex and Kubeflow show it; in the container it is put into the property that it belongs to.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from settings.kubeflow import BackEnd
from settings.training import TUNED

# What a value that a run has set comes from, in the list of settings of the report.
ORIGIN = "runtime parameter"


@dataclasses.dataclass(frozen=True)
class RuntimeParameter:
    """A parameter of a compiled pipeline.

    Attributes:
      name: in the compiled file.
      key: of the setting that it stands for.
      type: of its values.
      steps: that depend on it, each with the name that it has there.
      is_tuned: whether the Tuner chooses the value, where there is one.
    """

    name: str
    key: str
    type: type[str] | type[int] | type[float]
    steps: Mapping[str, str]
    is_tuned: bool = False


def _of_training(name: str, type_: type[int] | type[float]) -> RuntimeParameter:
    # The report lists the settings that the model was made with.
    steps = {"Trainer": name, "ModelReport": name}
    return RuntimeParameter(name, f"trainer.{name}", type_, steps, is_tuned=name in TUNED)


PARAMETERS = (
    # The data's fingerprint is taken before the container starts, where only TFX's own property is known.
    RuntimeParameter(
        "data_uri",
        "kubeflow.data_uri",
        str,
        {"ImportExampleGen": "input_base", "ImportSchemaGen": "data_uri"},
    ),
    RuntimeParameter("serving_uri", "root", str, {"Pusher": "serving_uri"}),
    _of_training("epochs", int),
    _of_training("learning_rate", float),
    _of_training("batch_size", int),
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}

# Type -> what it is called in schema 2.0 and 2.1, and the field of a value of schema 2.0.
_TYPES = {
    str: ("STRING", "STRING", "stringValue"),
    int: ("INT", "NUMBER_INTEGER", "intValue"),
    float: ("DOUBLE", "NUMBER_DOUBLE", "doubleValue"),
}


def declare(compiled: dict[str, Any], target: BackEnd, settings: Mapping[str, Any]) -> None:
    """Gives a compiled pipeline its parameters, with defaults.

    Args:
      compiled: a PipelineJob of schema 2.0 for `vertex`, a PipelineSpec of schema 2.1 for `kfp`; changed.
      target: what it was compiled for.
      settings: the compiled values of the parameters, by name.
    """
    vertex = target == "vertex"
    spec = compiled["pipelineSpec"] if vertex else compiled
    tasks, components = spec["root"]["dag"]["tasks"], spec["components"]
    declared = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    for parameter in PARAMETERS:
        if parameter.is_tuned and "Tuner" in tasks:
            continue
        default = settings[parameter.name]
        type_2_0, type_2_1, field = _TYPES[parameter.type]
        definition = {"type": type_2_0} if vertex else {"parameterType": type_2_1}
        for step, name in parameter.steps.items():
            components[step]["inputDefinitions"].setdefault("parameters", {})[name] = dict(definition)
            tasks[step]["inputs"].setdefault("parameters", {})[name] = {
                "componentInputParameter": parameter.name
            }
        if vertex:
            # Schema 2.0 has no place for defaults; a job has one for values, which a run may replace.
            values = compiled["runtimeConfig"].setdefault("parameters", {})
            values[parameter.name] = {field: default}
            declared[parameter.name] = definition
        else:
            declared[parameter.name] = {**definition, "defaultValue": default}


def legacy_value(name: str, value: Any) -> dict[str, Any]:
    """Returns a parameter's value as a job of schema 2.0 has it."""
    return {_TYPES[_BY_NAME[name].type][2]: value}


def put_in_place(inputs: dict[str, Any]) -> None:
    """Puts the parameters that a step was given into the execution properties that they belong to.

    Args:
      inputs: of the step's ExecutorInput, as JSON: `parameters` with schema 2.0, `parameterValues` with 2.1;
        changed.
    """
    for field, read, write in (
        ("parameters", lambda value: next(iter(value.values())), lambda text: {"stringValue": text}),
        ("parameterValues", lambda value: value, lambda text: text),
    ):
        properties = inputs.get(field, {})
        given = {
            name: _typed(parameter, read(properties.pop(name)))
            for name, parameter in _BY_NAME.items()
            if name in properties
        }
        for name, text in _changed({key: read(value) for key, value in properties.items()}, given):
            properties[name] = write(text)


def _typed(parameter: RuntimeParameter, value: Any) -> Any:
    """JSON knows no integers, and the integers of schema 2.0 are strings."""
    if parameter.type is str:
        return value
    number = float(value)
    # What is no integer stays one for the check of the settings, which names it.
    return int(number) if parameter.type is int and number.is_integer() else number


def _changed(properties: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the names and the new values of the properties that the parameters of a step belong to."""
    of_training = {
        _BY_NAME[name].key: v for name, v in given.items() if _BY_NAME[name].key.startswith("trainer.")
    }
    if "data_uri" in given:
        schema = posixpath.basename(properties["schema_file"])
        yield "schema_file", posixpath.join(given["data_uri"], schema)
    if "serving_uri" in given:
        yield (
            "push_destination",
            _edited(
                properties["push_destination"],
                lambda destination: destination["filesystem"].update(base_directory=given["serving_uri"]),
            ),
        )
    if of_training and "custom_config" in properties:
        yield (
            "custom_config",
            _edited(properties["custom_config"], lambda custom: _set_all(custom["settings"], of_training)),
        )
    if of_training and "context" in properties:
        yield (
            "context",
            _edited(
                properties["context"], lambda context: _set_described(context["configuration"], of_training)
            ),
        )


def _edited(text: str, edit: Callable[[Any], None]) -> str:
    value = json.loads(text)
    edit(value)
    return json.dumps(value)


def _set_all(settings: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        section, name = key.split(".")
        settings[section][name] = value


def _set_described(rows: list[dict[str, Any]], values: Mapping[str, Any]) -> None:
    for row in rows:
        value = values.get(row["key"], row["value"])
        if value != row["value"]:
            row.update(value=value, origin=ORIGIN)
