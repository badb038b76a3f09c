"""A web API on this machine that answers as a test defines, and records the requests."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """A request; `query` has the first value of each name, `body` is parsed from JSON."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


# Status and body; a body that is not a string is sent as JSON.
Answer = tuple[int, Any]


@dataclass
class Api:
    """The API.

    Attributes:
      answer: returns the answer to a request.
      url: address of the API.
      requests: the requests so far, oldest first.
    """

    answer: Callable[[Request], Answer]
    url: str = ""
    requests: list[Request] = field(default_factory=list)

    def received(self, method: str, path: str) -> list[Request]:
        """Returns the requests with this method whose path ends with `path`."""
        return [r for r in self.requests if r.method == method and r.path.endswith(path)]


@contextlib.contextmanager
def serve(answer: Callable[[Request], Answer], certificate: Path | None = None) -> Iterator[Api]:
    """Serves an API on a free port of this machine while the body runs.

    Args:
      answer: returns the answer to a request.
      certificate: a PEM file with a certificate and its key, to serve by HTTPS; None serves by HTTP.

    Yields:
      The API.
    """
    api = Api(answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            received = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(received) if received else None
            request = Request(self.command, url.path, query, headers, body)
            api.requests.append(request)
            status, content = api.answer(request)
            text = content if isinstance(content, str) else json.dumps(content)
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = handle_any  # noqa: N815 - named by http.server

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.url = f"http://127.0.0.1:{server.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            api.url = f"https://localhost:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield api
        finally:
            server.shutdown()
