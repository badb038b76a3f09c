"""Runtime parameters: values of a compiled pipeline that each run may change.

TFX supports runtime parameters only for whole execution properties, such as one JSON string with all settings
of the Trainer, and does not write their defaults. Here a runtime parameter is a single value with a default,
which the pages of Vertex and Kubeflow show. `declare` adds the parameters to the compiled pipeline; in the
container, `put_in_place` writes their values into the execution properties.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from settings.kubeflow import BackEnd

# Parameter with the digest that the data of a run must have, or `digest.ANY`.
DATA_DIGEST = "data_digest"
# Property of an Importer with the URI that it imports.
_ARTIFACT_URI = "artifact_uri"
# Origin of a value that a run has set, in the report's list of settings.
ORIGIN = "runtime parameter"


@dataclasses.dataclass(frozen=True)
class RuntimeParameter:
    """A parameter of a compiled pipeline.

    Attributes:
      name: its name in the compiled file.
      key: key of the setting that it changes; None if no setting does.
      type: type of its values.
      steps: the steps that receive it, if the pipeline has them -> the name of the parameter in that step.
    """

    name: str
    key: str | None
    type: type[str] | type[int] | type[float]
    steps: Mapping[str, str]


def _trainer_parameter(name: str, type_: type[int] | type[float], *others: str) -> RuntimeParameter:
    # ModelReport gets it, too, to list the settings of the training.
    steps = dict.fromkeys(("Trainer", "ModelReport", *others), name)
    return RuntimeParameter(name, f"trainer.{name}", type_, steps)


PARAMETERS = (
    # These two replace properties of their steps, so that `put_in_place` has nothing to do for them.
    RuntimeParameter("data_uri", "kubeflow.data_uri", str, {"Dataset": _ARTIFACT_URI}),
    RuntimeParameter(DATA_DIGEST, None, str, {"ImportExampleGen": "expected_digest"}),
    RuntimeParameter("serving_uri", "root", str, {"Pusher": "serving_uri"}),
    _trainer_parameter("epochs", int),
    # A Tuner that does not choose these two trains with them.
    _trainer_parameter("learning_rate", float, "Tuner"),
    _trainer_parameter("batch_size", int, "Tuner"),
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}

# Type -> its name in schema 2.0, its name in schema 2.1, and the field that holds a value in schema 2.0.
_TYPES = {
    str: ("STRING", "STRING", "stringValue"),
    int: ("INT", "NUMBER_INTEGER", "intValue"),
    float: ("DOUBLE", "NUMBER_DOUBLE", "doubleValue"),
}


def declare(compiled: dict[str, Any], target: BackEnd, settings: Mapping[str, Any]) -> None:
    """Declares the runtime parameters in a compiled pipeline.

    Args:
      compiled: a PipelineJob of schema 2.0 for `vertex`, a PipelineSpec of schema 2.1 for `kfp`; changed in
        place.
      target: the target that it was compiled for.
      settings: default values of the parameters, by the name of the parameter; a parameter without one is
        not declared. That of a setting that the Tuner chooses has to be left out.
    """
    vertex = target == "vertex"
    spec = compiled["pipelineSpec"] if vertex else compiled
    tasks, components = spec["root"]["dag"]["tasks"], spec["components"]
    declared = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    # TFX compiles the URI of an Importer as a constant.
    dataset = spec["deploymentSpec"]["executors"][components["Dataset"]["executorLabel"]]
    dataset["importer"]["artifactUri"] = {"runtimeParameter": _ARTIFACT_URI}
    for parameter in PARAMETERS:
        if parameter.name not in settings:
            continue
        default = settings[parameter.name]
        type_2_0, type_2_1, field = _TYPES[parameter.type]
        definition = {"type": type_2_0} if vertex else {"parameterType": type_2_1}
        for step, name in parameter.steps.items():
            if step not in tasks:
                continue
            inputs = components[step].setdefault("inputDefinitions", {})
            inputs.setdefault("parameters", {})[name] = dict(definition)
            tasks[step].setdefault("inputs", {}).setdefault("parameters", {})[name] = {
                "componentInputParameter": parameter.name
            }
        if vertex:
            # Schema 2.0 has no defaults; the job holds values instead, which a run may replace.
            values = compiled["runtimeConfig"].setdefault("parameters", {})
            values[parameter.name] = {field: default}
            declared[parameter.name] = definition
        else:
            declared[parameter.name] = {**definition, "defaultValue": default}


def legacy_value(name: str, value: Any) -> dict[str, Any]:
    """Returns the value of a parameter in the form of a job of schema 2.0, such as `{"intValue": 3}`."""
    return {_TYPES[_BY_NAME[name].type][2]: value}


def put_in_place(inputs: dict[str, Any], legacy: bool) -> None:
    """Moves the runtime parameters of a step into the execution properties that hold these settings.

    Args:
      inputs: the `inputs` of the step's ExecutorInput as a JSON object. A back end may send execution
        properties and runtime parameters in `parameters`, in `parameterValues` or in both. Afterwards, all of
        them are in the one field that TFX reads. Changed in place.
      legacy: whether that is `parameters`, as with schema 2.0, and not `parameterValues`, as with 2.1.
    """
    in_legacy = inputs.pop("parameters", {})
    sent = {name: _from_legacy(value) for name, value in in_legacy.items()}
    sent |= inputs.pop("parameterValues", {})
    if not sent:
        return
    given = {name: _typed(parameter, sent.pop(name)) for name, parameter in _BY_NAME.items() if name in sent}
    sent |= dict(_changed(sent, given))
    if legacy:
        inputs["parameters"] = {
            name: in_legacy[name]
            if name in in_legacy and _from_legacy(in_legacy[name]) == value
            else _as_legacy(value)
            for name, value in sent.items()
        }
    else:
        inputs["parameterValues"] = sent


def _from_legacy(value: Mapping[str, Any]) -> Any:
    ((field, found),) = value.items()
    return int(found) if field == "intValue" else found


def _as_legacy(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    return {"intValue": int(value)} if float(value).is_integer() else {"doubleValue": value}


def _typed(parameter: RuntimeParameter, value: Any) -> Any:
    """Converts a value to the type of its parameter.

    In JSON, integers arrive as floats with schema 2.1, and as strings with schema 2.0.
    """
    if parameter.type is str:
        return value
    number = float(value)
    # A fraction for an integer parameter is kept, so that the check of the settings reports it.
    return int(number) if parameter.type is int and number.is_integer() else number


def _changed(properties: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields name and new value of each execution property that the runtime parameters change."""
    trainer_values = {
        key: value
        for name, value in given.items()
        if (key := _BY_NAME[name].key) and key.startswith("trainer.")
    }
    if "serving_uri" in given and "push_destination" in properties:
        yield (
            "push_destination",
            _edited(
                properties["push_destination"],
                lambda destination: destination["filesystem"].update(base_directory=given["serving_uri"]),
            ),
        )
    if trainer_values and "custom_config" in properties:
        yield (
            "custom_config",
            _edited(properties["custom_config"], lambda custom: _set_all(custom["settings"], trainer_values)),
        )
    if trainer_values and "context" in properties:
        yield (
            "context",
            _edited(
                properties["context"],
                lambda context: _set_described(context["configuration"], trainer_values),
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
