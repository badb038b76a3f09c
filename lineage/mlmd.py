"""Reads a store of ML Metadata: an SQLite file, a MySQL database, or a server of ML Metadata."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_metadata as mlmd
from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2 as pb

from lineage import model
from lineage.model import Artifact, Execution, LineageError, Run, Store

_RUN_TYPES = ("pipeline_run", "system.PipelineRun")  # TFX's own, and Kubeflow's
_PIPELINE_TYPES = ("pipeline", "system.Pipeline")
_NODE_TYPE = "node"
_WHOLE_RUN_TYPE = "system.DAGExecution"  # Kubeflow's execution for a whole run, beside those of its steps
_OUTPUTS = (pb.Event.OUTPUT, pb.Event.DECLARED_OUTPUT, pb.Event.INTERNAL_OUTPUT)
_STATES = {
    pb.Execution.NEW: model.RUNNING,
    pb.Execution.RUNNING: model.RUNNING,
    pb.Execution.COMPLETE: model.COMPLETE,
    pb.Execution.CACHED: model.CACHED,
    pb.Execution.FAILED: model.FAILED,
    pb.Execution.CANCELED: model.CANCELED,
}
_SQLITE_SIGNATURE = b"SQLite format 3\0"
_WAIT_SECONDS = 2.0  # for a process that writes the file, or for a server to answer
_ANSWER_SECONDS = 60.0  # for a server to send all records of a kind
_WRITING = "another process is writing it; try again"
_PORTS = {"mysql": 3306, "grpc": 8080}
# Part of a message of ML Metadata or SQLite -> what is said instead.
_REASONS = {
    "is greater than library version": "its schema is newer than what this version of ml-metadata reads; "
    "install the packages with which it was written",
    "is older than library version": "its schema is older than what this version of ml-metadata reads; a run "
    "with TFX upgrades it",
    "attempt to write a readonly database": "it has no tables of ML Metadata, or its last write was cut off; "
    "the next run creates or mends them",
    "not a database": "it is not an SQLite database, or it is damaged",
    "malformed": "it is damaged",
    "locked": _WRITING,
    "Concurrent writes": _WRITING,
    "unable to open": "it cannot be opened",
    # ML Metadata does not pass on what MySQL says here.
    "mysql_real_connect failed": "the server refused the user or the password",
    "Access denied": "the server has no such database, or the user has no right to read it",
    "command denied": "it has no tables of ML Metadata, or the user has no right to read them",
    "Unknown database": "the server has no such database",
    "Failed parsing HTTP/2": "something else than a server of ML Metadata answers",
    "Deadline Exceeded": "the server does not answer; expected a server of ML Metadata",
}


def read_file(database: Path, in_use: bool) -> Store:
    """Reads an SQLite file, which is not changed.

    Args:
      database: the file.
      in_use: whether a process works on the newest run.

    Raises:
      LineageError: there is no store that can be read.
    """
    if not database.is_file():
        found = "something that is not a file" if database.exists() else "nothing"
        raise LineageError(
            f"{database}: expected a store of ML Metadata, found {found}; give the folder of the runs with "
            "--root. local_runner.py writes a store when it first runs"
        )
    try:
        with database.open("rb") as file:
            signature = file.read(len(_SQLITE_SIGNATURE))
    except OSError as error:
        raise LineageError(f"{database}: {error.strerror}") from None
    if signature != _SQLITE_SIGNATURE:
        found = "another kind of file" if signature else "an empty file"
        raise LineageError(f"{database}: expected an SQLite database with ML Metadata, found {found}")
    _wait_for_writers(database)
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.ConnectionMode.READONLY
    return _read(config, str(database), in_use, is_local=True)


def _wait_for_writers(database: Path) -> None:
    """Waits until no other process writes a file, since ML Metadata itself would wait for much longer."""
    try:
        uri = f"file:{urllib.parse.quote(str(database.absolute()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, timeout=_WAIT_SECONDS, uri=True)) as connection:
            connection.execute("select count(*) from sqlite_master")
    except sqlite3.Error as error:
        raise LineageError(f"{database} cannot be read: {_reason(str(error))}") from None


def read_server(url: str) -> Store:
    """Reads the store of a server.

    Args:
      url: `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, where the password may be in the environment variable
        `MYSQL_PWD` instead, or `grpc://HOST:PORT` of a server of ML Metadata, such as Kubeflow's.

    Raises:
      LineageError: the URL is none of these, or the store cannot be read.
    """
    parts = urllib.parse.urlsplit(url)
    database = parts.path.strip("/")
    if parts.scheme not in _PORTS or not parts.hostname or (parts.scheme == "mysql" and not database):
        raise LineageError(
            "--store: expected mysql://USER@HOST:PORT/DATABASE or grpc://HOST:PORT, found "
            f"{_without_password(parts)}"
        )
    port = parts.port or _PORTS[parts.scheme]
    try:
        socket.create_connection((parts.hostname, port), _WAIT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or "it does not answer"
        raise LineageError(f"{_without_password(parts)}: there is no server that answers: {reason}") from None
    config: pb.ConnectionConfig | pb.MetadataStoreClientConfig
    if parts.scheme == "grpc":
        config = pb.MetadataStoreClientConfig(
            host=parts.hostname, port=port, client_timeout_sec=_ANSWER_SECONDS
        )
        config.channel_arguments.max_receive_message_length = -1  # Answers grow with the store.
    else:
        config = pb.ConnectionConfig()
        config.mysql.skip_db_creation = True  # Otherwise it asks for the right to create the database.
        # MySQL's client takes `localhost` for a socket file of this machine, and ignores the port.
        config.mysql.host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
        config.mysql.port, config.mysql.database = port, database
        config.mysql.user = urllib.parse.unquote(parts.username or "")
        config.mysql.password = urllib.parse.unquote(parts.password or "") or os.environ.get("MYSQL_PWD", "")
    with _without_log():
        return _read(config, _without_password(parts), in_use=False, is_local=False)


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Keeps ML Metadata's C++ code from writing to stderr what its exceptions say, too."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _without_password(parts: urllib.parse.SplitResult) -> str:
    user = f"{parts.username}@" if parts.username else ""
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit(parts._replace(netloc=user + host))


def _read(config: Any, place: str, in_use: bool, is_local: bool) -> Store:
    try:
        return _Reader(mlmd.MetadataStore(config)).read(place, in_use, is_local)
    except (mlmd.errors.StatusError, RuntimeError) as error:
        raise LineageError(f"{place} cannot be read: {_reason(str(error))}") from None


def _reason(text: str) -> str:
    return next((said for part, said in _REASONS.items() if part in text), text.splitlines()[0])


class _Reader:
    """Reads all records. Contexts and events come first, so that what they refer to is there, too."""

    def __init__(self, store: mlmd.MetadataStore) -> None:
        self._store = store
        self._contexts = store.get_contexts()
        self._types = {each.id: each.name for each in store.get_context_types()}

    def read(self, place: str, in_use: bool, is_local: bool) -> Store:
        runs = {context.id: self._run(context) for context in self._of_type(*_RUN_TYPES)}
        run_of, node_of = self._memberships(runs)
        found = [each for each in self._store.get_executions() if each.type != _WHOLE_RUN_TYPE]
        recorded = sorted(found, key=lambda each: each.id)
        events = self._store.get_events_by_execution_ids([each.id for each in recorded]) if recorded else []
        artifacts = {
            each.id: _artifact(each) for each in sorted(self._store.get_artifacts(), key=lambda a: a.id)
        }
        executions = {each.id: _execution(each, node_of.get(each.id)) for each in recorded}
        for number, execution in executions.items():
            execution.run = runs.get(run_of.get(number, 0))
            if execution.run:
                execution.run.executions.append(execution)
        model.connect(
            (executions[event.execution_id], artifacts[event.artifact_id], name, event.type in _OUTPUTS)
            for event in sorted(events, key=_order)
            if event.artifact_id in artifacts
            for name in _names(event)
        )
        listed = sorted(runs.values(), key=lambda run: (run.created, run.id))
        model.settle(listed, listed[-1] if in_use and listed else None, is_local)
        return Store(place, listed, list(executions.values()), list(artifacts.values()))

    def _of_type(self, *names: str) -> list[pb.Context]:
        return [context for context in self._contexts if self._types[context.type_id] in names]

    def _run(self, context: pb.Context) -> Run:
        parents = [
            parent
            for parent in self._store.get_parent_contexts_by_context(context.id)
            if self._types[parent.type_id] in _PIPELINE_TYPES
        ]
        pipeline = parents[0].name if parents else ""
        return Run(context.name, pipeline, context.create_time_since_epoch, _properties(context))

    def _memberships(self, runs: Mapping[int, Run]) -> tuple[dict[int, int], dict[int, str]]:
        """Returns for each execution the id of its run's context, and the id of its component."""
        run_of = {
            execution.id: context
            for context in runs
            for execution in self._store.get_executions_by_context(context)
        }
        node_of = {
            execution.id: context.name.rpartition(".")[2]
            for context in self._of_type(_NODE_TYPE)
            for execution in self._store.get_executions_by_context(context.id)
        }
        return run_of, node_of


def _order(event: pb.Event) -> tuple[int, int, int]:
    return event.execution_id, event.milliseconds_since_epoch, event.artifact_id


def _names(event: pb.Event) -> list[str]:
    """Returns the roles of an artifact, which has only one event for each execution."""
    return [step.key for step in event.path.steps if step.HasField("key")] or [""]


def _artifact(record: pb.Artifact) -> Artifact:
    state = pb.Artifact.State.Name(record.state).lower()
    return Artifact(
        id=str(record.id),
        type=model.bare_type(record.type),
        uri=record.uri,
        # Kubeflow sets no state.
        state=model.LIVE if state == "unknown" else state,
        created=record.create_time_since_epoch,
        properties=_properties(record),
    )


def _execution(record: pb.Execution, node: str | None) -> Execution:
    properties = _properties(record)
    return Execution(
        id=str(record.id),
        type=record.type,
        component=node or str(properties.get("task_name") or record.type),
        state=_STATES.get(record.last_known_state, model.UNCONFIRMED),
        created=record.create_time_since_epoch,
        updated=record.last_update_time_since_epoch,
        properties=properties,
    )


def _properties(record: Any) -> dict[str, Any]:
    return {
        name: _value(value)
        for values in (record.properties, record.custom_properties)
        for name, value in sorted(values.items())
    }


def _value(value: pb.Value) -> Any:
    kind = value.WhichOneof("value")
    if kind == "struct_value":
        return json_format.MessageToDict(value.struct_value)
    if kind == "proto_value":
        return value.proto_value.type_url
    return getattr(value, kind) if kind else None
