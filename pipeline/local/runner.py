"""Runs a pipeline on this machine, one component after the other, and reports its progress."""

from __future__ import annotations

import contextlib
import datetime
import enum
import signal
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.dsl.compiler import constants
from tfx.orchestration import metadata as tfx_metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils, tfx_runner
from tfx.proto.orchestration import pipeline_pb2

from components import metadata
from pipeline.local import records
from pipeline.local.interruption import Watch


class State(str, enum.Enum):
    """State of a component in a run; the values appear in the summary."""

    WAITING = "not_run"
    RUNNING = "running"
    COMPLETE = "complete"
    CACHED = "cached"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass
class ComponentRun:
    """The outcome of one component.

    Attributes:
      id: id of the component.
      state: its state.
      seconds: duration, once it has ended.
      execution_id: id of its execution in ML Metadata; None if there is none.
    """

    id: str
    state: State = State.WAITING
    seconds: float = 0.0
    execution_id: int | None = None


@dataclass
class Run:
    """The outcome of a run.

    Attributes:
      id: id of the run in ML Metadata.
      components: its components, in the order in which they run.
      error: the exception that ended the run early; None if it reached its end.
      signal: the signal that ended the run early, of which `error` is then the consequence; None if none did.
    """

    id: str = ""
    components: list[ComponentRun] = field(default_factory=list)
    error: BaseException | None = None
    signal: signal.Signals | None = None

    def failed(self) -> ComponentRun | None:
        """Returns the component in which a failure or a signal ended the run; None if none did."""
        ends = (State.FAILED, State.INTERRUPTED)
        return next((c for c in self.components if c.state in ends), None)


class InputsMissingError(RuntimeError):
    """ML Metadata has no artifacts for the inputs of a component."""


class ObservedRunner(tfx_runner.IrBasedRunner):
    """Runs components as TFX's LocalDagRunner does, but reports progress and can bypass the cache.

    LocalDagRunner does not report its progress, and it continues after a component whose inputs it could
    not find. Therefore this class loops over the components itself, with the same launcher.
    """

    def __init__(
        self,
        run: Run,
        on_change: Callable[[ComponentRun], None],
        rerun_from: Collection[str] = (),
        described: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
    ):
        """Prepares a run.

        Args:
          run: receives the outcome while the run proceeds.
          on_change: called when a component starts and when it ends.
          rerun_from: ids of components that run even if the cache has their results, together with all
            components that depend on them.
          described: what ML Metadata is told about the run, see `records.describe`.
          watch: tells whether a signal asks the run to end.
        """
        self._run = run
        self._on_change = on_change
        self._rerun_from = rerun_from
        self._described = described or {}
        self._watch = watch or Watch()

    def run_with_ir(self, pipeline: pipeline_pb2.Pipeline, run_options=None) -> None:
        """Runs the components in topological order, until the end or the first failure."""
        del run_options
        self._run.id = datetime.datetime.now().isoformat()
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: self._run.id}
        )
        deployment = runner_utils.extract_local_deployment_config(pipeline)
        connection_configs = deployment.metadata_connection_config
        connection = getattr(connection_configs, connection_configs.WhichOneof("connection_config"))
        nodes = [node.pipeline_node for node in pipeline.nodes]
        _disable_cache_from(nodes, self._rerun_from)
        self._run.components[:] = [ComponentRun(node.node_info.id) for node in nodes]
        with tfx_metadata.Metadata(connection) as handle:
            records.begin(handle, nodes[0].contexts, self._described)
        for node, component in zip(nodes, self._run.components, strict=True):
            component.state = State.RUNNING
            start = time.monotonic()
            try:
                self._watch.check()
                self._on_change(component)
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
                if component.execution_id is not None:
                    seconds = time.monotonic() - start
                    with tfx_metadata.Metadata(connection) as handle:
                        records.note_execution(
                            handle.store, component.execution_id, seconds, component.state is State.COMPLETE
                        )
            except BaseException as error:
                # Libraries may wrap the exception of a signal in one of their own.
                by_signal = isinstance(error, KeyboardInterrupt) or self._watch.number is not None
                component.state = State.INTERRUPTED if by_signal else State.FAILED
                raise
            finally:
                component.seconds = time.monotonic() - start
                self._on_change(component)


def run(
    pipeline: tfx.dsl.Pipeline,
    on_change: Callable[[ComponentRun], None],
    rerun_from: Collection[str] = (),
    described: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Run:
    """Runs a pipeline, until its end, its first failure, or a signal.

    Args:
      pipeline: a pipeline with an SQLite metadata connection.
      on_change: called when a component starts and when it ends.
      rerun_from: ids of components that run even if the cache has their results, together with all
        components that depend on them.
      described: what ML Metadata is told about the run, see `records.describe`.
      watch: tells whether a signal asks the run to end; None only heeds Ctrl-C.

    Returns:
      The outcome of the run; its `error` holds the exception of a failure or of a signal.
    """
    result = Run()
    watch = watch or Watch()
    try:
        ObservedRunner(result, on_change, rerun_from, described, watch).run(pipeline)
    except (Exception, KeyboardInterrupt) as error:
        result.error = error
        with contextlib.suppress(OSError):  # The disk may be full.
            traceback.print_exception(error)  # into the log; the terminal gets a message
        is_interrupted = isinstance(error, KeyboardInterrupt)
        result.signal = watch.number or (signal.SIGINT if is_interrupted else None)
    return result


def _disable_cache_from(nodes: list[pipeline_pb2.PipelineNode], rerun_from: Collection[str]) -> None:
    """Disables the cache for these components and their dependents; `nodes` are in topological order."""
    rerun = set(rerun_from)
    for node in nodes:
        if node.node_info.id in rerun or rerun.intersection(node.upstream_nodes):
            rerun.add(node.node_info.id)
            node.execution_options.caching_options.enable_cache = False


def _state(connection, pipeline_name: str, component: ComponentRun) -> State:
    """Reads from ML Metadata the state of a component that has ended without an exception."""
    if component.execution_id is not None:
        with tfx_metadata.Metadata(connection) as handle:
            state = metadata.state(handle.store, component.execution_id)
            if state == metadata_store_pb2.Execution.CACHED:
                return State.CACHED
            if state == metadata_store_pb2.Execution.COMPLETE:
                # A resolver runs every time; it counts as cached if it has found the same artifacts again.
                previous = metadata.previous_execution(
                    handle.store, pipeline_name, component.id, component.execution_id
                )
                same = previous is not None and (
                    metadata.output_ids(handle.store, previous)
                    == metadata.output_ids(handle.store, component.execution_id)
                )
                return State.CACHED if same else State.COMPLETE
    raise InputsMissingError(f"the inputs of {component.id} could not be found in ML Metadata")
