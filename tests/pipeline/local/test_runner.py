import io
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2
from rich.console import Console
from tfx import v1 as tfx
from typer.testing import CliRunner

from components import artifacts, metadata
from components.example_gen import ingestion
from components.example_gen.component import ImportExampleGen
from datasets import digest, directory, tfrecord
from lineage.__main__ import app
from pipeline import console
from pipeline.local import abandoned, failures, missing, runner
from pipeline.local.interruption import Watch


def _run(dataset, folder, rerun_from=(), watch=None):
    """Runs a pipeline that only ingests a dataset directory; returns the run and its states by component."""
    data_digest = digest.of_directory(dataset)
    importer = tfx.dsl.Importer(
        source_uri=str(dataset),
        artifact_type=artifacts.DatasetDirectory,
        custom_properties={"digest": data_digest},
    ).with_id("Dataset")
    example_gen = ImportExampleGen(
        dataset=importer.outputs["result"], expected_digest=data_digest, source_digest="code"
    )
    graph = tfx.dsl.Pipeline(
        pipeline_name="ingestion",
        pipeline_root=str(folder / "pipelines" / "ingestion"),
        components=[importer, example_gen],
        enable_cache=True,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(folder / "metadata.sqlite")
        ),
    )
    missing.forget(metadata.open_store(folder / "metadata.sqlite"), "ingestion")
    states = {}
    result = runner.run(
        graph, lambda each: states.setdefault(each.id, []).append(each.state.value), rerun_from, watch=watch
    )
    return result, states


@pytest.fixture
def dataset(tiny_dataset, tmp_path):
    return shutil.copytree(tiny_dataset.path, tmp_path / "data")


RAN, CACHED = ["running", "complete"], ["running", "cached"]


def test_data_of_another_content_is_ingested_again_even_if_size_and_time_are_the_same(dataset, tmp_path):
    assert _run(dataset, tmp_path)[1] == {"Dataset": RAN, "ImportExampleGen": RAN}
    assert _run(dataset, tmp_path)[1] == {"Dataset": CACHED, "ImportExampleGen": CACHED}
    (shard,) = (dataset / "val").glob(directory.SHARD_PATTERN)
    times, records = shard.stat(), list(tfrecord.read(shard))
    labels = [tfrecord.decode_example(record)["label"][0] for record in records]
    with shard.open("wb") as file:
        for record, label in zip(records, reversed(labels), strict=True):
            tfrecord.write(file, tfrecord.replace_integer(record, "label", label))
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert shard.stat().st_size == times.st_size
    assert _run(dataset, tmp_path)[1] == {"Dataset": RAN, "ImportExampleGen": RAN}
    assert _run(dataset, tmp_path)[1] == {"Dataset": CACHED, "ImportExampleGen": CACHED}


def test_a_result_whose_files_are_gone_is_made_again(dataset, tmp_path):
    _run(dataset, tmp_path)
    (copied,) = tmp_path.glob("pipelines/ingestion/ImportExampleGen/examples/*/Split-val/*")
    copied.unlink()
    assert _run(dataset, tmp_path)[1] == {"Dataset": CACHED, "ImportExampleGen": RAN}
    assert _run(dataset, tmp_path)[1] == {"Dataset": CACHED, "ImportExampleGen": CACHED}


def _ask(root, *arguments, exit_code=0):
    """Asks `python -m lineage`, and returns the answer."""
    result = CliRunner().invoke(app, [*arguments, "--root", str(root), "--json"], catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def test_a_run_makes_again_what_clean_has_taken_away_and_takes_the_rest_from_the_cache(dataset, tmp_path):
    other = shutil.copytree(dataset, tmp_path / "other")
    (shard,) = (other / "val").glob(directory.SHARD_PATTERN)
    records = list(tfrecord.read(shard))
    with shard.open("wb") as file:
        for record in records[1:]:
            tfrecord.write(file, record)
    _run(other, tmp_path)
    _run(dataset, tmp_path)
    cleaned = _ask(tmp_path, "clean", "--keep", "1", "--yes")
    assert {each["type"] for each in cleaned["artifacts"]} == {"Examples", "Schema"}
    assert cleaned["bytes_before"] > cleaned["bytes_after"] > 0
    assert _run(dataset, tmp_path)[1] == {"Dataset": CACHED, "ImportExampleGen": CACHED}
    result, states = _run(other, tmp_path)
    assert result.error is None
    assert states == {"Dataset": CACHED, "ImportExampleGen": RAN}
    assert _ask(tmp_path, "check")["findings"] == []


def test_check_finds_each_kind_of_fault_in_a_run(dataset, tmp_path):
    _run(dataset, tmp_path)
    assert _ask(tmp_path, "check")["findings"] == []
    folder = tmp_path / "pipelines" / "ingestion" / "ImportExampleGen"
    (examples,) = (folder / "examples").glob("*/Split-val/*")
    examples.write_bytes(examples.read_bytes()[:-1])
    (schema,) = (folder / "schema").glob("*/*")
    schema.unlink()
    (folder / "examples" / "77").mkdir()
    store = metadata.open_store(tmp_path / "metadata.sqlite")
    (execution, *_) = store.get_executions()
    execution.last_known_state = metadata_store_pb2.Execution.RUNNING
    store.put_executions([execution])
    found = _ask(tmp_path, "check", exit_code=1)["findings"]
    places = {each["problem"]: each["where"] for each in found}
    assert len(found) == len(places)
    assert places.pop("never ended").startswith("run ")
    assert places == {
        "changed": str(examples.parents[1]),
        "missing": str(schema.parent),
        "orphaned": str(folder / "examples" / "77"),
    }


def test_the_examples_have_the_properties_that_tfx_reads(dataset, tmp_path):
    run, _ = _run(dataset, tmp_path)
    store = metadata.open_store(tmp_path / "metadata.sqlite")
    outputs = metadata.outputs(store, run.components[1].execution_id)
    examples = outputs["examples"]
    assert examples.properties["split_names"].string_value == '["train", "val", "test"]'
    properties = examples.custom_properties
    assert properties["payload_format"].string_value == "FORMAT_TF_EXAMPLE"
    assert properties["file_format"].string_value == "tfrecords_gzip"
    assert properties["span"].int_value == 0
    assert properties["input_fingerprint"].string_value == digest.of_directory(dataset)
    assert properties["val_examples"].int_value == 40
    (schema,) = Path(outputs["schema"].uri).iterdir()
    assert schema.read_bytes() == (dataset / directory.SCHEMA_FILE).read_bytes()


def test_a_component_that_fails_ends_the_run_and_leaves_no_output(dataset, tmp_path):
    (shard,) = (dataset / "val").glob(directory.SHARD_PATTERN)
    shard.write_bytes(shard.read_bytes()[:-1])
    result, states = _run(dataset, tmp_path)
    assert states["ImportExampleGen"] == ["running", "failed"]
    assert "val-00000-of-00001.tfrecord: record 39 is cut off" in failures.describe(
        result.error, tmp_path / "metadata.sqlite"
    )
    assert result.failed().id == "ImportExampleGen"
    assert not list((tmp_path / "pipelines").rglob("*.tfrecord"))


def test_the_view_has_a_word_for_each_state():
    shown = io.StringIO()
    view = console.View(Console(file=shown), ["Tuner"])
    for state in runner.State:
        view.update(runner.ComponentRun("Tuner", state, 2.0))
    assert "Tuner              interrupted  2.0 s" in shown.getvalue()


def test_a_signal_ends_the_run_even_if_a_library_wraps_or_drops_it(dataset, tmp_path, monkeypatch):
    def interrupted(*args, **options):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("Beam: a KeyboardInterrupt")

    with Watch() as watch, monkeypatch.context() as patched:
        patched.setattr(ingestion, "ingest", interrupted)
        result, states = _run(dataset, tmp_path, watch=watch)
    assert result.signal is signal.SIGTERM
    assert states["ImportExampleGen"] == ["running", "interrupted"]
    assert result.failed().id == "ImportExampleGen"
    with monkeypatch.context() as patched, Watch() as watch:
        watch.number = signal.SIGHUP  # which something has dropped
        result, states = _run(dataset, tmp_path, watch=watch)
    assert result.signal is signal.SIGHUP
    assert "ImportExampleGen" not in states


def test_what_an_interrupted_component_has_left_is_settled(dataset, tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(ingestion, "ingest", interrupted)
    result, _ = _run(dataset, tmp_path)
    assert result.signal is signal.SIGINT
    store = metadata.open_store(tmp_path / "metadata.sqlite")
    made = tmp_path / "pipelines" / "ingestion" / "ImportExampleGen"
    assert list(made.glob("examples/*"))
    assert "ImportExampleGen" in abandoned.settle(tmp_path)
    assert [each for each in made.rglob("*") if each.name.isdecimal()] == []
    states = [each.last_known_state for each in store.get_executions()]
    assert states == [metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.FAILED]
