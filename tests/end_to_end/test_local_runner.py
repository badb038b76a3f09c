"""Whole runs of `local_runner.py` on the drawn shapes, one after the other in one root.

The order matters: each test starts from what the ones before it left there.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from datasets import directory
from pipeline import config

pytestmark = pytest.mark.slow

SMALL = (
    *("--set", "trainer.epochs=3"),
    *("--set", "tuner.trials=2"),
    *("--set", "tuner.epochs=1"),
    *("--set", "tuner.learning_rate={min: 0.002, max: 0.008}"),
    *("--set", "tuner.batch_sizes=[32, 64]"),
    *("--set", "evaluation.min_accuracy=0.12"),
)
ALL = set(config.components(config.load()))
FROM_TRAINER = {"Trainer", "Baseline", "Evaluator", "ModelReport", "ServingCheck", "Pusher"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(local_runner, root):
    """Nothing is asked for, and there is no network: the drawn shapes stand in for CIFAR-10."""
    return local_runner("--root", str(root), *SMALL)


def test_a_first_run_goes_from_tfrecords_to_a_pushed_model(first):
    assert first.returncode == 0, first.output
    assert first.rerun == ALL
    summary = first.summary
    assert summary["data"] == "shapes"
    assert summary["model"] == "cnn"
    assert summary["test"]["accuracy"] > 0.12
    assert set(summary["test"]) == {"accuracy", "precision_macro", "recall_macro", "f1_macro"}
    assert summary["blessed"] is True
    assert (Path(summary["pushed"]) / "saved_model.pb").is_file()
    assert Path(summary["report"]).read_text().startswith("<!doctype html>")
    assert summary["error"] is None


def test_a_run_that_is_not_on_cifar10_says_so_at_the_start_and_in_the_summary(first):
    start, end = first.output.split("ImportExampleGen", 1)
    assert "NOT CIFAR-10" in start + end.split("Pusher")[-1]
    assert first.output.count("NOT CIFAR-10") == 2


def test_the_trainer_used_what_the_tuner_found(first, root):
    (best,) = (root / "pipelines" / "shapes" / "Tuner" / "best_hyperparameters").glob("*/*.txt")
    found = json.loads(best.read_text())["values"]
    assert first.summary["hyperparameters"] == {
        "learning_rate": found["learning_rate"],
        "batch_size": found["batch_size"],
    }
    assert 0.002 <= found["learning_rate"] <= 0.008
    assert found["batch_size"] in (32, 64)


def test_the_evaluator_and_the_report_agree(first, root):
    import tensorflow_model_analysis as tfma  # noqa: PLC0415

    (evaluation,) = (root / "pipelines" / "shapes" / "Evaluator" / "evaluation").iterdir()
    report = json.loads((Path(first.summary["report"]).parent / "metrics.json").read_text())
    ((_, by_output),) = tfma.load_eval_result(str(evaluation)).slicing_metrics
    by_class = by_output[""]
    for name in ("accuracy", "loss", "precision_macro", "recall_macro", "f1_macro"):
        assert by_class[""][name]["doubleValue"] == pytest.approx(report[name], abs=1e-5)
    for index, row in enumerate(report["classes"]):
        for name in ("precision", "recall", "f1"):
            assert by_class[f"classId:{index}"][name]["doubleValue"] == pytest.approx(row[name], abs=1e-9)


def test_the_same_again_is_all_cached(first, local_runner, root):
    again = local_runner("--root", str(root), *SMALL)
    assert again.returncode == 0, again.output
    assert set(again.states) == ALL
    assert set(again.states.values()) == {"cached"}
    assert again.summary["pushed"] == first.summary["pushed"]
    assert again.summary["test"] == first.summary["test"]


def test_from_runs_a_component_anew_and_all_that_follows(first, local_runner, root):
    result = local_runner("--root", str(root), *SMALL, "--from", "Evaluator")
    assert result.returncode == 0, result.output
    assert result.rerun == {"Evaluator", "ModelReport", "Pusher"}


def test_a_changed_hyperparameter_runs_what_depends_on_it_and_a_worse_model_is_not_pushed(
    first, local_runner, root
):
    versions = set(Path(first.summary["pushed"]).parent.iterdir())
    worse = local_runner(
        *("--root", str(root), *SMALL),
        *("--set", "trainer.epochs=1", "--set", "trainer.label_smoothing=0.99"),
        *("--set", "evaluation.min_accuracy=0", "--no-tune", "--set", "trainer.learning_rate=1e-9"),
    )
    assert worse.returncode == 0, worse.output
    assert worse.rerun == FROM_TRAINER
    assert worse.summary["blessed"] is False
    assert worse.summary["pushed"] is None
    (reason,) = worse.summary["not_pushed_because"]
    assert "under the last blessed model's" in reason
    assert reason in " ".join(worse.output.split())
    assert set(Path(first.summary["pushed"]).parent.iterdir()) == versions


def test_a_run_that_is_killed_in_training_goes_on_from_there(
    first, environment, local_runner, root, tmp_path
):
    runner = Path(__file__).resolve().parents[2] / "local_runner.py"
    arguments = ["--root", str(root), *SMALL, "--set", "trainer.early_stopping_patience=7"]
    command = [sys.executable, str(runner), *arguments]
    with (tmp_path / "output").open("w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=tmp_path)
        deadline = time.monotonic() + 300
        while "training: epoch 1" not in (tmp_path / "output").read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = local_runner(*arguments)
    assert result.returncode == 0, result.output
    assert result.states["Tuner"] == "cached"
    assert result.states["Trainer"] == "complete"
    assert result.states["Pusher"] == "complete"


def _change_example(dataset: Path, split: str, change) -> None:
    """Changes the fourth example of a split in place."""
    (shard,) = (dataset / split).glob(directory.SHARD_PATTERN)
    records = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    example = tf.train.Example.FromString(records[3])
    change(example.features.feature)
    records[3] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for record in records:
            writer.write(record)


def _truncate_image(values) -> None:
    values["image"].bytes_list.value[0] = values["image"].bytes_list.value[0][:-30]


def _wrong_label(values) -> None:
    values["label"].int64_list.value[0] = 12


def _no_image(values) -> None:
    del values["image"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"val": _truncate_image}, ["val: image: example '", "cannot be decoded"]),
        (
            {"train": _wrong_label, "test": _no_image},
            ["train: label: Out-of-range values", "12", "test: image: Column dropped", "fewer examples"],
        ),
    ],
    ids=["undecodable image", "label out of range and image missing"],
)
def test_a_bad_record_stops_the_run_before_anything_is_trained(
    tiny_dataset, local_runner, tmp_path, changes, expected
):
    shutil.copytree(tiny_dataset.path, tmp_path / "bad")
    for split, change in changes.items():
        _change_example(tmp_path / "bad", split, change)
    result = local_runner("--root", str(tmp_path / "runs"), "--data", str(tmp_path / "bad"), *SMALL)
    assert result.returncode == 1
    assert result.summary["error"]["component"] == "DataGate"
    for text in expected:
        assert text in result.summary["error"]["message"]
    assert "DataGate failed" in result.output
    assert result.states["DataGate"] == "failed"
    assert result.states["Trainer"] == "not_run"
    assert result.summary["test"] is None
    assert result.summary["pushed"] is None
    assert not (tmp_path / "runs" / "pipelines" / "bad" / "Transform").exists()


def test_wrong_flags_are_refused_at_once(local_runner):
    start = time.monotonic()
    for arguments, expected in [
        (["--set", "trainer.epocs=3"], "did you mean epochs?"),
        (["--from", "Trainr"], "expected one of ImportExampleGen"),
        (["--model", "vit"], "input should be 'cnn' or 'mobilenetv2'"),
        (["--config", "none.yaml"], "cannot read the configuration file none.yaml"),
        (["--data", "/nowhere"], "found nothing there"),
        (
            [
                "--model",
                "mobilenetv2",
                "--set",
                "model.mobilenetv2.weights=/nowhere.h5",
                "--data",
                "/nowhere",
            ],
            "found nothing there",
        ),
    ]:
        result = local_runner(*arguments)
        assert result.returncode == 1
        assert expected in result.output
        assert "Traceback" not in result.output
    assert time.monotonic() - start < 6 * 5


def test_the_data_gate_counted_every_split(first, root):
    (report,) = (root / "pipelines" / "shapes" / "DataGate").rglob("data_gate.json")
    assert sum(json.loads(report.read_text())["examples"].values()) == 2400
