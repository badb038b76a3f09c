"""TensorFlow Serving's gRPC API: predictions, the signatures of a model, and the state of its versions."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving import tf_serving, values
from serving.engine import Engine
from serving.errors import RequestError
from serving.saved_model import DEFAULT_SIGNATURE, Model, Tensor

# Status of HTTP -> status of gRPC.
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_SIGNATURES = "signature_def"  # the only metadata that a model has


@contextlib.asynccontextmanager
async def serve(engine: Engine, address: str, grace: float) -> AsyncIterator[None]:
    """Answers gRPC requests in the running event loop.

    Args:
      engine: answers the requests.
      address: host and port to listen on.
      grace: seconds in which requests that have begun are still answered at the end.

    Raises:
      RuntimeError: nothing can listen on the address.
    """
    options = [
        ("grpc.max_receive_message_length", engine.limits.max_body),
        ("grpc.max_send_message_length", -1),
        # Otherwise a second server on the same port would get a part of the requests.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(engine), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(engine), server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace)


def _answers(method: Callable[[Any, Any], Awaitable[Message]]) -> Callable[..., Awaitable[Message | None]]:
    """Makes a method of a service from one that raises RequestError and knows nothing of gRPC's context."""

    @functools.wraps(method)
    async def answer(self: Any, request: Any, context: grpc.aio.ServicerContext) -> Message | None:
        try:
            return await method(self, request)
        except RequestError as error:
            await context.abort(_CODES.get(error.status, grpc.StatusCode.INTERNAL), error.message)
            return None

    return answer


async def _not_implemented(_: Any, request: Message, context: grpc.aio.ServicerContext) -> None:
    """Refuses a method; those of the generated classes also write a traceback into the log."""
    text = "Method not implemented; expected Predict, GetModelMetadata or GetModelStatus"
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata."""

    Classify = Regress = MultiInference = _not_implemented

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @_answers
    async def Predict(  # noqa: N802 - the name in the API
        self, request: predict_pb2.PredictRequest
    ) -> predict_pb2.PredictResponse:
        spec = request.model_spec
        with self._engine.answering(spec.name, *_version(spec)) as model:
            signature = spec.signature_name or DEFAULT_SIGNATURE
            inputs = _read_inputs(request, signature, model, self._engine.limits.max_body)
            wanted = _wanted(request, signature, model)
            outputs = await self._engine.run(spec.name, model, signature, inputs)
        return predict_pb2.PredictResponse(
            model_spec=_spec(spec.name, model, signature),
            outputs={name: tf.make_tensor_proto(outputs[name]) for name in wanted},
        )

    @_answers
    async def GetModelMetadata(  # noqa: N802 - the name in the API
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        spec = request.model_spec
        if unknown := set(request.metadata_field) - {_SIGNATURES}:
            raise RequestError(400, f"Metadata field {min(unknown)} is not supported")
        model = self._engine.repository.find(spec.name, *_version(spec))
        signatures = get_model_metadata_pb2.SignatureDefMap()
        described = tf_serving.write_metadata(spec.name, model)
        json_format.ParseDict(described["metadata"][_SIGNATURES], signatures)
        answer = get_model_metadata_pb2.GetModelMetadataResponse(
            model_spec=_spec(spec.name, model, signature="")
        )
        answer.metadata[_SIGNATURES].Pack(signatures)
        return answer


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus."""

    HandleReloadConfigRequest = _not_implemented

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @_answers
    async def GetModelStatus(  # noqa: N802 - the name in the API
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        spec, repository = request.model_spec, self._engine.repository
        version, label = _version(spec)
        if label is not None:
            version = repository.find(spec.name, label=label).version
        answer = get_model_status_pb2.GetModelStatusResponse()
        for status in repository.status(spec.name, version):
            added = answer.model_version_status.add(
                version=status.version,
                state=get_model_status_pb2.ModelVersionStatus.State.Value(status.state),
            )
            added.status.error_message = status.message
            if status.message:
                added.status.error_code = error_codes_pb2.UNKNOWN
        return answer


def _version(spec: model_pb2.ModelSpec) -> tuple[int | None, str | None]:
    """Returns the version and the label that a request names."""
    number = spec.version.value if spec.HasField("version") else None
    return number, spec.version_label if spec.HasField("version_label") else None


def _spec(name: str, model: Model, signature: str) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name, signature_name=signature)
    spec.version.value = model.version
    return spec


def _read_inputs(
    request: predict_pb2.PredictRequest, signature: str, model: Model, limit: int
) -> dict[str, np.ndarray]:
    model.check_signature(signature)
    tensors = model.inputs[signature]
    if request.inputs.keys() != tensors.keys():
        raise RequestError(
            400,
            f"expected the inputs {', '.join(sorted(tensors))}, found {', '.join(sorted(request.inputs))}",
        )
    inputs = {name: _read_tensor(request.inputs[name], tensor, limit) for name, tensor in tensors.items()}
    if len({len(array) for array in inputs.values()}) > 1:
        raise RequestError(400, "expected inputs of one batch size")
    return inputs


def _read_tensor(sent: tf.compat.v1.TensorProto, tensor: Tensor, limit: int) -> np.ndarray:
    """Converts an input to an array of at most `limit` bytes."""
    if sent.dtype != tensor.dtype.as_datatype_enum:
        raise RequestError(
            400, f"input {tensor.name}: expected the type {tensor.dtype.name}, found another one"
        )
    sizes = [dimension.size for dimension in sent.tensor_shape.dim]
    # A message may hold one value for a tensor of any size, which is only made here.
    if min(sizes, default=0) < 0 or math.prod(sizes) * max(tensor.dtype.size, 1) > limit:
        raise RequestError(400, f"input {tensor.name}: expected at most {limit:,} bytes, found {sizes}")
    try:
        array = tf.make_ndarray(sent)
    except (ValueError, TypeError) as error:
        raise RequestError(400, f"input {tensor.name}: {error}") from None
    values.check_shape(array, tensor)
    return array


def _wanted(request: predict_pb2.PredictRequest, signature: str, model: Model) -> list[str]:
    known = model.outputs[signature]
    if unknown := [name for name in request.output_filter if name not in known]:
        raise RequestError(400, f"unknown output {unknown[0]!r}; expected some of {', '.join(known)}")
    return list(request.output_filter or known)
