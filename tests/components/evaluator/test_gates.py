"""TFX's Evaluator with the project's gates, on exported models whose predictions are known."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scipy.stats
import tensorflow as tf
from google.protobuf import json_format, text_format
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components.evaluator import definitions, executor, robustness
from components.evaluator import gates as evaluation_gates
from components.model_report import scores
from components.model_report.predictions import Predictions
from datasets import directory, features
from models.corruptions import CELLS
from pipeline import beam
from settings import loading
from settings.evaluation import EvaluationConfig

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[3]
# Beam starts its workers with the first `python` on this path.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
NAMES = ["cat", "dog", "<b>owl</b>", "never seen"]
COUNT = 300  # 100 examples of each of the first three classes
LABELS = np.arange(COUNT) % 3
DARK = np.arange(COUNT) < 60


class Oracle(tf.Module):
    """A model that returns given probabilities, which it looks up by the example's id."""

    def __init__(self, probabilities):
        super().__init__()
        self._probabilities = tf.constant(probabilities, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, examples):
        spec = {features.ID: tf.io.FixedLenFeature([], tf.string)}
        indices = tf.strings.to_number(tf.io.parse_example(examples, spec)[features.ID], tf.int32)
        return {"probabilities": tf.gather(self._probabilities, indices)}


def _png(brightness):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (2, 2), (brightness,) * 3).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Examples and Schema artifacts of the test split."""
    root = tmp_path_factory.mktemp("inputs")
    examples, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    examples.uri, schema.uri = str(root / "examples"), str(root / "schema")
    examples.split_names = artifact_utils.encode_split_names(["test"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    (root / "examples" / "Split-test").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(root / "examples" / "Split-test" / "data.gz"), "GZIP") as writer:
        for index, label in enumerate(LABELS):
            example = tf.train.Example()
            example.features.feature[features.IMAGE].bytes_list.value.append(_png(20 if DARK[index] else 200))
            example.features.feature[features.LABEL].int64_list.value.append(label)
            example.features.feature[features.ID].bytes_list.value.append(str(index).encode())
            writer.write(example.SerializeToString())
    (root / "schema").mkdir()
    (root / "schema" / "schema.pbtxt").write_text(text_format.MessageToString(directory.build_schema(NAMES)))
    return {"examples": [examples], "schema": [schema]}


def _model(probabilities, path):
    model = standard_artifacts.Model()
    model.uri = str(path)
    oracle = Oracle(probabilities)
    signatures = {"serving_default": oracle.serve}
    tf.saved_model.save(oracle, path_utils.serving_model_path(model.uri), signatures)
    return model


@pytest.fixture
def evaluate(inputs, tmp_path):
    """Returns a function that evaluates a model with given probabilities and gates."""

    def run(probabilities, baseline=None, beam_arguments=(), corruptions=0, **gates):
        artifacts = {**inputs, "model": [_model(probabilities, tmp_path / "model")]}
        if baseline is not None:
            artifacts["baseline_model"] = [_model(baseline, tmp_path / "baseline")]
        outputs = {
            "evaluation": [standard_artifacts.ModelEvaluation()],
            "blessing": [standard_artifacts.ModelBlessing()],
        }
        for name, (artifact,) in outputs.items():
            artifact.uri = str(tmp_path / name)
            # An earlier evaluation of the test may have written another number of files.
            shutil.rmtree(artifact.uri, ignore_errors=True)
        eval_config = evaluation_gates.eval_config(
            EvaluationConfig(corruptions=corruptions, **gates), len(NAMES), "digest"
        )
        context = executor.Executor.Context(beam_pipeline_args=list(beam_arguments))
        executor.Executor(context).Do(
            artifacts,
            outputs,
            {
                "eval_config": json_format.MessageToJson(eval_config),
                "example_splits": json.dumps(["test"]),
                "module_path": "components.evaluator.slices",
            },
        )
        evaluated = evaluation_gates.Evaluation(outputs["evaluation"][0].uri, NAMES)
        assert (tmp_path / "blessing" / "BLESSED").exists() == evaluated.blessed
        return evaluated

    return run


def _corrupted(accuracy):
    """Returns what `robustness.measure` returns, as far as it is read here; it is lowest with shifts."""
    rows = [{"name": name, "accuracy": 0.2 if name == "shift" else 0.7} for name, _ in CELLS]
    return {"accuracy": accuracy, "measured": rows}


def _probabilities(wrong, confidence=0.7):
    """Returns probabilities that predict the class after the label where `wrong`, and the label elsewhere."""
    predicted = np.where(wrong, (LABELS + 1) % 3, LABELS)
    rest = (1 - confidence) / (len(NAMES) - 1)
    return np.where(np.eye(len(NAMES))[predicted] > 0, confidence, rest).astype(np.float32)


def _every(step, label=None):
    """Returns a mask with one in `step` examples of a class, or of every class."""
    index_in_class = np.arange(COUNT) // 3
    return (index_in_class % step == 0) & ((label == LABELS) if label is not None else True)


@pytest.fixture
def worker_code(tmp_path):
    """Process arguments: this project on the module path, as in the image, and an empty working directory."""
    empty = tmp_path / "worker"
    empty.mkdir()
    return {"cwd": empty, "env": os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": PATH}}


@pytest.fixture
def cluster(worker_code):
    """Starts Beam's job server and worker pool in place of Flink's; yields the settings to reach them."""
    job_port, pool_port = _free_port(), _free_port()
    modules = {
        "apache_beam.runners.portability.local_job_service_main": f"--port={job_port}",
        "apache_beam.runners.worker.worker_pool_main": f"--service_port={pool_port}",
    }
    servers = [
        subprocess.Popen([sys.executable, "-m", module, port], **worker_code, stderr=subprocess.DEVNULL)
        for module, port in modules.items()
    ]
    try:
        _wait_for(job_port)
        _wait_for(pool_port)
        yield (
            "beam.runner=flink",
            f"beam.flink.job_endpoint=localhost:{job_port}",
            "beam.flink.environment_type=EXTERNAL",
            f"beam.flink.environment_config=localhost:{pool_port}",
        )
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _wait_for(port):
    end = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("localhost", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < end, f"expected a server on port {port} within 120 s; found none"
            time.sleep(0.2)
        else:
            return


def _beam_arguments(*overrides):
    return beam.arguments(loading.load(overrides=overrides).beam, "root", None)


def test_workers_in_other_processes_compute_the_same_metrics(evaluate, cluster, worker_code, monkeypatch):
    wrong = _every(4)
    in_process = evaluate(_probabilities(wrong), min_accuracy=0.5)
    on_cluster = evaluate(_probabilities(wrong), beam_arguments=_beam_arguments(*cluster), min_accuracy=0.5)
    for name in ("PYTHONPATH", "PATH"):
        monkeypatch.setenv(name, worker_code["env"][name])
    monkeypatch.chdir(worker_code["cwd"])
    image = np.zeros((2, 2, 3), np.uint8)
    monkeypatch.setattr(robustness, "measure", lambda *arguments: (_corrupted(0.1), image))
    in_worker_processes = evaluate(
        _probabilities(wrong),
        beam_arguments=_beam_arguments("beam.direct.processes=2"),
        min_accuracy=0.5,
        corruptions=7,
    )
    assert in_worker_processes.metric("corrupted_accuracy") == 0.1
    assert in_process.metric("accuracy") == 0.75
    assert {row["feature"] for row in in_process.slices()} == {"brightness", "contrast"}
    for evaluated in (on_cluster, in_worker_processes):
        assert evaluated.slices() == in_process.slices()
        expected_gates = [gate.to_json() for gate in in_process.gates()]
        assert [gate.to_json() for gate in evaluated.gates()] == expected_gates
        for name in ("loss", "f1_macro", "roc_auc_macro", "calibration_error"):
            assert evaluated.metric(name) == pytest.approx(in_process.metric(name), abs=1e-12)


def test_a_model_without_a_baseline_is_blessed_by_the_absolute_gates(evaluate, tmp_path):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(COUNT, len(NAMES))) + 2 * np.eye(len(NAMES))[LABELS]
    logits[DARK] -= 1.5 * np.eye(len(NAMES))[LABELS[DARK]]
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    evaluated = evaluate(probabilities, min_accuracy=0.3, min_f1_macro=0.2)
    assert evaluated.blessed
    assert not evaluated.has_baseline
    assert robustness.read(str(tmp_path / "evaluation")) is None
    assert [gate.setting for gate in evaluated.gates()] == [
        "evaluation.min_accuracy",
        "evaluation.min_confidence_above_guessing",
        "evaluation.max_classes_never_predicted",
        "evaluation.min_f1_macro",
    ]
    assert all(gate.passed for gate in evaluated.gates())

    # The metrics of the report have the same values.
    ids = [str(i) for i in range(COUNT)]
    expected = scores.compute(Predictions(ids, LABELS, probabilities), NAMES)
    averaged = ("precision", "recall", "f1", "roc_auc", "pr_auc")
    names = ["accuracy", "loss", "top_k_accuracy", "calibration_error"]
    names += [f"{name}_{average}" for name in averaged for average in definitions.AVERAGES]
    for name in names:
        assert evaluated.metric(name) == pytest.approx(expected[name], abs=1e-6), name
    for class_id, class_scores in enumerate(expected["classes"][:3]):
        for name in averaged:
            assert evaluated.metric(name, class_id) == pytest.approx(class_scores[name], abs=1e-6)

    # The slices show that the accuracy is lower on dark images.
    correct = probabilities.argmax(axis=1) == LABELS
    slices = {(s["feature"], s["value"]): s for s in evaluated.slices()}
    assert set(slices) == {
        ("brightness", "0 to 0.25"),
        ("brightness", "0.75 to 1"),
        ("contrast", "0 to 0.1"),
    }
    dark = slices["brightness", "0 to 0.25"]
    assert dark["examples"] == 60
    assert dark["accuracy"] == pytest.approx(correct[DARK].mean())
    assert slices["brightness", "0.75 to 1"]["accuracy"] == pytest.approx(correct[~DARK].mean())
    assert dark["interval"][0] < dark["accuracy"] < dark["interval"][1] < expected["intervals"]["accuracy"][0]


def test_every_failed_gate_is_reported_with_its_value_and_limit(evaluate, monkeypatch, tmp_path):
    def measure(model_directory, files, count):
        assert tf.saved_model.contains_saved_model(model_directory)
        assert len(list(tf.data.TFRecordDataset(files, "GZIP"))) == COUNT and count == 7
        return _corrupted(0.4321), np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(robustness, "measure", measure)
    # A third of the cats are predicted as dogs; all other predictions are correct.
    evaluated = evaluate(
        _probabilities(_every(3, label=0), confidence=0.5),
        min_accuracy=0.9,
        min_f1_macro=0.8,
        min_class_recall=0.7,
        min_class_precision=0.8,
        max_calibration_error=0.1,
        corruptions=7,
        min_corrupted_accuracy=0.5,
    )
    assert not evaluated.blessed
    failed = [gate for gate in evaluated.gates() if not gate.passed]
    assert [gate.sentence for gate in failed] == [
        "accuracy 0.8867 is under evaluation.min_accuracy, 0.9000",
        "calibration error 0.3867 is over evaluation.max_calibration_error, 0.1000",
        "corrupted accuracy 0.4321 is under evaluation.min_corrupted_accuracy, 0.5000; lowest with shift, "
        "0.2000",
        "precision of 'dog' 0.7463 is under evaluation.min_class_precision, 0.8000",
        "recall of 'cat' 0.6600 is under evaluation.min_class_recall, 0.7000",
    ]
    assert [gate.setting for gate in evaluated.gates() if gate.passed] == [
        "evaluation.min_confidence_above_guessing",
        "evaluation.max_classes_never_predicted",
        "evaluation.min_f1_macro",
    ]
    assert robustness.read(str(tmp_path / "evaluation"))[0] == _corrupted(0.4321)
    # A class without test images has no recall, so it cannot fail a gate.
    assert "never seen" not in str(evaluated.gates())


def test_a_model_that_knows_nothing_is_not_blessed(evaluate):
    always_cat = np.tile(np.array([0.7, 0.1, 0.1, 0.1], np.float32), (COUNT, 1))
    evaluated = evaluate(always_cat, baseline=always_cat, min_accuracy=0.0)
    assert not evaluated.blessed
    guessing, never_predicted = (gate for gate in evaluated.gates() if not gate.passed)
    assert (guessing.setting, guessing.kind, guessing.limit, guessing.class_name) == (
        "evaluation.min_confidence_above_guessing",
        "floor",
        0.99,
        None,
    )
    assert guessing.value == pytest.approx(scipy.stats.binom.cdf(99, 300, 1 / 3))
    assert guessing.to_json()["sentence"] == (
        "accuracy 0.3333 (100 of 300 images) is not above the share of the largest class, 0.3333 ('cat'), "
        f"beyond what chance explains: confidence {guessing.value:.4f} is under "
        "evaluation.min_confidence_above_guessing, 0.9900; 120 right would be enough"
    )
    assert (never_predicted.kind, never_predicted.value, never_predicted.limit) == ("ceiling", 2, 0)
    # A class without test images does not count as one that is never predicted.
    assert never_predicted.sentence == (
        "2 of the 3 classes with test images are never predicted in 300 images: 'dog' (100 images), "
        "'<b>owl</b>' (100 images); evaluation.max_classes_never_predicted allows 0"
    )


def test_a_better_model_that_drops_in_one_class_is_not_blessed(evaluate):
    # The baseline is wrong on a fifth of all examples, the model on three tenths of the cats only.
    baseline = _probabilities(_every(5))
    wrong_cats = (LABELS == 0) & (np.arange(COUNT) // 3 % 10 < 3)
    evaluated = evaluate(_probabilities(wrong_cats), baseline=baseline)
    assert evaluated.metric("accuracy") == pytest.approx(0.9)
    assert not evaluated.blessed
    (failed,) = (gate for gate in evaluated.gates() if not gate.passed)
    assert failed.class_name == "cat"
    assert failed.sentence == (
        "recall of 'cat' is 0.1000 under the last blessed model's; "
        "evaluation.max_class_recall_drop allows 0.0800"
    )
    accuracy = next(gate for gate in evaluated.gates() if gate.setting == "evaluation.max_accuracy_drop")
    assert accuracy.value == pytest.approx(-0.1)
    assert accuracy.sentence == "accuracy is not under the last blessed model's"


def test_gates_set_to_none_are_not_applied(evaluate, monkeypatch):
    image = np.zeros((2, 2, 3), np.uint8)
    monkeypatch.setattr(robustness, "measure", lambda *arguments: (_corrupted(0.1), image))
    evaluated = evaluate(
        _probabilities(_every(2)),
        baseline=_probabilities(_every(4)),
        min_accuracy=0.0,
        min_confidence_above_guessing=None,
        max_classes_never_predicted=None,
        max_accuracy_drop=None,
        max_class_recall_drop=None,
        max_class_precision_drop=0.5,
        corruptions=7,
        slices=(),
    )
    assert evaluated.blessed
    assert [gate.setting for gate in evaluated.gates()] == [
        "evaluation.min_accuracy",
        "evaluation.max_class_precision_drop",
    ]
    assert evaluated.slices() == []
    assert evaluated.metric("corrupted_accuracy") == 0.1
