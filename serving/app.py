"""The web application of the server: its interfaces, health, measurements, and the form of its errors."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from serving import descriptions, endpoints, examples, rpc
from serving.endpoints import json_response
from serving.engine import Engine, Limits
from serving.errors import RequestError
from serving.metrics import CONTENT_TYPE
from serving.request_log import LogOptions

# Seconds in which requests are still answered after the signal to stop.
GRACE_SECONDS = 30
_PAGE = Path(__file__).parent / "page"
# Path -> file of the page. A mounted folder would also take requests with a wrong method for other paths.
_PAGE_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
_PAGE_HEADERS = {
    # Names of classes and files are not under the control of this project: whatever they contain, no other
    # script runs, and nothing is loaded from elsewhere. `blob:` is the image that somebody has chosen.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Otherwise an old script may run with a new page after the server was updated.
    "Cache-Control": "no-cache",
}


def create(
    root: Path, limits: Limits, grpc_address: str | None = None, log: LogOptions | None = None
) -> FastAPI:
    """Creates the application.

    Args:
      root: folder with one folder of versions for each model.
      limits: what the server accepts.
      grpc_address: host and port on which gRPC requests are answered; None answers none.
      log: what is kept of the requests; None keeps nothing.

    Raises:
      OSError: the folder of the log cannot be made.
    """
    engine = Engine(root, limits, log)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        watcher = threading.Thread(target=engine.watch, args=(stop,), name="versions")
        async with contextlib.AsyncExitStack() as stack:
            if grpc_address is not None:
                await stack.enter_async_context(rpc.serve(engine, grpc_address, GRACE_SECONDS))
            watcher.start()
            if engine.log is not None:
                engine.log.start()
            yield
        stop.set()
        # A version that is being loaded is finished: TensorFlow must not be in use when the process ends.
        await asyncio.to_thread(watcher.join)
        if engine.log is not None:
            await asyncio.to_thread(engine.log.close)

    app = FastAPI(
        title="Image classification",
        description="TensorFlow Serving's REST API and the Open Inference Protocol (V2) for pushed models.",
        lifespan=lifespan,
        # Both pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    for kind in (RequestError, HTTPException):
        app.add_exception_handler(kind, _as_answer)
    _add_health(app, engine)
    endpoints.add_tf_serving(app, engine)
    endpoints.add_open_inference(app, engine)
    examples.add(app, engine)
    _add_page(app)
    _add_head(app)
    return app


def _add_head(app: FastAPI) -> None:
    """Answers HEAD wherever GET is answered."""
    for route in list(app.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            app.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)


def _add_page(app: FastAPI) -> None:
    def add(path: str, file: Path) -> None:
        @app.get(path, include_in_schema=False)
        async def page() -> Response:
            return FileResponse(file, headers=_PAGE_HEADERS)

    for path, file in _PAGE_FILES.items():
        add(path, _PAGE / file)


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


async def _as_answer(request: Request, error: Exception) -> Response:
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
    if status != endpoints.TOO_LATE:
        await endpoints.drain(request)
    return Response(orjson.dumps({"error": message}), status, headers, descriptions.JSON)
