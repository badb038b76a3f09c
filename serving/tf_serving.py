"""TensorFlow Serving's REST API: requests, answers and errors, without the transport.

Written from https://www.tensorflow.org/tfx/serving/api_rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from serving import values
from serving.errors import RequestError
from serving.repository import Status
from serving.saved_model import DEFAULT_SIGNATURE, EXAMPLES_INPUT, Model, Tensor

_PROBABILITIES = "probabilities"


@dataclass(frozen=True)
class Predict:
    """A request for predictions.

    Attributes:
      signature: name of the signature.
      inputs: name -> values of each input.
      by_row: whether the request lists instances, and the answer predictions; otherwise both are by name.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    by_row: bool


def read_predict(body: Any, model: Model) -> Predict:
    """Reads the body of a `:predict` request.

    Args:
      body: the decoded JSON.
      model: the version that will answer.

    Raises:
      RequestError: the body is not a request that this model can answer.
    """
    if not isinstance(body, dict):
        raise RequestError(400, "expected a JSON object with `instances` or `inputs`")
    signature = _signature(body, model)
    tensors = model.inputs[signature]
    by_row = "instances" in body
    if by_row == ("inputs" in body):
        raise RequestError(400, "expected either `instances` or `inputs` in the request, and not both")
    columns = _columns(body["instances"], tensors) if by_row else _named(body["inputs"], tensors)
    inputs = {name: values.to_array(columns[name], tensor) for name, tensor in tensors.items()}
    sizes = {len(array) for array in inputs.values()}
    if len(sizes) != 1:
        raise RequestError(400, f"expected inputs of one batch size, found {sorted(sizes)}")
    return Predict(signature, inputs, by_row)


def write_predict(request: Predict, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the body of the answer to a `:predict` request."""
    # Names with this ending mark values that are no text.
    lists = {name: values.to_json(array, binary=name.endswith("_bytes")) for name, array in outputs.items()}
    if request.by_row:
        if len(lists) == 1:
            return {"predictions": next(iter(lists.values()))}
        rows = zip(*lists.values(), strict=True)
        return {"predictions": [dict(zip(lists, row, strict=True)) for row in rows]}
    return {"outputs": next(iter(lists.values())) if len(lists) == 1 else lists}


def read_classify(body: Any, model: Model) -> Predict:
    """Reads the body of a `:classify` request, whose examples are features as JSON.

    Raises:
      RequestError: the body is not a request that this model can answer.
    """
    if not isinstance(body, dict) or not isinstance(body.get("examples"), list) or not body["examples"]:
        raise RequestError(400, "expected a JSON object with a list of `examples`")
    signature = _signature(body, model)
    if list(model.inputs[signature]) != [EXAMPLES_INPUT]:
        raise RequestError(400, f"signature {signature} takes no tf.train.Example, so it cannot classify")
    if not model.class_names or _PROBABILITIES not in model.outputs[signature]:
        raise RequestError(400, f"signature {signature} has no probabilities of named classes")
    context = body.get("context", {})
    examples = [_example(example, context) for example in body["examples"]]
    return Predict(signature, {EXAMPLES_INPUT: np.array(examples, dtype=object)}, by_row=True)


def write_classify(model: Model, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the body of the answer to a `:classify` request: [class, probability] pairs of each example."""
    # The page calls it "result" in one place and "results" in its example; the server's code has "results".
    return {
        "results": [
            [[name, float(p)] for name, p in zip(model.class_names, row, strict=True)]
            for row in outputs[_PROBABILITIES]
        ]
    }


def write_status(statuses: Iterable[Status]) -> dict[str, Any]:
    """Returns the body of the answer to a request for the status of a model."""
    return {
        "model_version_status": [
            {
                "version": str(status.version),
                "state": status.state,
                "status": {
                    "error_code": "OK" if not status.message else "UNKNOWN",
                    "error_message": status.message,
                },
            }
            for status in statuses
        ]
    }


def write_metadata(name: str, model: Model) -> dict[str, Any]:
    """Returns the body of the answer to a request for the signatures of a model."""
    signatures = {
        signature: {
            "inputs": _describe(model.inputs[signature].values()),
            "outputs": _describe(model.outputs[signature].values()),
            "method_name": "tensorflow/serving/predict",
        }
        for signature in model.inputs
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(model.version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _signature(body: Mapping[str, Any], model: Model) -> str:
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise RequestError(400, f"signature_name: expected a text, found {type(name).__name__}")
    name = name or DEFAULT_SIGNATURE
    model.check_signature(name)
    return name


def _columns(instances: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Turns rows into the values of each input."""
    if not isinstance(instances, list) or not instances:
        raise RequestError(400, "`instances`: expected a list with at least one element")
    names = set(tensors)
    if all(isinstance(row, dict) and row.keys() == names for row in instances):
        return {name: [row[name] for row in instances] for name in tensors}
    if len(tensors) > 1 or any(isinstance(row, dict) and row.keys() != {"b64"} for row in instances):
        raise RequestError(400, f"`instances`: expected objects with the keys {', '.join(sorted(names))}")
    return {next(iter(tensors)): instances}


def _named(inputs: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if isinstance(inputs, dict) and inputs.keys() == set(tensors):
        return inputs
    if len(tensors) == 1 and not isinstance(inputs, dict):
        return {next(iter(tensors)): inputs}
    raise RequestError(400, f"`inputs`: expected the keys {', '.join(sorted(tensors))}")


def _example(features: Any, context: Any) -> bytes:
    if not isinstance(features, dict) or not isinstance(context, dict):
        raise RequestError(400, "`examples`: expected objects with a value for each feature")
    if both := sorted(features.keys() & context.keys()):
        raise RequestError(400, f"`examples`: {both[0]} is also in `context`")
    example = tf.train.Example()
    for name, value in {**context, **features}.items():
        items = value if isinstance(value, list) else [value]
        feature = example.features.feature[name]
        if all(isinstance(item, (str, dict)) for item in items):
            feature.bytes_list.value.extend(
                values.to_array(items, Tensor(name, tf.string, (None,))).tolist() if items else []
            )
        elif all(type(item) is int and -(2**63) <= item < 2**63 for item in items):
            feature.int64_list.value.extend(items)
        elif all(type(item) in (int, float) for item in items):
            feature.float_list.value.extend(float(item) for item in items)
        else:
            raise RequestError(400, f"`examples`: {name}: expected texts, integers or numbers")
    return example.SerializeToString()


def _describe(tensors: Iterable[Tensor]) -> dict[str, Any]:
    return {
        tensor.name: {
            "dtype": types_pb2.DataType.Name(tensor.dtype.as_datatype_enum),
            "tensor_shape": {
                "dim": [{"size": str(-1 if size is None else size), "name": ""} for size in tensor.shape],
                "unknown_rank": False,
            },
            "name": tensor.name,
        }
        for tensor in tensors
    }
