"""Tests with Beam's direct runner, on local paths and on a file system with URIs."""

import json
import os

import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from datasets.directory import DatasetError
from pipeline import answering, predict_images
from serving.predict.answers import Answerer
from serving.predict.images import Search
from serving.saved_model import Model
from settings.pipeline import PipelineConfig
from tests.fake_store import FakeStore
from tests.serving import samples

assert FakeStore.scheme() == "fake"  # Beam finds the class when it is imported


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return samples.push(
        samples.save(tmp_path_factory.mktemp("saved") / "m", 1), tmp_path_factory.mktemp("m"), 7
    )


@pytest.fixture
def src(tmp_path):
    folder = tmp_path / "src"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for number in range(100):
        (folder / f"deep/{number:03d}.png").write_bytes(samples.picture(255 * (number % 2)))
    (folder / "bad.jpg").write_bytes(b"text")
    (folder / "notes.txt").touch()
    os.mkfifo(folder / "pipe.png")  # reading it would take for ever
    (folder / ".hidden/a.png").write_bytes(samples.picture(0))
    for name, kind in (("a.tfrecord", ""), ("b_tfrecord.gz", "GZIP")):
        with tf.io.TFRecordWriter(str(folder / name), tf.io.TFRecordOptions(compression_type=kind)) as writer:
            for value in (0, 255, 0):
                writer.write(samples.example(samples.picture(value)))
    (folder / "damaged.tfrecord").write_bytes((folder / "a.tfrecord").read_bytes()[:-1])
    return folder


@pytest.mark.parametrize("scheme", ["", "fake:/"])
def test_beam_gives_the_answers_of_one_machine(src, model, tmp_path, scheme):
    out = tmp_path / "out"
    counts = answering.predict([f"{scheme}{src}"], f"{scheme}{model}", str(out), PipelineConfig())
    assert counts == (110, 2)
    table = pq.read_table(out)
    assert json.loads(table.schema.metadata[b"class_names"]) == ["dark", "bright"]
    found = {(row["path"].removeprefix(scheme), row["record"]): row for row in table.to_pylist()}
    images = [image.read() for image in Search([str(src)]).images()]
    expected = Answerer(Model(model), 5).answer(images)
    assert table.schema.names == expected.schema.names
    rows = expected.to_pylist()
    assert len(found) == len(rows) == 110
    for row in rows:
        own = found[row["path"], row["record"]]
        assert (own.pop("error") is None) == (row.pop("error") is None)
        assert own == {**row, "path": f"{scheme}{row['path']}"}
    assert [path.suffix for path in out.iterdir()] == [".parquet"]


def test_files_and_patterns_are_sources(src, model, tmp_path):
    sources = [str(src / "notes.txt"), f"{src}/deep/00*.png"]
    assert answering.predict(sources, str(model), str(tmp_path / "out"), PipelineConfig()) == (11, 1)


def test_nothing_is_left_after_an_error(src, model, tmp_path, monkeypatch):
    out = str(tmp_path / "out")
    for source, version, message in (
        (f"{src}/none*", model, "expected an image, a TFRecord file, a folder or a pattern; found nothing"),
        (src, src, "expected a pushed version"),
    ):
        with pytest.raises(DatasetError, match=message):
            answering.predict([str(source)], str(version), out, PipelineConfig())
    monkeypatch.setattr(Answerer, "answer", lambda *_: 1 / 0)
    with pytest.raises(DatasetError, match="the Beam job failed: division by zero"):
        answering.predict([str(src)], str(model), out, PipelineConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_the_exit_status_says_whether_all_were_answered(monkeypatch):
    found = []

    def predict(sources, model, out, config, top):
        found.append((sources, model, out, config.beam.runner, top))
        return 5, 2

    monkeypatch.setattr(answering, "predict", predict)
    app = predict_images.typer.Typer()
    app.command()(predict_images.main)
    settings = ["runner=dataflow", "dataflow.project=project", "dataflow.region=r"]
    flags = [part for each in settings for part in ("--set", f"beam.{each}")]
    result = CliRunner().invoke(
        app, ["gs://b/a", "gs://b/c", "--model", "gs://b/m/1", "--out", "gs://b/o", *flags]
    )
    assert found == [(["gs://b/a", "gs://b/c"], "gs://b/m/1", "gs://b/o", "dataflow", 5)]
    assert result.exit_code == 3
    assert "5 images, 2 without an answer: gs://b/o/answers-*.parquet" in result.output


def test_the_module_of_the_command_defines_nothing_that_workers_run():
    # Beam pickles what the main module defines without the rest of the module.
    own = [
        name
        for name, value in vars(predict_images).items()
        if getattr(value, "__module__", "") == predict_images.__name__
    ]
    assert own == ["main"]
