"""Google Cloud Storage on this machine, for Google's clients and for TensorFlow.

Google's clients take the address of an emulator from STORAGE_EMULATOR_HOST. TensorFlow has the addresses of
Google's servers built in; it reaches the emulator through a proxy that answers in their place.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcp_storage_emulator import server

from tests import certificates

# The hosts that TensorFlow calls.
_HOSTS = ("www.googleapis.com", "storage.googleapis.com")
_emulator_reads = server._read_data


def _read_data(handler: Any, query: dict[str, list[str]]) -> Any:
    """Reads what TensorFlow uploads, which the emulator does not do alone.

    TensorFlow sends a Content-Length beside chunks, which is then to be ignored, and marks a folder with an
    upload without content.
    """
    if handler.headers.get("Transfer-Encoding") == "chunked":
        del handler.headers["Content-Length"]
    data = _emulator_reads(handler, query)
    return b"" if data is None and query.get("uploadType") == ["media"] else data


server._read_data = _read_data


@dataclass(frozen=True)
class GoogleStorage:
    """A running emulator.

    Attributes:
      endpoint: its address, for STORAGE_EMULATOR_HOST.
      variables: environment variables with which TensorFlow reads and writes gs:// there.
    """

    endpoint: str
    variables: dict[str, str]


@contextmanager
def serve(folder: Path, bucket: str) -> Iterator[GoogleStorage]:
    """Runs an emulator with one empty bucket while the body runs.

    Args:
      folder: a folder for the certificate of the proxy.
      bucket: name of the bucket.
    """
    port = _free_port()
    certificate = certificates.create(folder / "google.pem", *_HOSTS)
    proxy = _Proxy(certificate, port)
    emulator = server.create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket)
    emulator.start()
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{proxy.server_address[1]}"
    try:
        yield GoogleStorage(
            f"http://127.0.0.1:{port}",
            {
                "http_proxy": address,
                "https_proxy": address,
                "CURL_CA_BUNDLE": str(certificate),
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            },
        )
    finally:
        proxy.shutdown()
        proxy.server_close()
        emulator.stop()
        thread.join()


class _Proxy(socketserver.ThreadingTCPServer):
    """Passes requests for Google's hosts to the emulator, which ends a connection after one answer."""

    daemon_threads = True

    def __init__(self, certificate: Path, port: int) -> None:
        self.port = port
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        super().__init__(("127.0.0.1", 0), _Connection)


class _Connection(socketserver.BaseRequestHandler):
    server: _Proxy

    def handle(self) -> None:
        method, target, _ = self._read_line().split()
        assert target.removeprefix("http://").startswith(_HOSTS), target
        with socket.create_connection(("127.0.0.1", self.server.port)) as emulator:
            if method == "CONNECT":
                while self._read_line():
                    pass
                self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                client = self.server.context.wrap_socket(self.request, server_side=True)
            else:
                # The emulator calls itself http://, and takes only the path of an address.
                client = self.request
                path = target.removeprefix("http://").partition("/")[2]
                emulator.sendall(f"{method} /{path} HTTP/1.1\r\n".encode())
            back = threading.Thread(target=_copy, args=(emulator, client))
            back.start()
            _copy(client, emulator)
            back.join()

    def _read_line(self) -> str:
        line = b""
        while not line.endswith(b"\r\n"):
            line += self.request.recv(1)
        return line.decode().strip()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copies bytes until the source has no more, and tells the target so."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # The other side has closed the connection.


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
