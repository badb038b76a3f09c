"""Runs `local_runner.py` on the drawn shapes, several times in one root.

The order of the tests matters: each one continues from the artifacts of the tests before it.
"""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from components import metadata, tfrecords
from components.model_report import predictions, report_files
from datasets import digest, directory
from lineage.__main__ import app
from pipeline import cli
from settings import loading
from settings.places import METADATA_FILE
from tests.browser import SIZES, check_layout, visit

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]

SMALL = (
    *("--set", "model.cnn.filters=[16, 32, 32]"),
    *("--set", "trainer.epochs=3"),
    *("--set", "tuner.trials=2"),
    *("--set", "tuner.epochs=1"),
    *("--set", "tuner.space.trainer.learning_rate={min: 0.06, max: 0.2}"),
    *("--set", "tuner.space.trainer.batch_size=[32, 64]"),
    *("--set", "evaluation.min_accuracy=0.12"),
)
ALL = set(loading.load().steps())
FROM_TRAINER = {"Trainer", "Baseline", "Evaluator", "ModelReport", "ServingCheck", "Pusher"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(local_runner, root):
    """A run without --data and without network, which falls back from CIFAR-10 to the drawn shapes."""
    return local_runner("--root", str(root), *SMALL)


def test_a_first_run_goes_from_tfrecords_to_a_pushed_model(first):
    assert first.returncode == 0, first.output
    assert first.rerun == ALL
    summary = first.summary
    assert summary["data"] == "shapes"
    assert summary["model"] == "cnn"
    assert summary["test"]["accuracy"] > 0.12
    assert set(summary["test"]) == {
        "accuracy",
        "precision_macro",
        "recall_macro",
        "f1_macro",
        "calibration_error",
        "corrupted_accuracy",
    }
    assert summary["blessed"] is True
    assert (Path(summary["pushed"]) / "saved_model.pb").is_file()
    assert Path(summary["report"]).read_text().startswith("<!doctype html>")
    assert summary["error"] is None


def test_a_run_that_is_not_on_cifar10_says_so_at_the_start_and_in_the_summary(first):
    start, end = first.output.split("ImportExampleGen", 1)
    assert "NOT CIFAR-10" in start + end.split("Pusher")[-1]
    assert first.output.count("NOT CIFAR-10") == 2


def test_the_trainer_uses_the_hyperparameters_of_the_tuner(first, root):
    (best,) = (root / "pipelines" / "shapes" / "Tuner" / "best_hyperparameters").glob("*/*.txt")
    found = json.loads(best.read_text())["values"]
    assert first.summary["hyperparameters"] == found
    assert 0.06 <= found["trainer.learning_rate"] <= 0.2
    assert found["trainer.batch_size"] in (32, 64)


def test_what_is_served_is_what_was_evaluated(first, report, root):
    """Compares the answers of the pushed model with the report's predictions, for the whole test split."""
    evaluated, class_names = predictions.read(report / report_files.PREDICTIONS)
    (split,) = (root / "pipelines" / "shapes" / "ImportExampleGen" / "examples").glob("*/Split-test")
    examples = [
        tf.train.Example.FromString(record)
        for record in tfrecords.read([str(file) for file in sorted(split.iterdir())]).as_numpy_iterator()
    ]
    encoded = [example.features.feature["image"].bytes_list.value[0] for example in examples]
    requests = {
        "serving_default": {"examples": tf.constant([example.SerializeToString() for example in examples])},
        "serve_image_bytes": {"image_bytes": tf.constant(encoded)},
        "serve_images": {"images": tf.stack([tf.io.decode_png(image, channels=3) for image in encoded])},
    }
    pushed = tf.saved_model.load(first.summary["pushed"])
    for name, inputs in requests.items():
        answer = pushed.signatures[name](**inputs)
        np.testing.assert_allclose(answer["probabilities"], evaluated.probabilities, atol=1e-5, err_msg=name)
        served = [class_name.decode() for class_name in answer["class_name"].numpy()]
        assert served == [class_names[i] for i in evaluated.predicted]


@pytest.fixture(scope="module")
def report(first):
    """The folder of the first run's report."""
    return Path(first.summary["report"]).parent


def test_the_evaluator_and_the_report_agree(report, root):
    """Compares the metrics of TFMA with those of the report, which scikit-learn computes."""
    from components.evaluator import gates  # noqa: PLC0415

    written = json.loads((report / "metrics.json").read_text())
    (folder,) = (root / "pipelines" / "shapes" / "Evaluator" / "evaluation").iterdir()
    evaluated = gates.Evaluation(str(folder), [c["name"] for c in written["classes"]])
    assert evaluated.blessed is written["blessed"] is True
    averaged = ("precision", "recall", "f1", "roc_auc", "pr_auc")
    names = [f"{name}_{average}" for name in averaged for average in ("macro", "micro", "weighted")]
    for name in ("accuracy", "top_k_accuracy", "loss", "calibration_error", *names):
        assert evaluated.metric(name) == pytest.approx(written[name], abs=1e-6), name
    for index, row in enumerate(written["classes"]):
        for name in averaged:
            assert evaluated.metric(name, index) == pytest.approx(row[name], abs=1e-6)
    robustness = written["corruptions"]
    assert evaluated.metric("corrupted_accuracy") == pytest.approx(robustness["accuracy"])
    assert robustness["images"] == robustness["available"] == written["examples"]
    assert robustness["clean"]["accuracy"] == pytest.approx(written["accuracy"])
    fit = written["calibration_fit"]
    assert (fit["method"], fit["images"]) == ("temperature", written["data"]["splits"]["val"]["examples"])
    assert fit["val"]["before"] == written["history"]["calibration"]["before"]
    for name in ("loss", "calibration_error"):
        assert fit["evaluated"]["after"][name] == pytest.approx(written[name], abs=1e-6)


def test_the_report_contains_the_provenance_of_the_model(first, report):
    written = json.loads((report / "metrics.json").read_text())
    seconds = {c["id"]: c["seconds"] for c in written["components"]}
    assert set(seconds) == {
        *("ImportExampleGen", "StatisticsGen", "ExampleValidator", "DataGate"),
        *("Transform", "Tuner", "Trainer", "Evaluator"),
    }
    assert all(value > 0 for value in seconds.values())
    assert written["environment"]["training_seconds"] < seconds["Trainer"]
    assert {s: d["examples"] for s, d in written["data"]["splits"].items()} == {
        "train": 1600,
        "val": 400,
        "test": 400,
    }
    assert all(sum(d["classes"]) == d["examples"] for d in written["data"]["splits"].values())
    origins = {row["key"]: (row["value"], row["origin"]) for row in written["configuration"]}
    assert origins["trainer.epochs"] == (3, "--set")
    assert origins["tuner.space.trainer.learning_rate.min"] == (0.06, "--set")
    assert origins["trainer.early_stopping_patience"] == (5, "default")
    assert origins["model.cnn.dropout"] == (0.0, "quick.yaml")
    assert [trial["state"] for trial in written["trials"]] == ["complete", "complete"]
    assert written["search"]["val_images"] == 400
    assert first.summary["search"]["best_score"] == max(trial["score"] for trial in written["trials"])
    assert first.summary["tuned"] == ["trainer.learning_rate", "trainer.batch_size"]


def test_the_tuner_writes_all_trials_and_leaves_no_state(root):
    tuner = root / "pipelines" / "shapes" / "Tuner"
    (results,) = tuner.glob("tuner_results/*")
    assert {path.name for path in results.iterdir()} == {"trials.parquet", "tuner_results.json"}
    assert not list((tuner / "checkpoints").iterdir())
    store = metadata.open_store(root / METADATA_FILE)
    (artifact,) = store.get_artifacts_by_uri(str(results))
    noted = artifact.custom_properties
    assert (noted["trials"].int_value, noted["failed"].int_value) == (2, 0)
    assert noted["algorithm"].string_value == "space_filling"
    assert 0 < noted["best_score"].double_value <= 1


def test_an_earlier_search_replaces_the_tuner(first, root):
    config = cli.load([], [], None, False, first.summary["run"], root=str(root))
    assert not config.has_tuner
    assert config.trainer.learning_rate == first.summary["hyperparameters"]["trainer.learning_rate"]


@pytest.mark.parametrize("size", SIZES)
def test_the_browser_shows_the_page_without_problems(chromium, first, size):
    with visit(chromium, Path(first.summary["report"]), size) as page:
        check_layout(page)
        text = page.inner_text("main")
    assert f"{100 * first.summary['test']['accuracy']:.1f}" in text
    assert "Blessed" in text


def test_ml_metadata_has_the_metrics_of_the_report(first, root):
    store = metadata.open_store(root / METADATA_FILE)
    (artifact,) = store.get_artifacts_by_type("components.ModelReport")
    for name in ("accuracy", "corrupted_accuracy"):
        # TFX passes the properties of a component's outputs on with about six digits.
        stored = artifact.custom_properties[name].double_value
        assert stored == pytest.approx(first.summary["test"][name], abs=1e-5)
    assert artifact.custom_properties["blessed"].int_value == 1


def test_an_unchanged_run_is_cached_completely(first, local_runner, root):
    again = local_runner("--root", str(root), *SMALL)
    assert again.returncode == 0, again.output
    assert set(again.states) == ALL
    assert set(again.states.values()) == {"cached"}
    assert again.summary["pushed"] == first.summary["pushed"]
    assert again.summary["test"] == first.summary["test"]


def _notes_on_files(result):
    return [note for note in result.summary["notes"] if not note.startswith("DataGate: ")]


def test_a_pushed_model_that_was_deleted_is_pushed_again(first, local_runner, root):
    shutil.rmtree(root / "serving")
    again = local_runner("--root", str(root), *SMALL)
    assert again.returncode == 0, again.output
    assert again.rerun == {"Pusher"}
    assert (Path(again.summary["pushed"]) / "saved_model.pb").is_file()
    (note,) = _notes_on_files(again)
    assert f"Files of earlier results are gone: {first.summary['pushed']}" in note


@pytest.fixture(scope="module")
def waiting(first, local_runner, root):
    """A run from the Evaluator on, whose model waits to be promoted."""
    manual = ("--set", "pusher.promote=manual")
    return local_runner("--root", str(root), *SMALL, *manual, "--from", "Evaluator")


def test_from_reruns_a_component_and_its_dependents(waiting):
    assert waiting.returncode == 0, waiting.output
    assert waiting.rerun == {"Evaluator", "ModelReport", "Pusher"}


def test_a_pushed_model_waits_until_it_is_promoted_which_ml_metadata_has(waiting, root):
    pushed = Path(waiting.summary["pushed"])
    versions = sorted(int(path.name) for path in pushed.parent.iterdir() if path.is_dir())
    assert versions[1:] == [int(pushed.name)]
    assert json.loads((pushed.parent / "versions.json").read_text()) == {"stable": versions[0]}

    shown = "Promote it: python "
    (line,) = (line for line in waiting.output.splitlines() if line.startswith(shown))
    promoted = subprocess.run(
        [sys.executable, *shlex.split(line.removeprefix(shown))],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = (
        f"shapes: version {versions[1]} is to answer instead of {versions[0]}; "
        "see /v1/models/shapes of the server\n"
    )
    assert (promoted.stdout, promoted.stderr) == (answer, "")
    store = metadata.open_store(root / METADATA_FILE)
    (execution,) = store.get_executions_by_type("serving.versions")
    (event,) = store.get_events_by_execution_ids([execution.id])
    (artifact,) = store.get_artifacts_by_id([event.artifact_id])
    assert artifact.type == "PushedModel"
    assert artifact.custom_properties["pushed_destination"].string_value == str(pushed)


def test_a_changed_hyperparameter_reruns_its_dependents_and_a_worse_model_is_not_pushed(
    first, local_runner, root
):
    versions = set(Path(first.summary["pushed"]).parent.iterdir())
    worse = local_runner(
        *("--root", str(root), *SMALL),
        *("--set", "trainer.epochs=1", "--set", "trainer.label_smoothing=0.99"),
        *("--set", "evaluation.min_accuracy=0", "--no-tune", "--set", "trainer.learning_rate=1e-9"),
        *("--set", "evaluation.corruptions=0"),
    )
    assert worse.returncode == 0, worse.output
    assert worse.rerun == FROM_TRAINER
    assert worse.summary["blessed"] is False
    assert worse.summary["pushed"] is None
    reasons = worse.summary["not_pushed_because"]
    # A model that has learned nothing is no better than guessing, whatever the lowest accuracy is.
    assert " is not above the share of the largest class, 0.1000 ('" in reasons[0]
    (dropped,) = (reason for reason in reasons if reason.startswith("accuracy is "))
    assert "; evaluation.max_accuracy_drop allows 0.0000" in dropped
    assert any(reason.startswith("recall of '") for reason in reasons)
    # The table shows only the first four reasons.
    assert all(reason in " ".join(worse.output.split()) for reason in reasons[:4])
    assert set(Path(first.summary["pushed"]).parent.iterdir()) == versions

    written = json.loads((Path(worse.summary["report"]).parent / "metrics.json").read_text())
    (accuracy,) = (m for m in written["comparison"]["metrics"] if m["name"] == "accuracy")
    assert (accuracy["a"], accuracy["b"]) == tuple(r.summary["test"]["accuracy"] for r in (first, worse))
    assert Path(written["baseline"]["uri"]).is_dir()
    assert _notes_on_files(worse) == []

    command = [sys.executable, "-m", "components.model_report.compare", "--root", str(root)]
    compared = subprocess.run(
        [*command, first.summary["run"], worse.summary["run"]],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    change = f"{accuracy['difference']:+.4f}"
    assert change in next(line for line in compared.stdout.splitlines() if line.startswith("Accuracy"))


def test_a_run_that_is_killed_in_training_resumes(first, environment, local_runner, root, tmp_path):
    # The first model is the only blessed one so far, and would be the baseline.
    models = root / "pipelines" / "shapes" / "Trainer" / "model"
    shutil.rmtree(min(models.iterdir(), key=lambda model: int(model.name)))
    arguments = ["--root", str(root), *SMALL, "--set", "trainer.early_stopping_patience=7"]
    command = [sys.executable, str(REPOSITORY / "local_runner.py"), *arguments]
    with (tmp_path / "output").open("w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=tmp_path)
        deadline = time.monotonic() + 300
        while "training: epoch 1/3 in" not in (tmp_path / "output").read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = local_runner(*arguments)
    assert result.returncode == 0, result.output
    assert result.states["Tuner"] == "cached"
    assert result.states["Trainer"] == "complete"
    assert "training: resumes after epoch" in result.output
    assert result.states["Pusher"] == "complete"
    (note,) = _notes_on_files(result)
    assert "The files of the last blessed model" in note
    assert "there is no baseline, and the gates that limit a drop do not apply" in note
    assert list(root.glob("pipelines/*/Trainer/checkpoints"))
    assert not list(root.glob("pipelines/*/Trainer/checkpoints/*"))


def _ask(root, *arguments, exit_code=0):
    """Asks `python -m lineage`, and returns the answer."""
    result = CliRunner().invoke(app, [*arguments, "--root", str(root), "--json"], catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def _inputs(execution):
    return {each["input"]: each for each in execution["inputs"]}


def _makers(artifact):
    """Yields all executions from which an artifact comes."""
    if execution := artifact.get("made_by"):
        yield execution
        for source in execution["inputs"]:
            yield from _makers(source)


# The six questions of TFX's guide to ML Metadata, each answered by one command about the pushed model.
def test_which_dataset_did_this_model_train_on(first, root):
    trainer = _ask(root, "tree", first.summary["run"])["made_by"]
    (dataset,) = _inputs(trainer)["examples"]["made_by"]["inputs"]
    assert dataset["uri"] == str(root / "data" / "shapes")
    assert dataset["facts"]["digest"] == digest.of_directory(root / "data" / "shapes")


def test_which_hyperparameters_were_used(first, root):
    shown = _ask(root, "show", first.summary["run"])
    assert shown["hyperparameters"] == first.summary["hyperparameters"]
    assert len(shown["trials"]) == 2
    origins = {row["key"]: (row["value"], row["origin"]) for row in shown["settings"]}
    assert origins["trainer.epochs"] == (3, "--set")
    chosen = {key: value for key, (value, origin) in origins.items() if origin == "Tuner"}
    assert chosen == {key: first.summary["hyperparameters"][key] for key in first.summary["tuned"]}


def test_which_pipeline_run_made_this_model(first, root):
    found = _ask(root, "find", "type=Model", f"run={first.summary['run']}")
    assert len(found["artifacts"]) == 1


def test_which_training_led_to_this_model(first, root):
    (version,) = (row for row in _ask(root, "serving")["versions"] if row["run"] == first.summary["run"])
    pushed = _ask(root, "tree", version["place"])
    assert pushed["facts"]["pushed_version"] == version["version"]
    (trainer,) = (each for each in _makers(pushed) if each["component"] == "Trainer")
    assert trainer["run"] == first.summary["run"]
    assert trainer["code"] and trainer["seconds"] > 0
    assert trainer["settings"]["trainer.epochs"] == {"value": 3, "origin": "--set"}


def test_which_version_of_tensorflow_made_this_model(first, root):
    assert _ask(root, "show", first.summary["run"])["environment"]["tensorflow"] == tf.__version__


def test_when_was_a_model_pushed_and_which_were_not(first, root):
    versions = _ask(root, "serving")["versions"]
    pushed_at = next(row["pushed_at"] for row in versions if row["run"] == first.summary["run"])
    assert pushed_at > first.summary["run"].replace("T", " ")
    rows = _ask(root, "runs", "--where", "blessed=no")
    assert rows
    assert [row["pushed"] for row in rows] == [None] * len(rows)


def test_lineage_tells_the_states_of_runs_and_what_was_cached(first, root):
    rows = _ask(root, "runs")
    assert [row["state"] for row in rows].count("abandoned") == 1  # the killed one
    assert rows[0]["seconds"] == first.summary["seconds"]
    shown = _ask(root, "show", rows[1]["run"])  # the unchanged run
    cached = {row["component"]: row["cached_from"] for row in shown["components"] if row["state"] == "cached"}
    assert set(cached.values()) == {first.summary["run"]}
    assert cached.keys() >= {"Transform", "Tuner", "Trainer", "Evaluator"}


def test_diff_of_two_runs_contains_the_comparison_of_their_reports(first, root):
    worse = _ask(root, "runs", "--where", "blessed=no")[0]["run"]
    diff = _ask(root, "diff", first.summary["run"], worse)
    assert diff["settings"]["trainer.label_smoothing"]["b"] == 0.99
    (accuracy,) = (row for row in diff["comparison"]["metrics"] if row["name"] == "accuracy")
    low, high = accuracy["interval"]
    assert low <= diff["metrics"]["accuracy"]["change"] <= high


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
def test_a_bad_record_stops_the_run_before_the_training(
    tiny_dataset, local_runner, tmp_path, changes, expected
):
    bad = shutil.copytree(tiny_dataset.path, tmp_path / "b [v1]*" / "bad")
    for split, change in changes.items():
        _change_example(bad, split, change)
    result = local_runner("--root", str(tmp_path / "runs"), "--data", str(bad), *SMALL)
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


def test_wrong_flags_are_refused_quickly(local_runner, tiny_dataset, tmp_path):
    truncated = tmp_path / "truncated.h5"
    truncated.write_bytes(b"\x89HDF\r\n\x1a\n")
    mobilenetv2 = (
        *("--data", str(tiny_dataset.path), "--model", "mobilenetv2"),
        *("--set", "model.image_size=32", "--root", str(tmp_path / "runs")),
    )
    start = time.monotonic()
    for arguments, expected in [
        (["--set", "trainer.epocs=3"], "did you mean epochs?"),
        (["--from", "Trainr"], "expected one of Dataset, ImportExampleGen"),
        (["--root", "runs[2]"], "root: expected a path without [ and ], which TFX and Beam read as parts"),
        (["--model", "vit"], "expected one of cnn, mobilenetv2, efficientnetv2b0"),
        (["--config", "none.yaml"], "cannot read the configuration file none.yaml"),
        (["--data", "/nowhere"], "found nothing there"),
        (
            [*mobilenetv2, "--set", "model.mobilenetv2.weights=/nowhere.h5"],
            "/nowhere.h5: found nothing there",
        ),
        ([*mobilenetv2, "--set", f"model.mobilenetv2.weights={truncated}"], "truncated or not an HDF5 file"),
    ]:
        result = local_runner(*arguments)
        assert result.returncode == 1
        assert expected in result.output
        assert "Traceback" not in result.output
    assert time.monotonic() - start < 8 * 5
    assert not (tmp_path / "runs" / METADATA_FILE).exists()


def test_the_data_gate_counts_every_split(first, root):
    (report,) = (root / "pipelines" / "shapes" / "DataGate").rglob("data_gate.json")
    assert sum(json.loads(report.read_text())["examples"].values()) == 2400


def test_near_duplicates_are_said_in_the_summary_and_shown_in_the_report(first, root):
    (file,) = (root / "pipelines" / "shapes" / "DataGate").rglob("findings.json")
    findings = json.loads(file.read_text())
    assert findings["leaked_count"] == findings["contradictions_count"] == 0
    assert findings["near_count"] == len(findings["near"]) > 0
    (note,) = (note for note in first.summary["notes"] if note.startswith("DataGate: "))
    assert f"{findings['near_count']} pairs of near-duplicates" in note
    assert note.removeprefix("DataGate: ") in " ".join(first.output.split())
    assert findings["near"][0]["first"]["image"] in Path(first.summary["report"]).read_text()


def test_the_verdict_of_the_serving_check_is_also_a_file(first, root):
    verdicts = (root / "pipelines" / "shapes" / "ServingCheck").rglob("INFRA_*")
    assert {verdict.name for verdict in verdicts} == {"INFRA_BLESSED"}
