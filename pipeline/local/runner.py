"""Running a pipeline on this machine, one component after the other, and telling how it goes."""

from __future__ import annotations

import datetime
import enum
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.dsl.compiler import constants
from tfx.orchestration import metadata as tfx_metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils, tfx_runner
from tfx.proto.orchestration import pipeline_pb2

from components import metadata
from datasets import directory

# Characters; some exceptions hold the data that they stumbled over.
_LONGEST_CAUSE = 2000


class State(str, enum.Enum):
    """Of a component in a run; the values are those of the summary."""

    WAITING = "not_run"
    RUNNING = "running"
    COMPLETE = "complete"
    CACHED = "cached"
    FAILED = "failed"


@dataclass
class ComponentRun:
    """What became of one component."""

    id: str
    state: State = State.WAITING
    seconds: float = 0.0
    execution_id: int | None = None


@dataclass
class Run:
    """What became of a run: its id in ML Metadata, its components; `error` is what ended it early."""

    id: str = ""
    components: list[ComponentRun] = field(default_factory=list)
    error: BaseException | None = None

    def failed(self) -> ComponentRun | None:
        """Returns the component that ended the run, or None."""
        return next((c for c in self.components if c.state is State.FAILED), None)


class InputsMissingError(RuntimeError):
    """A component whose inputs were not there."""


class ObservedRunner(tfx_runner.IrBasedRunner):
    """TFX's LocalDagRunner with an observer, a state for each component, and components to run anew.

    LocalDagRunner tells nothing of its progress, and it goes on after a component whose inputs it could
    not find; the loop over the components is therefore made here, from the same launcher.
    """

    def __init__(self, run: Run, on_change: Callable[[ComponentRun], None], first: Collection[str] = ()):
        """Prepares a run.

        Args:
          run: filled as the run goes on.
          on_change: called when a component starts and when it ends.
          first: ids of components that are run, with all that follows from them, though nothing has changed.
        """
        self._run = run
        self._on_change = on_change
        self._first = first

    def run_with_ir(self, pipeline: pipeline_pb2.Pipeline, run_options=None) -> None:
        """Runs the components in their order; the first failure ends it."""
        del run_options
        self._run.id = datetime.datetime.now().isoformat()
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: self._run.id}
        )
        deployment = runner_utils.extract_local_deployment_config(pipeline)
        connection_configs = deployment.metadata_connection_config
        connection = getattr(connection_configs, connection_configs.WhichOneof("connection_config"))
        nodes = [node.pipeline_node for node in pipeline.nodes]
        _disable_cache_from(nodes, self._first)
        self._run.components[:] = [ComponentRun(node.node_info.id) for node in nodes]
        for node, component in zip(nodes, self._run.components, strict=True):
            component.state = State.RUNNING
            self._on_change(component)
            start = time.monotonic()
            try:
                info = launcher.Launcher(
                    pipeline_node=node,
                    mlmd_connection=tfx_metadata.Metadata(connection),
                    pipeline_info=pipeline.pipeline_info,
                    pipeline_runtime_spec=pipeline.runtime_spec,
                    executor_spec=runner_utils.extract_executor_spec(deployment, component.id),
                    custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, component.id),
                ).launch()
                component.execution_id = info.execution_id if info else None
                component.state = _state(connection, pipeline.pipeline_info.id, component)
                if component.state is State.COMPLETE and component.execution_id is not None:
                    with tfx_metadata.Metadata(connection) as handle:
                        seconds = time.monotonic() - start
                        metadata.note_seconds(handle.store, component.execution_id, seconds)
            except BaseException:
                component.state = State.FAILED
                raise
            finally:
                component.seconds = time.monotonic() - start
                self._on_change(component)


def run(
    pipeline: tfx.dsl.Pipeline, on_change: Callable[[ComponentRun], None], first: Collection[str] = ()
) -> Run:
    """Runs a pipeline to its end or to its first failure.

    Args:
      pipeline: with an SQLite metadata connection.
      on_change: called when a component starts and when it ends.
      first: ids of components that are run, with all that follows, though nothing has changed.

    Returns:
      What became of each component; a failure is in `error`.
    """
    result = Run()
    try:
        ObservedRunner(result, on_change, first).run(pipeline)
    except (Exception, KeyboardInterrupt) as error:
        result.error = error
    return result


def stale_imports(pipeline_name: str, database: Path, schema_file: Path) -> list[str]:
    """Names the components whose input changed in a way that TFX's cache does not see.

    ImportSchemaGen's only parameter is a path, so that another schema under the same path would be
    answered from the cache.
    """
    if not database.exists():
        return []
    imported = metadata.latest_output(
        metadata.open_store(database), pipeline_name, "ImportSchemaGen", "schema"
    )
    if imported is None:
        return []
    copy = Path(imported.uri) / directory.SCHEMA_FILE
    unchanged = copy.exists() and copy.read_bytes() == schema_file.read_bytes()
    return [] if unchanged else ["ImportSchemaGen"]


def cause(error: BaseException) -> str:
    """Returns the message of the exception that started it all, without what the engines wrap around it."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command goes on from here"
    while (inner := error.__cause__) is not None:
        error = inner
    # Beam appends the step in which it was.
    message = re.sub(r"\s*\[while running '.*'\]\s*$", "", str(error), flags=re.DOTALL).strip()
    if len(message) > _LONGEST_CAUSE:
        message = f"{message[:_LONGEST_CAUSE]} ... (the log has all of it)"
    return message or type(error).__name__


def _disable_cache_from(nodes: list[pipeline_pb2.PipelineNode], first: Collection[str]) -> None:
    anew = set(first)
    for node in nodes:  # In topological order.
        if node.node_info.id in anew or anew.intersection(node.upstream_nodes):
            anew.add(node.node_info.id)
            node.execution_options.caching_options.enable_cache = False


def _state(connection, pipeline_name: str, component: ComponentRun) -> State:
    """Reads from ML Metadata how a component that did not raise has ended."""
    if component.execution_id is not None:
        with tfx_metadata.Metadata(connection) as handle:
            state = metadata.state(handle.store, component.execution_id)
            if state == metadata_store_pb2.Execution.CACHED:
                return State.CACHED
            if state == metadata_store_pb2.Execution.COMPLETE:
                # A resolver has no cache, it asks anew each time; what counts is whether the answer is new.
                previous = metadata.previous_execution(
                    handle.store, pipeline_name, component.id, component.execution_id
                )
                same = previous is not None and (
                    metadata.output_ids(handle.store, previous)
                    == metadata.output_ids(handle.store, component.execution_id)
                )
                return State.CACHED if same else State.COMPLETE
    raise InputsMissingError(f"the inputs of {component.id} could not be found in ML Metadata")
