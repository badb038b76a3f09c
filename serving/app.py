"""The web application of the server: its interfaces, health, measurements, and the form of its errors."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from serving import descriptions, endpoints, rpc
from serving.endpoints import json_response
from serving.engine import Engine, Limits
from serving.errors import RequestError
from serving.metrics import CONTENT_TYPE

# Seconds in which requests are still answered after the signal to stop.
GRACE_SECONDS = 30
_PAGE = Path(__file__).parent / "page"


def create(root: Path, limits: Limits, grpc_address: str | None = None) -> FastAPI:
    """Creates the application.

    Args:
      root: folder with one folder of versions for each model.
      limits: what the server accepts.
      grpc_address: host and port on which gRPC requests are answered; None answers none.
    """
    engine = Engine(root, limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        watcher = threading.Thread(target=engine.watch, args=(stop,), name="versions")
        async with contextlib.AsyncExitStack() as stack:
            if grpc_address is not None:
                await stack.enter_async_context(rpc.serve(engine, grpc_address, GRACE_SECONDS))
            watcher.start()
            yield
        stop.set()
        # A version that is being loaded is finished: TensorFlow must not be in use when the process ends.
        await asyncio.to_thread(watcher.join)

    app = FastAPI(
        title="Image classification",
        description="TensorFlow Serving's REST API and the Open Inference Protocol (V2) for pushed models.",
        lifespan=lifespan,
        redoc_url=None,
    )
    for kind in (RequestError, HTTPException):
        app.add_exception_handler(kind, _as_answer)
    _add_health(app, engine)
    endpoints.add_tf_serving(app, engine)
    endpoints.add_open_inference(app, engine)
    if _PAGE.is_dir():
        app.mount("/", StaticFiles(directory=_PAGE, html=True))
    return app


def _add_health(app: FastAPI, engine: Engine) -> None:
    @app.get("/healthz", summary="Whether the process answers")
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @app.get("/readyz", summary="Whether models are loaded", responses=descriptions.NOT_READY)
    async def readyz() -> Response:
        engine.check_ready()
        return json_response({"status": "ready", "models": engine.repository.names()})

    @app.get("/metrics", summary="Measurements for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(engine.metrics.text(), media_type=CONTENT_TYPE)


async def _as_answer(_: Request, error: Exception) -> Response:
    """Returns errors in the form of TensorFlow Serving, which is also that of the Open Inference Protocol."""
    headers = {}
    if isinstance(error, RequestError):
        status, message = error.status, error.message
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
    else:
        assert isinstance(error, HTTPException)
        status, message = error.status_code, str(error.detail)
        headers = dict(error.headers or {})
    return Response(orjson.dumps({"error": message}), status, headers, descriptions.JSON)
