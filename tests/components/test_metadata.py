from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2

from components import metadata

Event = metadata_store_pb2.Event


class RunRecorder:
    """Adds runs, executions and artifacts to a metadata store, as TFX does."""

    def __init__(self, database):
        self.store = metadata.open_store(database)

    def run(self, run_id):
        type_id = self.store.put_context_type(metadata_store_pb2.ContextType(name="pipeline_run"))
        (context_id,) = self.store.put_contexts([metadata_store_pb2.Context(type_id=type_id, name=run_id)])
        return context_id

    def artifact(self, type_name, uri):
        type_id = self.store.put_artifact_type(metadata_store_pb2.ArtifactType(name=type_name))
        (artifact_id,) = self.store.put_artifacts([metadata_store_pb2.Artifact(type_id=type_id, uri=uri)])
        return artifact_id

    def execution(self, run, outputs, event=Event.OUTPUT, inputs=()):
        """Adds an execution.

        Args:
          run: id of the run's context.
          outputs: output name -> artifact id.
          event: type of the output events.
          inputs: ids of the input artifacts.

        Returns:
          The id of the execution.
        """
        type_id = self.store.put_execution_type(metadata_store_pb2.ExecutionType(name="Step"))
        pairs = [(self._get(i), Event(type=Event.INPUT)) for i in inputs]
        for name, artifact_id in outputs.items():
            pairs.append((self._get(artifact_id), Event(type=event)))
            pairs[-1][1].path.steps.add(key=name)
            pairs[-1][1].path.steps.add(index=0)
        (context,) = self.store.get_contexts_by_id([run])
        execution_id, _, _ = self.store.put_execution(
            metadata_store_pb2.Execution(type_id=type_id), pairs, [context]
        )
        return execution_id

    def _get(self, artifact_id):
        (artifact,) = self.store.get_artifacts_by_id([artifact_id])
        return artifact


@pytest.fixture
def recorder(tmp_path):
    return RunRecorder(tmp_path / "metadata.sqlite")


def test_a_resolver_produces_none_of_the_artifacts_that_it_selects(recorder):
    model = recorder.artifact("Model", "model")
    examples = recorder.artifact("Examples", "examples")
    trained = recorder.execution(recorder.run("a"), {"model": model}, inputs=[examples])
    resolved = recorder.execution(recorder.run("b"), {"baseline": model}, event=Event.INTERNAL_OUTPUT)
    assert [each.id for each in metadata.produced(recorder.store, trained)] == [model]
    assert metadata.outputs(recorder.store, resolved)["baseline"].id == model
    assert list(metadata.produced(recorder.store, resolved)) == []


def test_the_report_of_a_run_is_the_one_that_it_produced_or_took_from_the_cache(recorder):
    first, second, third = (recorder.run(name) for name in ("first", "second", "third"))
    report_1, report_2 = (
        recorder.artifact("components.ModelReport", uri) for uri in ("reports/1", "reports/2")
    )
    recorder.execution(first, {"model": recorder.artifact("Model", "model")})
    recorder.execution(first, {"report": report_1})
    recorder.execution(second, {"report": report_1})
    recorder.execution(third, {"report": report_2})
    folders = [metadata.report_of_run(recorder.store, name) for name in ("first", "second", "third")]
    assert folders == [Path("reports/1"), Path("reports/1"), Path("reports/2")]


def test_a_run_without_a_report_artifact_has_no_report(recorder):
    recorder.execution(recorder.run("a"), {"model": recorder.artifact("Model", "model")})
    assert metadata.report_of_run(recorder.store, "a") is None
    assert metadata.report_of_run(recorder.store, "never run") is None


def test_run_ids_are_sorted_from_oldest_to_newest(recorder):
    assert metadata.run_ids(recorder.store) == []
    for name in ("b", "c", "a"):
        recorder.run(name)
    assert metadata.run_ids(recorder.store) == ["b", "c", "a"]


def test_a_database_that_cannot_be_opened_is_an_error_of_ml_metadata(tmp_path):
    (tmp_path / "metadata.sqlite").mkdir()
    with pytest.raises(mlmd.errors.StatusError, match="open"):
        metadata.open_store(tmp_path / "metadata.sqlite")
