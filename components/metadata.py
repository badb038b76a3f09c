"""Reading ML Metadata: executions and the artifacts they left."""

from __future__ import annotations

from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from components import MODEL_REPORT

_OUTPUT_EVENTS = (
    metadata_store_pb2.Event.OUTPUT,
    metadata_store_pb2.Event.DECLARED_OUTPUT,
    metadata_store_pb2.Event.INTERNAL_OUTPUT,  # of resolvers
)


# The custom property of an artifact: how long its component took to make it.
SECONDS = "seconds"


def open_store(database: Path) -> mlmd.MetadataStore:
    """Opens an SQLite metadata store, or makes one."""
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(database)
    connection.sqlite.connection_mode = (
        metadata_store_pb2.SqliteMetadataSourceConfig.ConnectionMode.READWRITE_OPENCREATE
    )
    return mlmd.MetadataStore(connection)


def state(store: mlmd.MetadataStore, execution_id: int) -> int:
    """Returns the last known state of an execution, one of `metadata_store_pb2.Execution.State`."""
    (execution,) = store.get_executions_by_id([execution_id])
    return execution.last_known_state


def outputs(store: mlmd.MetadataStore, execution_id: int) -> dict[str, metadata_store_pb2.Artifact]:
    """Returns an execution's output artifacts by output name; the last of each, where there are several."""
    events = _output_events(store, execution_id)
    artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
    return {e.path.steps[0].key: artifacts[e.artifact_id] for e in events if e.artifact_id in artifacts}


def note_seconds(store: mlmd.MetadataStore, execution_id: int, seconds: float) -> None:
    """Notes in the custom properties of an execution's outputs how long it took to make them."""
    # What a resolver found was made by others.
    events = [e for e in _output_events(store, execution_id) if e.type == metadata_store_pb2.Event.OUTPUT]
    made = store.get_artifacts_by_id([e.artifact_id for e in events])
    for artifact in made:
        artifact.custom_properties[SECONDS].double_value = seconds
    store.put_artifacts(made)


def report_of_run(store: mlmd.MetadataStore, run_id: str) -> Path | None:
    """Returns the folder of the report that a run made or took from the cache; None if there is none."""
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
    """Returns the id of a node's execution before this one, in whichever run; None for its first."""
    earlier = [i for i in _executions(store, pipeline, node) if i < execution_id]
    return max(earlier, default=None)


def latest_output(
    store: mlmd.MetadataStore, pipeline: str, node: str, name: str
) -> metadata_store_pb2.Artifact | None:
    """Returns the newest `name` output that a node of a pipeline left, in whichever run; None without one."""
    for execution_id in sorted(_executions(store, pipeline, node), reverse=True):
        found = outputs(store, execution_id).get(name)
        if found is not None:
            return found
    return None


def _output_events(store: mlmd.MetadataStore, execution_id: int) -> list[metadata_store_pb2.Event]:
    return [e for e in store.get_events_by_execution_ids([execution_id]) if e.type in _OUTPUT_EVENTS]


def _executions(store: mlmd.MetadataStore, pipeline: str, node: str) -> list[int]:
    context = store.get_context_by_type_and_name("node", f"{pipeline}.{node}")
    return [e.id for e in store.get_executions_by_context(context.id)] if context else []
