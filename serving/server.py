"""Serves all pushed models of a folder over HTTP: `python -m serving.server --models runs/serving`."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from serving import folders, terminal

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=terminal.Command)
def serve(
    models: Annotated[
        Path, typer.Option(help="Folder with one folder of versions for each model, such as runs/serving.")
    ] = Path("runs/serving"),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of HTTP.")] = 8501,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of TensorFlow Serving's gRPC API, usually 8500; none: no gRPC."
        ),
    ] = None,
    max_batch: Annotated[
        int,
        typer.Option(min=1, help="Most images that are computed together; larger requests are split."),
    ] = 64,
    batch_wait_ms: Annotated[
        float, typer.Option(min=0, help="Longest time for which a batch waits for further requests.")
    ] = 2.0,
    max_body_mib: Annotated[float, typer.Option(min=0.001, help="Largest body of a request.")] = 32,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Most pixels of all images of a request, and of a batch.")
    ] = 100_000_000,
    max_concurrent: Annotated[
        int, typer.Option(min=1, help="Most requests at a time; further ones get 429 and Retry-After.")
    ] = 256,
    refresh_seconds: Annotated[
        float, typer.Option(min=0.05, help="Seconds between two looks for new versions.")
    ] = 1.0,
    log_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the requests that is logged for `serving.drift`.")
    ] = 0.0,
    log_dir: Annotated[Path, typer.Option(help="Folder of the log of requests.")] = Path("runs/requests"),
    log_limit: Annotated[
        int, typer.Option(min=1, help="Most images of a model and day that are logged.")
    ] = 100_000,
    log_images: Annotated[
        bool, typer.Option("--log-images", help="Log the images, too, not only their statistics.")
    ] = False,
) -> None:
    """Serves every pushed model below a folder, and takes up new versions without a pause."""
    if not models.is_dir():
        terminal.fail(
            f"--models {models}: expected a folder of pushed models, such as runs/serving, found "
            f"{'a file' if models.exists() else 'nothing'}. A run of local_runner.py that blesses its model "
            "writes it"
        )
    try:
        if problem := folders.check_root(models):
            terminal.fail(f"--models {problem}")
    except OSError as error:
        terminal.fail(f"--models {models}: expected a folder of pushed models: {error.strerror}")
    if grpc_port == port:
        raise typer.BadParameter(f"expected another port than {port}, that of HTTP", param_hint="--grpc-port")
    _check_free("HTTP", host, port)
    if grpc_port is not None:
        _check_free("gRPC", host, grpc_port)
    # TensorFlow reports that parts for GPUs are registered twice, which is of no consequence, as an error.
    # Its errors that matter are Python's exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # On some CPUs TensorFlow switches oneDNN off by default, and is slower.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("serving").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
    # These imports take some 5 seconds; wrong arguments are reported before.
    import uvicorn  # noqa: PLC0415

    from serving import app as application  # noqa: PLC0415
    from serving.engine import Limits  # noqa: PLC0415
    from serving.request_log import LogOptions  # noqa: PLC0415

    limits = Limits(
        max_batch=max_batch,
        batch_wait=batch_wait_ms / 1000,
        max_body=int(max_body_mib * 2**20),
        max_pixels=max_pixels,
        max_concurrent=max_concurrent,
        refresh=refresh_seconds,
    )
    # An IPv6 address needs brackets before a port.
    name = f"[{host}]" if ":" in host else host
    address = None if grpc_port is None else f"{name}:{grpc_port}"
    log = LogOptions(log_dir, log_fraction, log_limit, log_images) if log_fraction > 0 else None
    try:
        created = application.create(models, limits, address, log)
    except OSError as error:
        terminal.fail(f"--log-dir {log_dir}: expected a folder that can be written to: {error}")
    # The imported modules stay: the collection of an unloaded version, during which nothing is answered, need
    # not look through them.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        created,
        host=host,
        port=port,
        access_log=False,
        timeout_graceful_shutdown=application.GRACE_SECONDS,
    )
    try:
        listening = config.bind_socket()  # before models are loaded
    except SystemExit:  # uvicorn has written the reason, such as a port that is in use
        sys.exit(1)
    uvicorn.Server(config).run([listening])


def _check_free(what: str, host: str, port: int) -> None:
    """Ends the program if nothing can listen on a port; the libraries do not say on which, or why not."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        # Python adds the address again, in parentheses.
        reason = (error.strerror or str(error)).partition(" (")[0]
        terminal.fail(f"{what} cannot listen on {host}:{port}: {reason}")


if __name__ == "__main__":
    app()
