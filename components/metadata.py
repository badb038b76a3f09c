"""Queries of ML Metadata: runs, executions and their output artifacts."""

from __future__ import annotations

from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from components import MODEL_REPORT

_OUTPUT_EVENTS = (
    metadata_store_pb2.Event.OUTPUT,
    metadata_store_pb2.Event.DECLARED_OUTPUT,
    metadata_store_pb2.Event.INTERNAL_OUTPUT,  # Resolver nodes record the artifacts they select as this type.
)


# Custom property of an artifact: duration, in seconds, of the execution that produced it.
SECONDS = "seconds"


def open_store(database: Path) -> mlmd.MetadataStore:
    """Opens an SQLite metadata store, and creates it if the file does not exist.

    Raises:
      ml_metadata.errors.StatusError: the file cannot be read or written, or is no metadata store.
    """
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(database)
    connection.sqlite.connection_mode = (
        metadata_store_pb2.SqliteMetadataSourceConfig.ConnectionMode.READWRITE_OPENCREATE
    )
    try:
        return mlmd.MetadataStore(connection)
    except RuntimeError as error:  # the only errors of ml-metadata that are not of this type
        raise mlmd.errors.InternalError(str(error)) from error


def state(store: mlmd.MetadataStore, execution_id: int) -> int:
    """Returns the last known state of an execution, one of `metadata_store_pb2.Execution.State`."""
    (execution,) = store.get_executions_by_id([execution_id])
    return execution.last_known_state


def outputs(store: mlmd.MetadataStore, execution_id: int) -> dict[str, metadata_store_pb2.Artifact]:
    """Returns an execution's output artifacts.

    Args:
      store: metadata store.
      execution_id: id of the execution.

    Returns:
      Output name -> artifact. If an output has several artifacts, the last one is returned.
    """
    events = _output_events(store, execution_id)
    artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
    return {e.path.steps[0].key: artifacts[e.artifact_id] for e in events if e.artifact_id in artifacts}


def produced(store: mlmd.MetadataStore, execution_id: int) -> list[metadata_store_pb2.Artifact]:
    """Returns the artifacts that an execution has produced; a resolver only selects those of others."""
    events = [e for e in _output_events(store, execution_id) if e.type == metadata_store_pb2.Event.OUTPUT]
    return store.get_artifacts_by_id([e.artifact_id for e in events])


def artifacts(store: mlmd.MetadataStore, pipeline: str) -> list[metadata_store_pb2.Artifact]:
    """Returns all artifacts that the runs of a pipeline have produced or imported, in any state."""
    context = store.get_context_by_type_and_name("pipeline", pipeline)
    return list(store.get_artifacts_by_context(context.id)) if context else []


def report_of_run(store: mlmd.MetadataStore, run_id: str) -> Path | None:
    """Returns the folder of a run's model report.

    Args:
      store: metadata store.
      run_id: id of the run.

    Returns:
      The folder of the newest report that the run produced or took from the cache; None if the store has no
      such run, or the run has no report.
    """
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    reports = [a for a in store.get_artifacts_by_context(run.id) if a.type == MODEL_REPORT] if run else []
    return Path(max(reports, key=lambda report: report.id).uri) if reports else None


def run_ids(store: mlmd.MetadataStore) -> list[str]:
    """Returns the ids of all runs, the oldest first."""
    return [context.name for context in store.get_contexts_by_type("pipeline_run")]


def output_ids(store: mlmd.MetadataStore, execution_id: int) -> set[int]:
    """Returns the ids of all output artifacts of an execution."""
    return {event.artifact_id for event in _output_events(store, execution_id)}


def previous_execution(store: mlmd.MetadataStore, pipeline: str, node: str, execution_id: int) -> int | None:
    """Returns the execution of a node that precedes a given one, in the same run or an earlier one.

    Args:
      store: metadata store.
      pipeline: name of the pipeline.
      node: id of the node.
      execution_id: id of the later execution.

    Returns:
      The id of the preceding execution; None if there is none.
    """
    earlier = [i for i in _executions(store, pipeline, node) if i < execution_id]
    return max(earlier, default=None)


def _output_events(store: mlmd.MetadataStore, execution_id: int) -> list[metadata_store_pb2.Event]:
    return [e for e in store.get_events_by_execution_ids([execution_id]) if e.type in _OUTPUT_EVENTS]


def _executions(store: mlmd.MetadataStore, pipeline: str, node: str) -> list[int]:
    context = store.get_context_by_type_and_name("node", f"{pipeline}.{node}")
    return [e.id for e in store.get_executions_by_context(context.id)] if context else []
