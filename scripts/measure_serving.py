"""Measures the model server beside the bare model.

    python scripts/measure_serving.py runs/serving/NAME/VERSION

The bare model is the SavedModel, called in a loop with encoded images. The server is a process of its own.
Clients in another process keep one connection each, and ask about one image at a time, as fast as they are
answered. All share the cores of this machine. The throughput "without the clients' work" is that of the
time which the clients leave: images / (seconds - CPU seconds of the clients / cores).

`--soak SECONDS` then asks at a steady rate, 80 % of what the server has just reached with the protocol V2,
while new versions, copies of the same model, are pushed every half minute.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import PIL.Image
import requests
import typer

_NAME, _SIGNATURE, _INPUT = "model", "serve_image_bytes", "image_bytes"
_PROTOCOLS = ("json", "v2", "grpc")
_BARE_BATCHES = (1, 32)
_LOAD = 0.8  # of the server's capacity, in the soak
_SWAP_SECONDS = 30


@dataclass
class Result:
    """What a process of clients has measured.

    Attributes:
      seconds: from the first request to the last answer.
      cpu_seconds: processor time of the clients.
      latencies: seconds of each request, in the order of the answers.
      versions: version that answered each request, where the protocol tells it.
      failures: requests without a right answer.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    failures: int = 0

    def percentile(self, share: float) -> float:
        """Returns the milliseconds within which a share of the requests, in percent, was answered."""
        return 1000 * float(np.percentile(self.latencies, share))


def main(
    model: Annotated[Path, typer.Argument(help="A version of a pushed model.")],
    clients: Annotated[int, typer.Option(min=1, help="Clients that ask at the same time.")] = 32,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each measurement.")] = 8,
    side: Annotated[int, typer.Option(min=1, help="Width and height of the images in pixels.")] = 32,
    soak: Annotated[float, typer.Option(min=0, help="Duration of the soak in seconds; 0 for none.")] = 0,
) -> None:
    """Measures the bare model, and the server with each protocol."""
    image = _picture(side)
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    spawn = multiprocessing.get_context("spawn")  # TensorFlow must not be loaded before a process is forked
    with spawn.Pool(1) as pool:
        bare = pool.apply(_measure_bare, (model, image, seconds))
    for batch, (rate, latency) in bare.items():
        print(f"bare model, batch {batch}: {rate:.0f} images/s, p50 {latency:.2f} ms")
    with tempfile.TemporaryDirectory() as folder, spawn.Pool(1) as pool:
        root = Path(folder)
        _push(model, root, 1)
        http, rpc = _free_port(), _free_port()
        command = [sys.executable, "-m", "serving.server", "--models", str(root.resolve())]
        command += ["--port", str(http), "--grpc-port", str(rpc)]
        repository = Path(__file__).resolve().parents[1]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=repository)
        try:
            _wait_until_ready(http, server)
            best = 0.0
            for protocol in _PROTOCOLS:
                port = rpc if protocol == "grpc" else http
                pool.apply(_ask, (protocol, port, image, clients, 1.0, None))  # warms up
                one = pool.apply(_ask, (protocol, port, image, 1, seconds, None))
                p50 = one.percentile(50)
                print(f"{protocol}, 1 client: p50 {p50:.2f} ms, {p50 - bare[1][1]:+.2f} to the bare model")
                many = pool.apply(_ask, (protocol, port, image, clients, seconds, None))
                rate = len(many.latencies) / many.seconds
                left = len(many.latencies) / (many.seconds - many.cpu_seconds / (os.cpu_count() or 1))
                best = rate if protocol == "v2" else best
                print(
                    f"{protocol}, {clients} clients: {rate:.0f} images/s, {left:.0f} without the clients' "
                    f"work: {left / bare[32][0]:.2f} of the bare model at batch 32; p50 "
                    f"{many.percentile(50):.1f} ms, p99 {many.percentile(99):.1f}; {many.failures} failures"
                )
            if soak:
                _soak(
                    model,
                    root,
                    server,
                    lambda: pool.apply(_ask, ("v2", http, image, clients, soak, _LOAD * best)),
                )
        finally:
            server.terminate()
            server.wait()
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


def _soak(model: Path, root: Path, server: subprocess.Popen[bytes], ask: Callable[[], Result]) -> None:
    """Pushes new versions while clients ask, and reports failures, first answers after swaps, and memory."""
    stop, memory = threading.Event(), []

    def push() -> None:
        version = 1
        while not stop.wait(_SWAP_SECONDS):
            version += 1
            _push(model, root, version)

    def watch() -> None:
        while not stop.wait(1):
            memory.append(_resident_mib(server.pid))

    threads = [threading.Thread(target=push), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    result = ask()
    stop.set()
    for thread in threads:
        thread.join()
    swaps = [
        latency
        for before, after, latency in zip(
            result.versions, result.versions[1:], result.latencies[1:], strict=False
        )
        if before != after
    ]
    p99 = result.percentile(99)
    print(
        f"soak: {len(result.latencies)} requests in {result.seconds:.0f} s, {result.failures} failures, p50 "
        f"{result.percentile(50):.1f} ms, p99 {p99:.1f} ms, {len(set(result.versions))} versions answered"
    )
    if swaps:
        slowest = 1000 * max(swaps)
        print(f"first answers after a swap: at most {slowest:.1f} ms, {slowest / p99:.2f} of p99")
    # Each period has the highest memory once, while a version is loaded. The first two have fewer versions in
    # memory than the others.
    periods = [
        max(memory[i : i + _SWAP_SECONDS]) for i in range(0, len(memory) - _SWAP_SECONDS + 1, _SWAP_SECONDS)
    ]
    print(f"memory, highest of each {_SWAP_SECONDS} s: {', '.join(f'{each:.0f}' for each in periods)} MiB")


def _measure_bare(model: Path, image: bytes, seconds: float) -> dict[int, tuple[float, float]]:
    """Calls the SavedModel in a loop; returns batch -> (images per second, median of the milliseconds)."""
    import tensorflow as tf  # noqa: PLC0415 - in the process that needs it

    signature = tf.saved_model.load(str(model)).signatures[_SIGNATURE]
    measured = {}
    for batch in _BARE_BATCHES:
        images = np.array([image] * batch, dtype=object)

        def call(images: np.ndarray = images) -> None:
            for output in signature(**{_INPUT: tf.constant(images)}).values():
                output.numpy()

        for _ in range(10):
            call()
        durations = []
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            call()
            durations.append(time.perf_counter() - start)
        measured[batch] = (batch / float(np.mean(durations)), 1000 * float(np.median(durations)))
    return measured


def _ask(protocol: str, port: int, image: bytes, clients: int, seconds: float, rate: float | None) -> Result:
    """Lets clients ask for some seconds, at a rate in requests per second; None: as fast as possible."""

    async def run() -> Result:
        result = Result()
        connect = _connect_grpc if protocol == "grpc" else _connect_http
        asks = [await connect(protocol, port, image) for _ in range(clients)]
        cpu, start = time.process_time(), time.perf_counter()
        await asyncio.gather(
            *(
                _client(ask, result, start, seconds, _times(rate, clients, number))
                for number, ask in enumerate(asks)
            )
        )
        result.seconds, result.cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        return result

    return asyncio.run(run())


def _times(rate: float | None, clients: int, number: int) -> Iterator[float]:
    """Yields the seconds from the start at which a client asks."""
    count = 0
    while True:
        yield 0.0 if rate is None else (count * clients + number) / rate
        count += 1


async def _client(
    ask: Callable[[], Awaitable[str]], result: Result, start: float, seconds: float, times: Iterator[float]
) -> None:
    for planned in times:
        if max(planned, time.perf_counter() - start) >= seconds:
            return
        await asyncio.sleep(max(0.0, start + planned - time.perf_counter()))
        sent = time.perf_counter()
        try:
            result.versions.append(await ask())
            result.latencies.append(time.perf_counter() - sent)
        except Exception as error:  # whatever it is, the request has failed
            result.failures += 1
            if result.failures == 1:
                print(f"first failure: {error!r}", file=sys.stderr)


async def _connect_http(protocol: str, port: int, image: bytes) -> Callable[[], Awaitable[str]]:
    """Returns a function that asks over one connection, and returns the version that has answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = _request(protocol, image)

    async def ask() -> str:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        assert length, head
        body = await reader.readexactly(int(length.group(1)))
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(body.decode("utf-8", "replace"))
        version = re.search(rb'"model_version":"(\d+)"', body)
        return version.group(1).decode() if version else ""

    return ask


async def _connect_grpc(_: str, port: int, image: bytes) -> Callable[[], Awaitable[str]]:
    import tensorflow as tf  # noqa: PLC0415 - in the process that needs it
    from tensorflow_serving.apis import predict_pb2  # noqa: PLC0415

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = _NAME, _SIGNATURE
    request.inputs[_INPUT].CopyFrom(tf.make_tensor_proto([image]))
    message = request.SerializeToString()
    # A channel of its own is a connection of its own, as different clients have.
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

    async def ask() -> str:
        await call(message)
        return ""

    return ask


def _request(protocol: str, image: bytes) -> bytes:
    """Returns the bytes of an HTTP request about one image."""
    headers = ""
    if protocol == "json":
        path = f"/v1/models/{_NAME}:predict"
        instance = {"b64": base64.b64encode(image).decode()}
        body = json.dumps({"signature_name": _SIGNATURE, "instances": [instance]}).encode()
    else:
        path = f"/v2/models/{_NAME}/infer"
        data = len(image).to_bytes(4, "little") + image
        tensor: dict[str, Any] = {"name": _INPUT, "shape": [1], "datatype": "BYTES"}
        tensor["parameters"] = {"binary_data_size": len(data)}
        parameters = {"signature_name": _SIGNATURE, "binary_data_output": True}
        head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        headers = f"Inference-Header-Content-Length: {len(head)}\r\n"
        body = head + data
    start = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return start.encode() + body


def _picture(side: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _push(model: Path, root: Path, version: int) -> None:
    """Copies a model to a version that appears at once as a whole."""
    part = root / _NAME / f".{version}"
    shutil.copytree(model, part)
    part.rename(root / _NAME / str(version))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            if requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    sys.exit(
        "error: the server has ended; start it by hand to see why: python -m serving.server --models ..."
    )


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024  # type: ignore[union-attr]


if __name__ == "__main__":
    typer.run(main)
