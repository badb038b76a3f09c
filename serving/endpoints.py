"""The paths of TensorFlow Serving's REST API and of the Open Inference Protocol (V2)."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import fastapi
import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serving import descriptions, open_inference, tf_serving
from serving.descriptions import BINARY, JSON
from serving.engine import Engine
from serving.errors import RequestError
from serving.repository import AVAILABLE
from serving.saved_model import Model

# Seconds in which a body has to arrive, so that slow clients do not keep others out; otherwise the status.
_BODY_SECONDS, TOO_LATE = 60, 408
# How much is still read of the body of a request that is refused.
_DRAINED_BYTES, _DRAINED_SECONDS = 256 * 2**20, 10

Name = Annotated[str, fastapi.Path(description="Name of the model.")]
_Version = Annotated[str, fastapi.Path(description="Number of a version.")]
_Label = Annotated[str, fastapi.Path(description="`stable` or `canary`.")]


@dataclass(frozen=True)
class _Target:
    """The model that a path names, and its version or label, if it names one."""

    name: str
    version: int | None = None
    label: str | None = None


async def _any_version(name: Name) -> _Target:
    return _Target(name)


async def _one_version(name: Name, version: _Version) -> _Target:
    if not re.fullmatch(r"[0-9]{1,18}", version):
        raise RequestError(404, f"Could not find version {version!r}: expected a number")
    return _Target(name, int(version))


async def _labelled_version(name: Name, label: _Label) -> _Target:
    return _Target(name, label=label)


_FindTarget = Callable[..., Awaitable[_Target]]
_VERSIONS: dict[str, _FindTarget] = {"": _any_version, "/versions/{version}": _one_version}
_LABELS: dict[str, _FindTarget] = {"/labels/{label}": _labelled_version}


def json_response(value: Mapping[str, Any]) -> Response:
    """Returns an answer with a JSON object."""
    return Response(orjson.dumps(value), media_type=JSON)


def add_tf_serving(app: FastAPI, engine: Engine) -> None:
    """Adds TensorFlow Serving's REST API, a list of the models, and the comparison with a shadow."""
    repository = engine.repository
    model_path = "/v1/models/{name}"

    @app.get("/v1/models", summary="Names of the models")
    async def models() -> Response:
        return json_response({"models": repository.names()})

    @app.get(
        f"{model_path}/comparison",
        summary="A shadow beside the version that answers",
        responses=descriptions.NOT_FOUND,
    )
    async def comparison(name: Name) -> Response:
        repository.status(name)
        found = engine.comparisons.get(name)
        return json_response(found.to_json() if found else {"images": 0})

    def add(suffix: str, find_target: _FindTarget) -> None:
        path = model_path + suffix

        @app.post(
            f"{path}:predict",
            summary="Predict, as TensorFlow Serving does",
            responses=descriptions.ERRORS,
            openapi_extra=descriptions.PREDICT,
        )
        async def predict(request: Request, target: _Target = fastapi.Depends(find_target)) -> Response:
            async def compute(model: Model, body: bytes) -> Response:
                parsed = tf_serving.read_predict(_loads(body), model)
                outputs = await engine.run(target.name, model, parsed.signature, parsed.inputs)
                return json_response(tf_serving.write_predict(parsed, outputs))

            return await _answer(engine, target, request, compute)

        @app.post(
            f"{path}:classify",
            summary="Classify, as TensorFlow Serving does",
            responses=descriptions.ERRORS,
            openapi_extra=descriptions.CLASSIFY,
        )
        async def classify(request: Request, target: _Target = fastapi.Depends(find_target)) -> Response:
            async def compute(model: Model, body: bytes) -> Response:
                parsed = tf_serving.read_classify(_loads(body), model)
                outputs = await engine.run(target.name, model, parsed.signature, parsed.inputs)
                return json_response(tf_serving.write_classify(model, outputs))

            return await _answer(engine, target, request, compute)

        @app.get(f"{path}:predict", include_in_schema=False)
        @app.get(f"{path}:classify", include_in_schema=False)
        async def wrong_method() -> Response:
            # Otherwise the name of the model would be taken to end in ":predict".
            raise HTTPException(405, "Method Not Allowed; expected POST", {"Allow": "POST"})

        @app.get(f"{path}/metadata", summary="Signatures of a version", responses=descriptions.NOT_FOUND)
        async def metadata(target: _Target = fastapi.Depends(find_target)) -> Response:
            model = repository.find(target.name, target.version, target.label)
            return json_response(tf_serving.write_metadata(target.name, model))

        @app.get(path, summary="State of the versions", responses=descriptions.NOT_FOUND)
        async def status(target: _Target = fastapi.Depends(find_target)) -> Response:
            version = target.version
            if target.label is not None:
                version = repository.find(target.name, label=target.label).version
            return json_response(tf_serving.write_status(repository.status(target.name, version)))

    for suffix, find_target in {**_VERSIONS, **_LABELS}.items():
        add(suffix, find_target)


def add_open_inference(app: FastAPI, engine: Engine) -> None:
    """Adds the Open Inference Protocol (V2), with the extension for binary tensors."""
    repository = engine.repository

    @app.get("/v2", summary="The server")
    async def server() -> Response:
        return json_response(
            {"name": app.title, "version": app.version, "extensions": ["binary_tensor_data"]}
        )

    @app.get("/v2/health/live", summary="Whether the process answers")
    async def live() -> Response:
        return json_response({"live": True})

    @app.get("/v2/health/ready", summary="Whether models are loaded", responses=descriptions.NOT_READY)
    async def ready() -> Response:
        engine.check_ready()
        return json_response({"ready": True})

    def add(suffix: str, find_target: _FindTarget) -> None:
        path = "/v2/models/{name}" + suffix

        @app.get(path, summary="Inputs and outputs of a version", responses=descriptions.NOT_FOUND)
        async def model_metadata(target: _Target = fastapi.Depends(find_target)) -> Response:
            model = repository.find(target.name, target.version)
            statuses = repository.status(target.name)
            versions = [status.version for status in statuses if status.state == AVAILABLE]
            return json_response(open_inference.describe(target.name, model, versions))

        @app.get(f"{path}/ready", summary="Whether a version answers", responses=descriptions.NOT_FOUND)
        async def model_ready(target: _Target = fastapi.Depends(find_target)) -> Response:
            model = repository.find(target.name, target.version)
            return json_response({"name": target.name, "version": str(model.version), "ready": True})

        @app.post(
            f"{path}/infer",
            summary="Inference, as the Open Inference Protocol describes it",
            responses=descriptions.ERRORS,
            openapi_extra=descriptions.INFER,
        )
        async def infer(request: Request, target: _Target = fastapi.Depends(find_target)) -> Response:
            async def compute(model: Model, body: bytes) -> Response:
                length = request.headers.get(open_inference.HEADER_LENGTH)
                parsed = open_inference.read_infer(body, length, model)
                outputs = await engine.run(target.name, model, parsed.signature, parsed.inputs)
                content, header = open_inference.write_infer(parsed, target.name, model, outputs)
                if header is None:
                    return Response(content, media_type=JSON)
                return Response(
                    content, media_type=BINARY, headers={open_inference.HEADER_LENGTH: str(header)}
                )

            return await _answer(engine, target, request, compute)

    for suffix, find_target in _VERSIONS.items():
        add(suffix, find_target)


async def _answer(
    engine: Engine,
    target: _Target,
    request: Request,
    compute: Callable[[Model, bytes], Awaitable[Response]],
) -> Response:
    """Lets the version that a path names answer a request."""
    with engine.answering(target.name, target.version, target.label) as model:
        return await compute(model, await _body(request, engine.limits.max_body))


async def _body(request: Request, limit: int) -> bytes:
    """Returns the body of a request, of at most `limit` bytes."""
    too_large = RequestError(413, f"expected a body of at most {limit:,} bytes")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large

    async def read() -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large
            parts.append(part)
        return b"".join(parts)

    try:
        return await asyncio.wait_for(read(), _BODY_SECONDS)
    except ClientDisconnect:
        raise RequestError(400, "the connection ended before the body") from None
    except asyncio.TimeoutError:
        raise RequestError(TOO_LATE, f"expected the body within {_BODY_SECONDS} seconds") from None


async def drain(request: Request) -> None:
    """Reads a bounded rest of a body that nobody wants, so that the client can send it.

    A client that sends while the server closes the connection gets a broken pipe instead of an answer. The
    rest is not read if the client waits with it for the answer, as it says with the header `Expect`.
    """
    if "expect" in request.headers:
        return

    async def read() -> None:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > _DRAINED_BYTES:
                return

    # RuntimeError: the body was read before.
    with contextlib.suppress(ClientDisconnect, RuntimeError, asyncio.TimeoutError):
        await asyncio.wait_for(read(), _DRAINED_SECONDS)


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"JSON Parse error: {error}") from None
