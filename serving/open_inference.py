"""The Open Inference Protocol (V2) over HTTP: requests and answers, with the extension for binary tensors.

Written from https://github.com/kserve/open-inference-protocol and Triton's description of the extension.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from serving import values
from serving.errors import RequestError
from serving.saved_model import BYTES_SIGNATURE, Model, Tensor

HEADER_LENGTH = "inference-header-content-length"
# Type in the protocol -> type of TensorFlow.
_TYPES = {
    "BOOL": tf.bool,
    "UINT8": tf.uint8,
    "UINT16": tf.uint16,
    "UINT32": tf.uint32,
    "UINT64": tf.uint64,
    "INT8": tf.int8,
    "INT16": tf.int16,
    "INT32": tf.int32,
    "INT64": tf.int64,
    "FP16": tf.float16,
    "FP32": tf.float32,
    "FP64": tf.float64,
    "BYTES": tf.string,
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_LENGTH_BYTES = 4  # before each element of a binary BYTES tensor


@dataclass(frozen=True)
class Infer:
    """A request for an inference.

    Attributes:
      signature: name of the signature.
      inputs: name -> values of each input.
      outputs: names of the wanted outputs; None for all.
      binary: names of the outputs that are wanted in binary form.
      id: id of the request, which the answer repeats; None if it has none.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    outputs: Sequence[str] | None
    binary: frozenset[str]
    id: str | None


def read_infer(body: bytes, header_length: str | None, model: Model) -> Infer:
    """Reads the body of an inference request.

    The signature is the parameter `signature_name` of the request, or the one whose inputs have the names of
    the request's inputs.

    Args:
      body: JSON, followed by the binary tensors if there are any.
      header_length: value of the HTTP header `HEADER_LENGTH`, the number of bytes of the JSON; None if there
        is none, and the JSON is the whole body.
      model: the version that will answer.

    Raises:
      RequestError: the body is not a request that this model can answer.
    """
    end = len(body)
    if header_length is not None:
        if not re.fullmatch(r"[0-9]{1,18}", header_length) or int(header_length) > len(body):
            raise RequestError(400, f"{HEADER_LENGTH}: expected a number of at most {len(body)}")
        end = int(header_length)
    try:
        request = orjson.loads(body[:end])
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the request is not JSON: {error}") from None
    sent = _list_of_objects(request, "inputs") if isinstance(request, dict) else None
    if not sent:
        raise RequestError(400, "expected a JSON object with a list of `inputs`")
    names: list[Any] = [tensor.get("name") for tensor in sent]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise RequestError(400, "`inputs`: expected inputs with different names")
    signature = _signature(_parameters(request).get("signature_name"), names, model)
    arrays, rest = {}, memoryview(body)[end:]
    for tensor in sent:
        array, rest = _read_tensor(tensor, model.inputs[signature][tensor["name"]], rest)
        arrays[tensor["name"]] = array
    if len(rest):
        raise RequestError(400, f"found {len(rest)} bytes behind the last binary tensor")
    if len({len(array) for array in arrays.values()}) > 1:
        raise RequestError(400, "expected inputs of one batch size")
    wanted = _list_of_objects(request, "outputs")
    outputs = [str(output.get("name")) for output in wanted] if wanted else None
    known = model.outputs[signature]
    if unknown := [name for name in outputs or () if name not in known]:
        raise RequestError(400, f"unknown output {unknown[0]!r}; expected some of {', '.join(known)}")
    default = _parameters(request).get("binary_data_output", False)
    chosen = {str(output.get("name")): _parameters(output).get("binary_data", default) for output in wanted}
    binary = frozenset(name for name in (outputs or known) if chosen.get(name, default) is True)
    id_ = request.get("id")
    return Infer(signature, arrays, outputs, binary, id_ if isinstance(id_, str) else None)


def write_infer(
    request: Infer, name: str, model: Model, outputs: Mapping[str, np.ndarray]
) -> tuple[bytes, int | None]:
    """Returns the body of an answer.

    Returns:
      (body, number of bytes of its JSON; None if that is the whole body).
    """
    described, blobs = [], []
    for output in request.outputs or outputs:
        array = outputs[output]
        datatype = _datatype(model.outputs[request.signature][output])
        tensor: dict[str, Any] = {"name": output, "datatype": datatype, "shape": list(array.shape)}
        if output in request.binary:
            blobs.append(_to_binary(array))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = values.to_json(array.reshape(-1))
        described.append(tensor)
    answer = {"model_name": name, "model_version": str(model.version), "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    header = orjson.dumps(answer)
    return (header + b"".join(blobs), len(header)) if blobs else (header, None)


def describe(name: str, model: Model, versions: Sequence[int]) -> dict[str, Any]:
    """Returns the metadata of a model: the inputs and outputs of the signature for encoded images."""
    signature = BYTES_SIGNATURE if BYTES_SIGNATURE in model.inputs else next(iter(model.inputs))

    def tensors(named: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        return [
            {
                "name": tensor.name,
                "datatype": _datatype(tensor),
                "shape": [-1 if size is None else size for size in tensor.shape],
            }
            for tensor in named.values()
        ]

    return {
        "name": name,
        "versions": [str(version) for version in versions],
        "platform": "tensorflow_savedmodel",
        "inputs": tensors(model.inputs[signature]),
        "outputs": tensors(model.outputs[signature]),
    }


def _datatype(tensor: Tensor) -> str:
    if tensor.dtype not in _NAMES:
        raise RequestError(400, f"{tensor.name}: the protocol has no type for {tensor.dtype.name}")
    return _NAMES[tensor.dtype]


def _signature(given: Any, names: Sequence[str], model: Model) -> str:
    if given is not None:
        if not isinstance(given, str):
            raise RequestError(400, "signature_name: expected a text")
        model.check_signature(given)
        if model.inputs[given].keys() == set(names):
            return given
    else:
        for signature, inputs in model.inputs.items():
            if inputs.keys() == set(names):
                return signature
    expected = "; ".join(
        f"{', '.join(inputs)} for {signature}"
        for signature, inputs in model.inputs.items()
        if given in (None, signature)
    )
    raise RequestError(400, f"`inputs`: found {', '.join(names)}; expected {expected}")


def _read_tensor(sent: Mapping[str, Any], tensor: Tensor, rest: memoryview) -> tuple[np.ndarray, memoryview]:
    """Returns (values of an input, the bytes behind it)."""
    datatype, shape = sent.get("datatype"), sent.get("shape")
    expected = _datatype(tensor)
    if datatype != expected:
        raise RequestError(400, f"input {tensor.name}: expected the datatype {expected}, found another one")
    if (
        not isinstance(shape, list)
        or len(shape) != len(tensor.shape)
        or not all(type(size) is int and 0 <= size < 2**31 for size in shape)
    ):
        raise RequestError(400, f"input {tensor.name}: `shape`: expected {len(tensor.shape)} sizes")
    size = _parameters(sent).get("binary_data_size")
    if size is None:
        data = _flat(sent.get("data"), len(shape))
        flat = values.to_array(data, Tensor(tensor.name, tensor.dtype, (None,)))
    else:
        if type(size) is not int or not 0 <= size <= len(rest):
            raise RequestError(400, f"input {tensor.name}: expected {size!r} binary bytes, found {len(rest)}")
        flat, rest = _from_binary(rest[:size], tensor), rest[size:]
    if flat.size != math.prod(shape):
        raise RequestError(400, f"input {tensor.name}: {flat.size} values do not have the shape {shape}")
    array = flat.reshape(shape)
    values.check_shape(array, tensor)
    return array, rest


def _flat(data: Any, depth: int) -> list[Any]:
    """Returns the elements of at most `depth` nested lists, or of one list, in the order of rows."""
    if not isinstance(data, list):
        raise RequestError(400, "`data`: expected a list")
    if depth <= 1 or not any(isinstance(part, list) for part in data):
        return data
    return [item for part in data for item in _flat(part, depth - 1)]


def _from_binary(data: memoryview, tensor: Tensor) -> np.ndarray:
    if tensor.dtype != tf.string:
        dtype = np.dtype(tensor.dtype.as_numpy_dtype).newbyteorder("<")
        if len(data) % dtype.itemsize:
            raise RequestError(
                400, f"input {tensor.name}: {len(data)} bytes are no whole {dtype.name} values"
            )
        return np.frombuffer(data, dtype).astype(tensor.dtype.as_numpy_dtype)
    elements, start = [], 0
    while start < len(data):
        length = int.from_bytes(data[start : start + _LENGTH_BYTES], "little")
        end = start + _LENGTH_BYTES + length
        if end > len(data):
            raise RequestError(400, f"input {tensor.name}: the binary data ends in the middle of an element")
        elements.append(bytes(data[start + _LENGTH_BYTES : end]))
        start = end
    return np.array(elements, dtype=object)


def _to_binary(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<")).tobytes()
    return b"".join(len(item).to_bytes(_LENGTH_BYTES, "little") + item for item in array.reshape(-1))


def _list_of_objects(request: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = request.get(key, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise RequestError(400, f"`{key}`: expected a list of objects, found another value")
    return found


def _parameters(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    found = holder.get("parameters", {})
    return found if isinstance(found, dict) else {}
