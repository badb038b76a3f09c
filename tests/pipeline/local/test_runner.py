import os
import shutil
from pathlib import Path

import pytest
from tfx import v1 as tfx

from components import artifacts, metadata
from components.example_gen.component import ImportExampleGen
from datasets import digest, directory, tfrecord
from pipeline.local import missing, runner


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


def _run(dataset, folder, rerun_from=()):
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
        pipeline_root=str(folder / "pipelines"),
        components=[importer, example_gen],
        enable_cache=True,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(folder / "metadata.sqlite")
        ),
    )
    missing.forget(metadata.open_store(folder / "metadata.sqlite"), "ingestion")
    states = {}
    result = runner.run(
        graph, lambda each: states.setdefault(each.id, []).append(each.state.value), rerun_from
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
    (copied,) = tmp_path.glob("pipelines/ImportExampleGen/examples/*/Split-val/*")
    copied.unlink()
    assert _run(dataset, tmp_path)[1] == {"Dataset": CACHED, "ImportExampleGen": RAN}
    assert _run(dataset, tmp_path)[1] == {"Dataset": CACHED, "ImportExampleGen": CACHED}


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
    assert "val-00000-of-00001.tfrecord: record 39 is cut off" in runner.cause(result.error)
    assert result.failed().id == "ImportExampleGen"
    assert not list((tmp_path / "pipelines").rglob("*.tfrecord"))
