from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2

from components import metadata

Event = metadata_store_pb2.Event


class Recorded:
    """A metadata store, to which runs, executions and artifacts are added as TFX does."""

    def __init__(self, database):
        self.store = metadata.open_store(database)

    def run(self, run_id):
        type_id = self.store.put_context_type(metadata_store_pb2.ContextType(name="pipeline_run"))
        (made,) = self.store.put_contexts([metadata_store_pb2.Context(type_id=type_id, name=run_id)])
        return made

    def artifact(self, type_name, uri):
        type_id = self.store.put_artifact_type(metadata_store_pb2.ArtifactType(name=type_name))
        (made,) = self.store.put_artifacts([metadata_store_pb2.Artifact(type_id=type_id, uri=uri)])
        return made

    def execution(self, run, outputs, event=Event.OUTPUT, inputs=()):
        """Adds an execution with outputs by name; returns its id."""
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

    def seconds(self, artifact_id):
        """The seconds that an artifact has, or None."""
        properties = self._get(artifact_id).custom_properties
        return properties[metadata.SECONDS].double_value if metadata.SECONDS in properties else None

    def _get(self, artifact_id):
        (artifact,) = self.store.get_artifacts_by_id([artifact_id])
        return artifact


@pytest.fixture
def recorded(tmp_path):
    return Recorded(tmp_path / "metadata.sqlite")


def test_the_seconds_are_noted_on_what_an_execution_made(recorded):
    run = recorded.run("a")
    examples, model, history = (recorded.artifact(name, name) for name in ("Examples", "Model", "History"))
    trained = recorded.execution(run, {"model": model, "history": history}, inputs=[examples])
    metadata.note_seconds(recorded.store, trained, 12.5)
    assert [recorded.seconds(each) for each in (examples, model, history)] == [None, 12.5, 12.5]


def test_the_seconds_of_a_resolver_are_not_those_of_what_it_found(recorded):
    model = recorded.artifact("Model", "model")
    trained = recorded.execution(recorded.run("a"), {"model": model})
    metadata.note_seconds(recorded.store, trained, 12.5)
    found = recorded.execution(recorded.run("b"), {"baseline": model}, event=Event.INTERNAL_OUTPUT)
    assert metadata.outputs(recorded.store, found)["baseline"].id == model
    metadata.note_seconds(recorded.store, found, 0.1)
    assert recorded.seconds(model) == 12.5


def test_an_execution_without_outputs_has_nowhere_to_note_its_seconds(recorded):
    model = recorded.artifact("Model", "model")
    pushed = recorded.execution(recorded.run("a"), {}, inputs=[model])
    metadata.note_seconds(recorded.store, pushed, 1.0)
    assert recorded.seconds(model) is None


def test_the_report_of_a_run_is_the_one_that_it_made_or_took_from_the_cache(recorded):
    first, second, third = (recorded.run(name) for name in ("first", "second", "third"))
    one, two = (recorded.artifact("components.ModelReport", uri) for uri in ("reports/1", "reports/2"))
    recorded.execution(first, {"model": recorded.artifact("Model", "model")})
    recorded.execution(first, {"report": one})
    recorded.execution(second, {"report": one})
    recorded.execution(third, {"report": two})
    found = [metadata.report_of_run(recorded.store, name) for name in ("first", "second", "third")]
    assert found == [Path("reports/1"), Path("reports/1"), Path("reports/2")]


def test_a_run_that_failed_before_its_report_has_none(recorded):
    recorded.execution(recorded.run("a"), {"model": recorded.artifact("Model", "model")})
    assert metadata.report_of_run(recorded.store, "a") is None
    assert metadata.report_of_run(recorded.store, "never run") is None


def test_run_ids_are_listed_from_the_oldest(recorded):
    assert metadata.run_ids(recorded.store) == []
    for name in ("b", "c", "a"):
        recorded.run(name)
    assert metadata.run_ids(recorded.store) == ["b", "c", "a"]
