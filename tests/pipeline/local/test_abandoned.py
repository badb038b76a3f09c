import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from components import metadata
from pipeline.local import abandoned

RUNNING, COMPLETE, FAILED = pb.Execution.RUNNING, pb.Execution.COMPLETE, pb.Execution.FAILED


@pytest.fixture
def store(tmp_path):
    return metadata.open_store(tmp_path / "metadata.sqlite")


@pytest.fixture
def record(store):
    """Records an execution of a component in a run, and returns its id."""
    kinds = {name: store.put_context_type(pb.ContextType(name=name)) for name in ("node", "pipeline_run")}
    execution_type = store.put_execution_type(pb.ExecutionType(name="Step"))

    def record_(node, run, state):
        names = {"node": f"cats.{node}", "pipeline_run": run}
        contexts = [pb.Context(type_id=kinds[kind], name=name) for kind, name in names.items()]
        execution = pb.Execution(type_id=execution_type, last_known_state=state)
        number, _, _ = store.put_execution(execution, [], contexts, reuse_context_if_already_exist=True)
        return number

    return record_


def test_a_killed_execution_is_marked_and_only_what_it_has_left_is_removed(store, record, tmp_path):
    good, killed = record("Trainer", "first", COMPLETE), record("Trainer", "second", RUNNING)
    trainer = tmp_path / "pipelines" / "cats" / "Trainer"
    places = [
        *(f"model/{good}", "checkpoints", "../Other/model/2", f".system/executor_execution/{good}"),
        *(f"model/{killed}/x", f"model_run/{killed}", f".system/executor_execution/{killed}/.temp"),
        ".system/stateful_working_dir/0b6f",
    ]
    for place in places:
        (trainer / place).mkdir(parents=True)
    assert "killed in Trainer" in abandoned.settle(tmp_path)
    assert [place for place in places if (trainer / place).exists()] == places[:3]
    states = {each.id: each.last_known_state for each in store.get_executions()}
    assert states == {good: COMPLETE, killed: FAILED}
    assert abandoned.settle(tmp_path) is None


def test_outputs_that_a_failed_execution_has_left_are_removed(store, record, tmp_path):
    good, failed = record("Trainer", "first", COMPLETE), record("Trainer", "second", FAILED)
    trainer = tmp_path / "pipelines" / "cats" / "Trainer"
    for place in (f"model/{good}", f"model/{failed}", f"../Other/model/{failed}"):
        (trainer / place).mkdir(parents=True)
    assert abandoned.settle(tmp_path) is None
    assert [path.name for path in (trainer / "model").iterdir()] == [str(good)]
    assert (trainer.parent / "Other" / "model" / str(failed)).exists()
    assert {each.last_known_state for each in store.get_executions()} == {COMPLETE, FAILED}


def test_a_killed_run_is_abandoned_unless_its_end_is_known(store, record, tmp_path):
    for run in ("killed", "interrupted"):
        record("Trainer", run, RUNNING)
    ended = store.get_context_by_type_and_name("pipeline_run", "interrupted")
    ended.custom_properties["state"].string_value = "interrupted"
    store.put_contexts([ended])
    abandoned.settle(tmp_path)
    runs = store.get_contexts_by_type("pipeline_run")
    states = {run.name: run.custom_properties["state"].string_value for run in runs}
    assert states == {"killed": "abandoned", "interrupted": "interrupted"}


@pytest.mark.parametrize(
    ("states", "recorded", "marks"),
    [
        ([RUNNING], "1", [".2.unrecorded"]),
        ([COMPLETE, FAILED], "1", [".2.unrecorded"]),
        ([RUNNING], "2", []),
        ([FAILED, COMPLETE], "1", []),
    ],
)
def test_a_version_that_an_ended_push_has_not_recorded_is_marked(
    store, record, tmp_path, states, recorded, marks
):
    for number, state in enumerate(states):
        record("Pusher", f"run {number}", state)
    folder = tmp_path / "serving" / "cats"
    for version in ("1", "2"):
        (folder / version).mkdir(parents=True)
    kind = store.put_artifact_type(pb.ArtifactType(name="PushedModel"))
    pushed = pb.Artifact(type_id=kind)
    pushed.custom_properties["pushed_destination"].string_value = str(folder / recorded)
    store.put_artifacts([pushed])
    abandoned.settle(tmp_path)
    assert [path.name for path in folder.glob(".*")] == marks
