import shutil

import pytest
from tfx import v1 as tfx

from datasets import directory
from pipeline.local import runner


def _raised(error, cause=None):
    try:
        raise error from cause
    except Exception as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("too small"), "too small"),
        (_raised(RuntimeError("outer"), ValueError("inner")), "inner"),
        (RuntimeError("bad label [while running 'Step/Inner(X)']"), "bad label"),
        (KeyError(), "KeyError"),
        (KeyboardInterrupt(), "interrupted; the same command resumes the run"),
        (ValueError("x" * 5000), "x" * 2000 + " ... (the log has the whole message)"),
    ],
)
def test_cause_is_the_message_of_the_first_exception(error, expected):
    assert runner.cause(error) == expected


def _run(schema, folder, rerun_from=()):
    """Runs a pipeline that has only an ImportSchemaGen; returns the run and the reported states."""
    graph = tfx.dsl.Pipeline(
        pipeline_name="schemas",
        pipeline_root=str(folder / "pipelines"),
        components=[tfx.components.ImportSchemaGen(schema_file=str(schema))],
        enable_cache=True,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(folder / "metadata.sqlite")
        ),
    )
    states = []
    return runner.run(graph, lambda component: states.append(component.state), rerun_from), states


def test_a_schema_is_imported_again_when_its_file_changes(tiny_dataset, tmp_path):
    schema = tmp_path / directory.SCHEMA_FILE
    shutil.copy(tiny_dataset.path / directory.SCHEMA_FILE, schema)

    def run():
        stale = runner.stale_imports("schemas", tmp_path / "metadata.sqlite", schema)
        return _run(schema, tmp_path, stale)[1]

    assert run() == [runner.State.RUNNING, runner.State.COMPLETE]
    assert run() == [runner.State.RUNNING, runner.State.CACHED]
    schema.write_text(schema.read_text().replace('"ring"', '"hoop"'))
    assert run() == [runner.State.RUNNING, runner.State.COMPLETE]
    assert run() == [runner.State.RUNNING, runner.State.CACHED]


def test_a_component_that_fails_ends_the_run_and_leaves_no_output(tmp_path):
    result, states = _run(tmp_path / "none.pbtxt", tmp_path)
    assert states == [runner.State.RUNNING, runner.State.FAILED]
    assert "none.pbtxt" in runner.cause(result.error)
    assert result.failed().id == "ImportSchemaGen"
    assert not list((tmp_path / "pipelines").rglob("*.pbtxt"))
