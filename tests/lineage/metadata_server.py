"""A server of ML Metadata over gRPC: its published service in front of the library's own implementation.

The real server is a program in C++ that is not on PyPI, with the same implementation behind the same service.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store as library
from ml_metadata.proto import metadata_store_pb2 as pb
from ml_metadata.proto import metadata_store_service_pb2 as service_pb
from ml_metadata.proto import metadata_store_service_pb2_grpc as service

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class _Service:
    """Passes each call on to the library."""

    def __init__(self, database: Path) -> None:
        config = pb.ConnectionConfig()
        config.sqlite.filename_uri = str(database)
        config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.ConnectionMode.READONLY
        options = pb.MigrationOptions().SerializeToString()
        self._store = library.CreateMetadataStore(config.SerializeToString(), options)

    def __getattr__(self, name: str) -> Callable[[Any, grpc.ServicerContext], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            answer, message, code = getattr(library, name)(self._store, request.SerializeToString())
            if code:
                context.abort(_CODES[code], message.decode())
            return getattr(service_pb, f"{name}Response").FromString(answer)

        return call


@contextlib.contextmanager
def serve(database: Path) -> Iterator[str]:
    """Serves an SQLite store, which is not changed, on a free port of this machine; yields the URL."""
    # SQLite's connection is used by one thread at a time.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    service.add_MetadataStoreServiceServicer_to_server(_Service(database), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
