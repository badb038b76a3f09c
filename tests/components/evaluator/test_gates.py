"""The Evaluator itself, on exported models whose answers are known."""

import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from google.protobuf import json_format, text_format
from tfx.components.evaluator import executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components.evaluator import definitions
from components.evaluator import gates as evaluation_gates
from components.model_report import scores
from components.model_report.predictions import Predictions
from datasets import directory, features
from pipeline import beam
from settings import loading
from settings.evaluation import EvaluationConfig

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[3]
# Where Beam finds the `python` of its workers.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
NAMES = ["cat", "dog", "<b>owl</b>", "never seen"]
COUNT = 300  # a hundred of each of the first three classes
LABELS = np.arange(COUNT) % 3
DARK = np.arange(COUNT) < 60


class Oracle(tf.Module):
    """A model that knows by heart what to say of each example, by its id."""

    def __init__(self, probabilities):
        super().__init__()
        self._probabilities = tf.constant(probabilities, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, examples):
        spec = {features.ID: tf.io.FixedLenFeature([], tf.string)}
        places = tf.strings.to_number(tf.io.parse_example(examples, spec)[features.ID], tf.int32)
        return {"probabilities": tf.gather(self._probabilities, places)}


def _png(brightness):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (2, 2), (brightness,) * 3).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The examples and the schema, as artifacts."""
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
    """Evaluates a model of given probabilities by given gates; returns the evaluation."""

    def run(probabilities, baseline=None, beam_arguments=(), **gates):
        artifacts = {**inputs, "model": [_model(probabilities, tmp_path / "model")]}
        if baseline is not None:
            artifacts["baseline_model"] = [_model(baseline, tmp_path / "baseline")]
        outputs = {
            "evaluation": [standard_artifacts.ModelEvaluation()],
            "blessing": [standard_artifacts.ModelBlessing()],
        }
        for name, (artifact,) in outputs.items():
            artifact.uri = str(tmp_path / name)
        eval_config = evaluation_gates.eval_config(EvaluationConfig(**gates), len(NAMES), "digest")
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


def _answers(wrong, confidence=0.7):
    """Probabilities of a model that is wrong, by one class, where `wrong` says so."""
    answers = np.where(wrong, (LABELS + 1) % 3, LABELS)
    rest = (1 - confidence) / (len(NAMES) - 1)
    return np.where(np.eye(len(NAMES))[answers] > 0, confidence, rest).astype(np.float32)


def _every(step, label=None):
    """Marks one of `step` examples, of one class or of all."""
    place = np.arange(COUNT) // 3
    return (place % step == 0) & ((label == LABELS) if label is not None else True)


@pytest.fixture
def worker_code(tmp_path):
    """An environment that has this project's code on its path, as the image has; and an empty directory."""
    empty = tmp_path / "worker"
    empty.mkdir()
    return {"cwd": empty, "env": os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": PATH}}


@pytest.fixture
def cluster(worker_code):
    """Beam's own job server and worker pool, which stand in for Flink's; returns what they are told by."""
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
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.2)
        else:
            return


def _arguments(*overrides):
    return beam.arguments(loading.load(overrides=overrides).beam, "root", None)


def test_workers_in_other_processes_measure_the_same(evaluate, cluster, worker_code, monkeypatch):
    wrong = _every(4)
    here = evaluate(_answers(wrong), min_accuracy=0.5)
    on_cluster = evaluate(_answers(wrong), beam_arguments=_arguments(*cluster), min_accuracy=0.5)
    for name in ("PYTHONPATH", "PATH"):
        monkeypatch.setenv(name, worker_code["env"][name])
    monkeypatch.chdir(worker_code["cwd"])
    in_processes = evaluate(
        _answers(wrong), beam_arguments=_arguments("beam.direct.processes=2"), min_accuracy=0.5
    )
    assert here.metric("accuracy") == 0.75
    assert {row["feature"] for row in here.slices()} == {"brightness", "contrast"}
    for each in (on_cluster, in_processes):
        assert each.slices() == here.slices()
        assert [gate.to_json() for gate in each.gates()] == [gate.to_json() for gate in here.gates()]
        for name in ("loss", "f1_macro", "roc_auc_macro", "calibration_error"):
            assert each.metric(name) == pytest.approx(here.metric(name), abs=1e-12)


def test_a_first_model_is_blessed_by_the_absolute_gates_alone(evaluate):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(COUNT, len(NAMES))) + 2 * np.eye(len(NAMES))[LABELS]
    logits[DARK] -= 1.5 * np.eye(len(NAMES))[LABELS[DARK]]
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    evaluated = evaluate(probabilities, min_accuracy=0.3, min_f1_macro=0.2)
    assert evaluated.blessed
    assert not evaluated.has_baseline
    assert [gate.setting for gate in evaluated.gates()] == [
        "evaluation.min_accuracy",
        "evaluation.min_f1_macro",
    ]
    assert all(gate.passed for gate in evaluated.gates())

    # The report's own metrics are the same.
    ids = [str(i) for i in range(COUNT)]
    expected = scores.compute(Predictions(ids, LABELS, probabilities), NAMES)
    averaged = ("precision", "recall", "f1", "roc_auc", "pr_auc")
    names = ["accuracy", "loss", "top_k_accuracy", "calibration_error"]
    names += [f"{name}_{average}" for name in averaged for average in definitions.AVERAGES]
    for name in names:
        assert evaluated.metric(name) == pytest.approx(expected[name], abs=1e-6), name
    for class_id, of_class in enumerate(expected["classes"][:3]):
        for name in averaged:
            assert evaluated.metric(name, class_id) == pytest.approx(of_class[name], abs=1e-6)

    # The slices show that it fails on dark images.
    right = probabilities.argmax(axis=1) == LABELS
    slices = {(s["feature"], s["value"]): s for s in evaluated.slices()}
    assert set(slices) == {
        ("brightness", "0 to 0.25"),
        ("brightness", "0.75 to 1"),
        ("contrast", "0 to 0.1"),
    }
    dark = slices["brightness", "0 to 0.25"]
    assert dark["examples"] == 60
    assert dark["accuracy"] == pytest.approx(right[DARK].mean())
    assert slices["brightness", "0.75 to 1"]["accuracy"] == pytest.approx(right[~DARK].mean())
    assert dark["interval"][0] < dark["accuracy"] < dark["interval"][1] < expected["intervals"]["accuracy"][0]


def test_every_failed_gate_is_named_with_its_figure_and_limit(evaluate):
    # A third of the cats are taken for dogs, and nothing else is wrong.
    evaluated = evaluate(
        _answers(_every(3, label=0), confidence=0.5),
        min_accuracy=0.9,
        min_f1_macro=0.8,
        min_class_recall=0.7,
        min_class_precision=0.8,
        max_calibration_error=0.1,
    )
    assert not evaluated.blessed
    failed = [gate for gate in evaluated.gates() if not gate.passed]
    assert [gate.sentence for gate in failed] == [
        "accuracy 0.8867 is under evaluation.min_accuracy, 0.9000",
        "calibration error 0.3867 is over evaluation.max_calibration_error, 0.1000",
        "precision of 'dog' 0.7463 is under evaluation.min_class_precision, 0.8000",
        "recall of 'cat' 0.6600 is under evaluation.min_class_recall, 0.7000",
    ]
    (passed,) = (gate for gate in evaluated.gates() if gate.passed)
    assert passed.setting == "evaluation.min_f1_macro"
    # The class without a test image has no recall that could be too low.
    assert "never seen" not in str(evaluated.gates())


def test_a_model_that_is_better_but_for_one_class_is_not_blessed(evaluate):
    # Before: a fifth of all wrong. Now: three tenths of the cats, and nothing else.
    before = _answers(_every(5))
    cats = (LABELS == 0) & (np.arange(COUNT) // 3 % 10 < 3)
    now = _answers(cats)
    evaluated = evaluate(now, baseline=before)
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


def test_gates_that_are_not_set_are_not_applied(evaluate):
    evaluated = evaluate(
        _answers(_every(2)),
        baseline=_answers(_every(4)),
        min_accuracy=0.0,
        max_accuracy_drop=None,
        max_class_recall_drop=None,
        max_class_precision_drop=0.5,
        slices=(),
    )
    assert evaluated.blessed
    assert [gate.setting for gate in evaluated.gates()] == [
        "evaluation.min_accuracy",
        "evaluation.max_class_precision_drop",
    ]
    assert evaluated.slices() == []
