import pytest
from ml_metadata.proto import metadata_store_pb2

from components import metadata
from pipeline.local import missing, records

LIVE, DELETED = metadata_store_pb2.Artifact.LIVE, metadata_store_pb2.Artifact.DELETED


@pytest.fixture
def store(tmp_path):
    return metadata.open_store(tmp_path / "metadata.sqlite")


@pytest.fixture
def produce(store, tmp_path):
    """Records an artifact with two files as the output of an execution in a pipeline."""
    context_type = store.put_context_type(metadata_store_pb2.ContextType(name="pipeline"))
    context = metadata_store_pb2.Context(type_id=context_type, name="p")
    context.id = store.put_contexts([context])[0]
    execution_type = store.put_execution_type(metadata_store_pb2.ExecutionType(name="Step"))

    def produce_(type_name, name, **properties):
        folder = tmp_path / name
        (folder / "below").mkdir(parents=True)
        for file in ("a", "below/b"):
            (folder / file).write_text(file)
        type_id = store.put_artifact_type(metadata_store_pb2.ArtifactType(name=type_name))
        artifact = metadata_store_pb2.Artifact(type_id=type_id, uri=str(folder), state=LIVE)
        for key, value in properties.items():
            artifact.custom_properties[key].string_value = value
        event = metadata_store_pb2.Event(type=metadata_store_pb2.Event.OUTPUT)
        execution, (artifact_id,), _ = store.put_execution(
            metadata_store_pb2.Execution(type_id=execution_type), [(artifact, event)], [context]
        )
        records.note_execution(store, execution, 1.0, made=True)
        return folder, artifact_id

    return produce_


def _state(store, artifact_id):
    (artifact,) = store.get_artifacts_by_id([artifact_id])
    return artifact.state


def test_complete_results_stay_and_more_files_do_no_harm(store, produce):
    folder, artifact = produce("Model", "model")
    (folder / "c").write_text("later")
    assert missing.forget(store, "p") is None
    assert _state(store, artifact) == LIVE


def test_a_result_with_fewer_files_than_it_had_is_forgotten_and_named_once(store, produce):
    folder, artifact = produce("Model", "model")
    _, other = produce("Model", "other")
    (folder / "below" / "b").unlink()
    assert str(folder) in missing.forget(store, "p")
    assert (_state(store, artifact), _state(store, other)) == (DELETED, LIVE)
    assert missing.forget(store, "p") is None


@pytest.mark.parametrize("lost", ["saved_model.pb", "variables/v"])
def test_a_pushed_model_of_which_files_are_gone_is_forgotten(store, produce, tmp_path, lost):
    served = tmp_path / "serving" / "1"
    _, artifact = produce("PushedModel", "pushed", pushed_destination=str(served))
    (served / "variables").mkdir(parents=True)
    for file in ("saved_model.pb", "variables/v"):
        (served / file).write_text(file)
    assert missing.forget(store, "p") is None
    (served / lost).unlink()
    assert str(served) in missing.forget(store, "p")
    assert _state(store, artifact) == DELETED


def test_many_places_are_counted(store, produce):
    for number in range(6):
        folder, _ = produce("Model", f"model-{number}")
        (folder / "a").unlink()
    note = missing.forget(store, "p")
    assert note.index("model-5") < note.index("model-2")
    assert "model-1" not in note
    assert "and 2 more" in note


def test_the_data_of_the_user_and_other_pipelines_are_left_alone(store, produce):
    folder, artifact = produce("components.DatasetDirectory", "data")
    (folder / "a").unlink()
    assert missing.forget(store, "p") is None
    assert missing.forget(store, "never run") is None
    assert _state(store, artifact) == LIVE
