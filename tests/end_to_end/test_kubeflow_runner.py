"""Compiles the pipeline with `kubeflow_runner.py`, runs it for both targets, compares with a local run."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.kubeflow import runtime_parameters, submission
from settings import loading
from tests import compiled, custom_jobs

pytestmark = pytest.mark.slow

NOWHERE = "/nowhere"
SETTINGS = (
    *("--set", "name=tiny"),
    *("--set", "trainer.epochs=2"),
    *("--set", "tuner.trials=2"),
    *("--set", "tuner.epochs=1"),
    *("--set", "tuner.batch_sizes=[32, 64]"),
    *("--set", "evaluation.min_accuracy=0"),
    # After so few steps, the metrics of single classes are random.
    *("--set", "evaluation.max_accuracy_drop=1"),
    *("--set", "evaluation.max_class_precision_drop=1"),
    *("--set", "evaluation.max_class_recall_drop=1"),
)


@pytest.fixture(scope="module")
def local(local_runner, tiny_dataset, tmp_path_factory):
    """The folders of the report and of the model of a local run."""
    root = tmp_path_factory.mktemp("local")
    result = local_runner("--root", str(root), "--data", str(tiny_dataset.path), *SETTINGS)
    assert result.returncode == 0, result.output
    (model,) = (root / "pipelines" / "tiny" / "Trainer" / "model").iterdir()
    return Path(result.summary["report"]).parent, model


@pytest.fixture(scope="module")
def compile_for(kubeflow_runner, tiny_dataset, tmp_path_factory):
    """Compiles the pipeline for a target and returns the file."""

    def compile_(target, *arguments):
        folder = tmp_path_factory.mktemp(target)
        file = folder / "pipeline"
        result = kubeflow_runner(
            *("compile", "--target", target, "--output", str(file), "--image", "image:1"),
            *("--data", str(tiny_dataset.path), "--data-uri", "gs://data", "--root", "gs://bucket/runs"),
            *(*SETTINGS, *arguments),
        )
        assert result.returncode == 0, result.output
        assert [path.name for path in folder.iterdir()] == ["pipeline"]
        # Replace the buckets by local folders.
        text = file.read_text().replace("gs://data", str(tiny_dataset.path))
        file.write_text(text.replace("gs://bucket", str(folder)))
        return file

    return compile_


@pytest.fixture(scope="module")
def without_data(local, compile_for):
    """The pipeline for Kubeflow with a fixed baseline; its default `data_uri` does not exist."""
    return compile_for("kfp", "--data-uri", NOWHERE, "--set", f"kubeflow.baseline_model={local[1]}")


def _request(file, target, *overrides):
    """Returns the request that `submit` sends to a back end with these settings."""
    return submission.read(file, target, loading.load(overrides=overrides))


@pytest.fixture(scope="module")
def back_ends(tmp_path_factory):
    """A back end for Vertex and one for Kubeflow."""
    return custom_jobs.BackEnd(tmp_path_factory.mktemp("vertex")), compiled.BackEnd(
        tmp_path_factory.mktemp("kfp")
    )


@pytest.fixture(scope="module")
def runs(back_ends, compile_for, without_data, tiny_dataset, tmp_path_factory):
    """Runs on both targets.

    The run on Kubeflow sets `data_uri` and has the model of the local run as its baseline. Vertex runs twice,
    the second time with another root and more epochs.
    """
    vertex = compile_for("vertex")
    elsewhere = tmp_path_factory.mktemp("another-root")
    changed = _request(vertex, "vertex", "trainer.epochs=3", f"root={elsewhere}")
    moved = _request(without_data, "kfp", f"kubeflow.data_uri={tiny_dataset.path}")
    # Each step first imports TFX, which uses only one core; two runs in parallel save time.
    with ThreadPoolExecutor(2) as pool:
        kfp = pool.submit(back_ends[1].submit, without_data, moved.parameters, moved.root)
        first = back_ends[0].submit(vertex)
        second = back_ends[0].submit(vertex, changed.parameters, changed.root)
        return {"vertex": first, "vertex again": second, "kfp": kfp.result()}


def _metrics(report: Path):
    return json.loads((report / "metrics.json").read_text())


def _pushed(run):
    (pushed,) = run.outputs["Pusher"]["pushed_model"]
    return Path(pushed["metadata"]["pushed_destination"])


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_a_compiled_pipeline_reaches_the_metrics_of_a_local_run(local, runs, target):
    expected = _metrics(local[0])
    found = _metrics(runs[target].uri("ModelReport", "report"))
    numbers = {key: value for key, value in expected.items() if isinstance(value, float)}
    assert {"accuracy", "loss", "f1_macro", "roc_auc_macro", "calibration_error"} <= numbers.keys()
    assert {key: found[key] for key in numbers} == pytest.approx(numbers, abs=1e-6)
    assert found["confusion_matrix"] == expected["confusion_matrix"]
    assert found["hyperparameters"] == expected["hyperparameters"]
    for epoch, local_epoch in zip(found["history"]["epochs"], expected["history"]["epochs"], strict=True):
        assert epoch["val_loss"] == pytest.approx(local_epoch["val_loss"], abs=1e-6)


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_a_compiled_pipeline_pushes_its_model(runs, target):
    served = _pushed(runs[target])
    assert served.parts[-3:-1] == ("serving", "tiny")
    assert (served / "saved_model.pb").is_file()
    assert runs[target].cached == set()


def test_a_second_submission_to_vertex_is_compared_with_the_model_of_the_first(runs):
    first, second = runs["vertex"], runs["vertex again"]
    assert _metrics(first.uri("ModelReport", "report"))["baseline"] is None
    baseline = _metrics(second.uri("ModelReport", "report"))["baseline"]
    assert Path(baseline["uri"]) == first.uri("Trainer", "model")
    assert set(second.outputs) - second.cached == {
        *("Baseline-model-blessing-resolver", "Baseline-model-resolver"),
        *("Trainer", "Evaluator", "ModelReport", "ServingCheck", "Pusher"),
    }


def test_runtime_parameters_change_the_steps_and_the_report(runs):
    first, second = runs["vertex"], runs["vertex again"]
    for run, epochs, origin in ((first, 2, "--set"), (second, 3, runtime_parameters.ORIGIN)):
        history = json.loads((run.uri("Trainer", "model_run") / "history.json").read_text())
        assert len(history["epochs"]) == epochs
        rows = {row["key"]: row for row in _metrics(run.uri("ModelReport", "report"))["configuration"]}
        assert (rows["trainer.epochs"]["value"], rows["trainer.epochs"]["origin"]) == (epochs, origin)
    for run, folder in ((first, "vertex"), (second, "another-root")):
        for place in (_pushed(run), run.uri("Trainer", "model")):
            assert any(part.startswith(folder) for part in place.parts), place


def test_kubeflow_compares_with_the_given_baseline(local, runs):
    report = _metrics(runs["kfp"].uri("ModelReport", "report"))
    assert Path(report["baseline"]["uri"]) == local[1]
    assert "drop" in {gate["kind"] for gate in report["gates"]}


def test_a_step_that_fails_ends_the_run_with_its_cause(without_data, tmp_path):
    with pytest.raises(compiled.StepFailedError, match=rf"ImportExampleGen: (?s:.*){NOWHERE}"):
        compiled.BackEnd(tmp_path).submit(without_data, root=str(tmp_path / "runs"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--data", "cifar10", "--image", "image:1", "--data-uri", "gs://b"],
            "expected a dataset directory, found no directory",
        ),
        (["--set", "kubeflow.steps.Trainr.cpu=2"], "there is no step Trainr"),
        ([], "kubeflow.image is not set"),
        (["--image", "image:1"], "kubeflow.data_uri: expected gs://BUCKET/...; found nothing"),
        (
            ["--image", "image:1", "--data-uri", "gs://bucket/data", "--data", "gs://bucket/data"],
            "pass the place where the steps read its copy as --data-uri",
        ),
    ],
)
def test_invalid_flags_of_compile_are_reported_without_traceback(
    kubeflow_runner, tiny_dataset, tmp_path, arguments, expected
):
    output = tmp_path / "pipeline.json"
    result = kubeflow_runner(
        *("compile", "--target", "vertex", "--output", str(output), "--root", "gs://bucket/runs"),
        *("--data", str(tiny_dataset.path), *arguments),
    )
    assert result.returncode == 1
    assert expected in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not output.exists()


def test_a_trainer_with_workers_runs_as_a_custom_job_with_all_replicas(runs, back_ends, compile_for):
    vertex, _ = back_ends
    file = compile_for(
        "vertex",
        *("--set", "kubeflow.vertex={project: p, region: europe-west4}"),
        *("--set", "kubeflow.steps.Trainer={machine_type: n1-standard-8, workers: 2, image: 'gpu:1'}"),
    )
    with vertex.serving():
        run = vertex.submit(file, last="Trainer")
    assert "Trainer" not in run.cached
    assert {"ImportExampleGen", "Transform", "Tuner"} <= run.cached
    (request,) = vertex.jobs
    assert request.parent == "projects/p/locations/europe-west4"
    pools = request.custom_job.job_spec.worker_pool_specs
    assert [pool.replica_count for pool in pools] == [1, 1]
    assert {pool.container_spec.image_uri for pool in pools} == {"gpu:1"}
    assert {pool.machine_spec.machine_type for pool in pools} == {"n1-standard-8"}
    assert [replica.returncode for replica in vertex.replicas] == [0, 0]

    assert (run.uri("Trainer", "model") / "Format-Serving" / "saved_model.pb").is_file()
    written = run.uri("Trainer", "model_run")
    assert json.loads((written / "environment.json").read_text())["workers"] == 2
    hyperparameters = json.loads((written / "hyperparameters.json").read_text())
    assert hyperparameters["batch_size"]["source"] == "tuner"
    assert len(json.loads((written / "history.json").read_text())["epochs"]) == 2
