"""Runs the whole pipeline with its data and its root outside of the local file system."""

import json

import pytest
import tensorflow as tf
from tensorflow.python.lib.io import file_io
from tfx.orchestration import metadata as tfx_metadata

from components import metadata
from components.model_report import report_files
from components.serving_check import check, client, reference, warm_up
from datasets import digest, directory
from models import export, run_files
from pipeline import pipeline
from pipeline.local import runner
from settings import loading
from settings.serving_check import ServingCheckConfig
from settings.steps import WITHOUT_CONTAINER
from tests import ram

pytestmark = pytest.mark.slow

ROOT, DATA = "ram://bucket/runs", "ram://bucket/data"


def _copy(dataset: directory.Dataset) -> None:
    for file in dataset.path.rglob("*"):
        if file.is_file():
            copy = f"{DATA}/{file.relative_to(dataset.path).as_posix()}"
            tf.io.gfile.makedirs(copy.rpartition("/")[0])
            tf.io.gfile.copy(str(file), copy)


def _ask_in_this_process(model_directory, request, limits):
    """Does what `check.ask` does, but in this process, since another one cannot read its `ram://`."""
    assert limits == ServingCheckConfig()
    requests = {key: [bytes.fromhex(text) for text in request[key]] for key in ("examples", "image_bytes")}
    return client.check(model_directory, requests, request["class_names"])


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    """The artifacts of a run in ML Metadata, by component and output."""
    _copy(tiny_dataset)
    settings = loading.load(
        values={
            "root": ROOT,
            "kubeflow.data_uri": DATA,
            "model.cnn.filters": [8],
            "trainer.epochs": 1,
            "export.views": 2,
            "export.extra_views_below": 0.9,
            "trainer.cache_mebibytes": 0,
            "tuner.trials": 1,
            "tuner.epochs": 1,
            # After one epoch on so few images, the model knows next to nothing.
            "evaluation.min_accuracy": 0.0,
            "evaluation.min_confidence_above_guessing": None,
            "evaluation.max_classes_never_predicted": None,
        }
    )
    graph = pipeline.create_pipeline(
        settings, "tiny", tiny_dataset, digest.of_directory(tiny_dataset.path), "vertex"
    )
    folder = tmp_path_factory.mktemp("this machine")
    database = folder / "metadata.sqlite"
    graph.metadata_connection_config = tfx_metadata.sqlite_metadata_connection_config(str(database))
    empty = folder / "empty"
    empty.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(empty)
        patch.setattr(check, "ask", _ask_in_this_process)
        # `tf.io.gfile.walk` lists folders with it.
        patch.setattr(file_io, "list_directory_v2", ram.children)
        finished = runner.run(graph, lambda _: None)
    if finished.error:
        raise finished.error
    assert {path.name for path in folder.iterdir()} == {"metadata.sqlite", "empty"}
    assert not any(empty.iterdir())
    store = metadata.open_store(database)
    return {
        (component.id, output): artifact
        for component in finished.components
        if component.execution_id is not None
        for output, artifact in metadata.outputs(store, component.execution_id).items()
    }


def test_every_step_writes_into_the_root(run):
    components_with_files = set()
    assert run["Dataset", "dataset"].uri == DATA
    for (component, output), artifact in run.items():
        if component == "Dataset":
            continue
        assert artifact.uri.startswith(f"{ROOT}/pipelines/tiny/{component}/{output}/")
        if tf.io.gfile.listdir(artifact.uri):  # Some of Transform's outputs are empty.
            components_with_files.add(component)
    assert components_with_files >= set(loading.load().steps()) - set(WITHOUT_CONTAINER)


def _json(artifact, name):
    with tf.io.gfile.GFile(f"{artifact.uri}/{name}") as file:
        return json.load(file)


def test_the_outputs_of_the_steps_are_complete(run, tiny_dataset):
    assert _json(run["DataGate", "report"], "data_gate.json")["examples"] == {
        "train": 160,
        "val": 40,
        "test": 40,
    }
    assert _json(run["ServingCheck", "blessing"], check.ANSWER)["problems"] == []
    used = _json(run["Trainer", "model_run"], run_files.HYPERPARAMETERS)
    assert used["trainer.batch_size"]["source"] == "tuner"
    assert len(_json(run["Trainer", "model_run"], run_files.HISTORY)["epochs"]) == 1
    assert tf.io.gfile.glob(f"{run['Trainer', 'model_run'].uri}/{run_files.TENSORBOARD}/*/*/events*")
    labels = f"{run['Trainer', 'model'].uri}/Format-Serving/{export.LABELS_FILE}"
    with tf.io.gfile.GFile(labels) as file:
        assert tuple(file.read().split()) == tuple(tiny_dataset.class_names)
    report = run["ModelReport", "report"]
    metrics = _json(report, report_files.METRICS)
    assert metrics["examples"] == 40
    # After one epoch, the model is sure of nothing.
    assert metrics["views"]["looked_again"] == 1
    assert metrics["views"]["accuracy"] == metrics["accuracy"]
    assert metrics["views"]["milliseconds"] > 0
    assert metrics["views"]["milliseconds_of_one_view"] > 0
    for name in (report_files.PAGE, report_files.MARKDOWN, report_files.PREDICTIONS, "confusion_matrix.png"):
        assert tf.io.gfile.stat(f"{report.uri}/{name}").length
    (version,) = tf.io.gfile.listdir(f"{ROOT}/serving/tiny")
    pushed = f"{ROOT}/serving/tiny/{version}"
    assert "serving_default" in tf.saved_model.load(pushed).signatures
    for name in (export.LABELS_FILE, warm_up.FILE, reference.FILE, check.ANSWER):
        assert tf.io.gfile.exists(f"{pushed}/{name}"), name
