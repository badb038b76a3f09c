"""Compiles the pipeline with `kubeflow_runner.py`, runs it for both targets, compares with a local run."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from pipeline.kubeflow import runtime_parameters, submission
from settings import loading
from tests import compiled, custom_jobs, launcher

pytestmark = pytest.mark.slow

# The places of a run on Kubeflow, whose store is that of a default installation.
STORE = f"minio://{launcher.BUCKET}"
DATA, BASELINE, NOWHERE = f"{STORE}/datasets/tiny", f"{STORE}/models/baseline", f"{STORE}/nowhere"
SETTINGS = (
    *("--set", "name=tiny"),
    *("--set", "trainer.epochs=2"),
    *("--set", "tuner.trials=2"),
    *("--set", "tuner.epochs=1"),
    *("--set", "tuner.space.trainer.batch_size=[32, 64]"),
    *("--set", "evaluation.corruptions=20"),
    # After so few steps, the model knows next to nothing, and the metrics of single classes are random.
    *("--set", "evaluation.min_accuracy=0"),
    *("--set", "evaluation.min_confidence_above_guessing=null"),
    *("--set", "evaluation.max_classes_never_predicted=null"),
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
def store(local, kubeflow_runner, environment, tiny_dataset):
    """The store of an installation, with the dataset and, as a baseline, the model of the local run."""
    with launcher.store() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.variables.items():
            patch.setitem(environment, name, value)
        # The store is the only server that a command may reach.
        patch.setitem(environment, "NO_PROXY", "127.0.0.1")
        patch.setitem(environment, "no_proxy", "127.0.0.1")
        uploaded = kubeflow_runner(
            *("upload", "--data", str(tiny_dataset.path), "--data-uri", DATA),
            *("--endpoint", running.endpoint),
        )
        assert uploaded.returncode == 0, uploaded.output
        running.upload(local[1], BASELINE)
        yield running


@pytest.fixture(scope="module")
def compile_for(kubeflow_runner, tiny_dataset, tmp_path_factory):
    """Compiles the pipeline for a target and returns the file."""

    def compile_(target, *arguments):
        folder = tmp_path_factory.mktemp(target)
        file = folder / "pipeline"
        data, root = ("gs://data", "gs://bucket/runs") if target == "vertex" else (DATA, f"{STORE}/runs")
        result = kubeflow_runner(
            *("compile", "--target", target, "--output", str(file), "--image", "image:1"),
            *("--data", str(tiny_dataset.path), "--data-uri", data, "--root", root),
            *(*SETTINGS, *arguments),
        )
        assert result.returncode == 0, result.output
        assert [path.name for path in folder.iterdir()] == ["pipeline"]
        for local_path in (tiny_dataset.path, folder, Path(__file__).resolve().parents[2]):
            assert str(local_path) not in file.read_text()
        if target == "vertex":
            # Replace the buckets by local folders: on Vertex, the steps read and write them themselves.
            text = file.read_text().replace("gs://data", str(tiny_dataset.path))
            file.write_text(text.replace("gs://bucket", str(folder)))
        return file

    return compile_


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A volume that pods mount at its own path."""
    return tmp_path_factory.mktemp("volume")


@pytest.fixture(scope="module")
def without_data(store, volume, compile_for):
    """The pipeline for Kubeflow with a fixed baseline; its default `data_uri` does not exist."""
    return compile_for(
        "kfp",
        *("--data-uri", NOWHERE, "--set", f"kubeflow.baseline_model={BASELINE}"),
        *("--set", f"kubeflow.kfp.store.endpoint={store.endpoint}"),
        *("--set", f"kubeflow.kfp.volumes=[{{claim: kept, path: {volume}}}]"),
        *("--set", f"kubeflow.kfp.checkpoints={volume}/checkpoints"),
        *("--set", "kubeflow.kfp.steps.Trainer.retries={count: 1}"),
    )


def _request(file, target, *overrides):
    """Returns the request that `submit` sends to a back end with these settings."""
    return submission.read(file, target, loading.load(overrides=overrides))


@pytest.fixture(scope="module")
def back_ends(tmp_path_factory, store, volume):
    """A back end for Vertex and one for Kubeflow, whose first Trainer is killed after a checkpoint."""
    kubeflow = launcher.Kubeflow(tmp_path_factory.mktemp("kfp"), store)
    kubeflow.kill_when_written["Trainer"] = volume / "checkpoints"
    return custom_jobs.BackEnd(tmp_path_factory.mktemp("vertex")), kubeflow


@pytest.fixture(scope="module")
def runs(back_ends, compile_for, without_data, tmp_path_factory):
    """Runs on both targets.

    The run on Kubeflow sets `data_uri` and has the model of the local run as its baseline. Vertex runs twice,
    the second time with another root and more epochs.
    """
    vertex = compile_for("vertex")
    elsewhere = tmp_path_factory.mktemp("another-root")
    changed = _request(vertex, "vertex", "trainer.epochs=3", f"root={elsewhere}")
    moved = _request(without_data, "kfp", f"kubeflow.data_uri={DATA}")
    # Each step first imports TFX, which uses only one core; two runs in parallel save time.
    with ThreadPoolExecutor(2) as pool:
        kfp = pool.submit(back_ends[1].submit, without_data, moved.parameters, moved.root)
        first = back_ends[0].submit(vertex)
        second = back_ends[0].submit(vertex, changed.parameters, changed.root)
        return {"vertex": first, "vertex again": second, "kfp": kfp.result()}


@pytest.fixture(scope="module")
def reports(local, runs, store, tmp_path_factory):
    """The folder of the report of each run."""
    folder = tmp_path_factory.mktemp("report")
    store.download(runs["kfp"].place("ModelReport", "report"), folder)
    vertex = {name: Path(runs[name].place("ModelReport", "report")) for name in ("vertex", "vertex again")}
    return {"local": local[0], "kfp": folder, **vertex}


def _metrics(report: Path):
    return json.loads((report / "metrics.json").read_text())


def _pushed(run):
    (pushed,) = run.outputs["Pusher"]["pushed_model"]
    return pushed["metadata"]["pushed_destination"]


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_a_compiled_pipeline_reaches_the_metrics_of_a_local_run(reports, target):
    expected, found = _metrics(reports["local"]), _metrics(reports[target])
    numbers = {key: value for key, value in expected.items() if isinstance(value, float)}
    assert {"accuracy", "loss", "f1_macro", "roc_auc_macro", "calibration_error"} <= numbers.keys()
    assert {key: found[key] for key in numbers} == pytest.approx(numbers, abs=1e-6)
    assert found["confusion_matrix"] == expected["confusion_matrix"]
    assert found["hyperparameters"] == expected["hyperparameters"]
    for epoch, local_epoch in zip(found["history"]["epochs"], expected["history"]["epochs"], strict=True):
        assert epoch["val_loss"] == pytest.approx(local_epoch["val_loss"], abs=1e-6)


def test_a_pipeline_on_vertex_pushes_its_model(runs):
    served = Path(_pushed(runs["vertex"]))
    assert served.parts[-3:-1] == ("serving", "tiny")
    assert (served / "saved_model.pb").is_file()
    assert runs["vertex"].cached == set()


def test_a_pipeline_on_kubeflow_pushes_a_model_that_tensorflow_alone_can_load(runs, store, tmp_path):
    pushed = _pushed(runs["kfp"])
    assert pushed.startswith(f"{STORE}/runs/serving/tiny/")
    assert runs["kfp"].cached == set()
    store.download(pushed, tmp_path / "model")
    load = "import sys, tensorflow as tf; print(list(tf.saved_model.load(sys.argv[1]).signatures))"
    process = subprocess.run(
        [sys.executable, "-I", "-c", load, str(tmp_path / "model")],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "serve_image_bytes" in process.stdout


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_each_step_notes_what_lineage_asks_for(runs, target):
    outputs = runs[target].outputs
    # An importer and a resolver have no container.
    for step in (each for each in outputs if each != "Dataset" and not each.startswith("Baseline")):
        for name, artifacts in outputs[step].items():
            (noted,) = (each["metadata"] for each in artifacts)
            assert noted["seconds"] > 0, step
            assert {"python", "tensorflow", "tfx", "bytes", "sha256"} <= noted.keys(), (step, name)
    (model,) = outputs["Trainer"]["model"]
    assert "models.training.loop" in json.loads(model["metadata"]["modules"])


def test_steps_on_kubeflow_write_all_of_their_outputs(back_ends, runs):
    del runs
    assert back_ends[1].warnings == []


def test_only_the_pusher_on_kubeflow_gets_credentials_of_the_store(without_data):
    _, platform = yaml.safe_load_all(without_data.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert [name for name, config in executors.items() if "secretAsEnv" in config] == ["Pusher_executor"]


def test_a_trainer_that_was_killed_goes_on_from_its_checkpoint_in_a_new_pod(back_ends, runs, volume):
    del runs
    kubeflow = back_ends[1]
    assert {step: tries for step, tries in kubeflow.tries.items() if tries > 1} == {"Trainer": 2}
    assert "resumes after epoch" in kubeflow.printed["Trainer"]
    assert list((volume / "checkpoints").iterdir()) == []  # Removed when the model was exported.


def test_a_second_submission_to_vertex_is_compared_with_the_model_of_the_first(runs, reports):
    first, second = runs["vertex"], runs["vertex again"]
    assert _metrics(reports["vertex"])["baseline"] is None
    assert _metrics(reports["vertex again"])["baseline"]["uri"] == first.place("Trainer", "model")
    assert set(second.outputs) - second.cached == {
        "Dataset",  # An Importer has no cache: the back end finds the artifact again.
        *("Baseline-model-blessing-resolver", "Baseline-model-resolver"),
        *("Trainer", "Evaluator", "ModelReport", "ServingCheck", "Pusher"),
    }


def test_runtime_parameters_change_the_steps_and_the_report(runs, reports):
    for name, epochs, origin in (("vertex", 2, "--set"), ("vertex again", 3, runtime_parameters.ORIGIN)):
        history = json.loads((Path(runs[name].place("Trainer", "model_run")) / "history.json").read_text())
        assert len(history["epochs"]) == epochs
        rows = {row["key"]: row for row in _metrics(reports[name])["configuration"]}
        assert (rows["trainer.epochs"]["value"], rows["trainer.epochs"]["origin"]) == (epochs, origin)
    for name, folder in (("vertex", "vertex"), ("vertex again", "another-root")):
        for place in (_pushed(runs[name]), runs[name].place("Trainer", "model")):
            assert any(part.startswith(folder) for part in Path(place).parts), place


def test_kubeflow_compares_with_the_given_baseline(reports):
    report = _metrics(reports["kfp"])
    assert report["baseline"]["uri"] == BASELINE
    assert "drop" in {gate["kind"] for gate in report["gates"]}


@pytest.fixture(scope="module")
def google_store(tmp_path_factory):
    """A store for gs://."""
    with launcher.google_store(tmp_path_factory.mktemp("google")) as running:
        yield running


def _with_scheme(file, scheme, folder):
    """Returns a copy of a file that was compiled for minio://, as it is compiled for another scheme."""
    copy = folder / f"{scheme}.yaml"
    copy.write_text(file.read_text().replace("minio://", f"{scheme}://"))
    return copy


def test_a_step_that_fails_ends_the_run_with_its_cause(without_data, google_store, tmp_path):
    file = _with_scheme(without_data, "gs", tmp_path)
    with pytest.raises(compiled.StepFailedError, match=r"ImportExampleGen: (?s:.*)found no .*/nowhere"):
        launcher.Kubeflow(tmp_path / "kfp", google_store).submit(file, root="gs://mlpipeline/other-runs")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_models_are_pushed_to_every_store(scheme, runs, store, google_store, without_data, tmp_path):
    """Runs the Pusher, the only step that needs the store itself, with the results of a run on minio://."""
    outputs = runs["kfp"].outputs
    given = {step: outputs[step] for step in outputs if step != "Pusher"}
    given = json.loads(json.dumps(given).replace("minio://", f"{scheme}://"))
    used = google_store if scheme == "gs" else store
    if scheme == "gs":
        for step in ("Evaluator", "ServingCheck"):
            uri = runs["kfp"].place(step, "blessing")
            store.download(uri, tmp_path / step)
            google_store.upload(tmp_path / step, uri.replace("minio://", "gs://"))
    kubeflow = launcher.Kubeflow(tmp_path / "kfp", used)
    run = kubeflow.submit(
        _with_scheme(without_data, scheme, tmp_path), root=f"{scheme}://{launcher.BUCKET}/again", given=given
    )
    assert kubeflow.warnings == []
    assert list(kubeflow.tries) == ["Pusher"]
    place = _pushed(run)
    assert place.startswith(f"{scheme}://{launcher.BUCKET}/runs/serving/tiny/")
    for folder, where, pushed in (("first", store, _pushed(runs["kfp"])), ("again", used, place)):
        where.download(pushed, tmp_path / folder)
    assert _content(tmp_path / "again") == _content(tmp_path / "first")


def _content(folder: Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--data", "cifar10", "--image", "image:1", "--data-uri", "gs://b"],
            "expected a dataset directory, found no directory",
        ),
        (["--set", "kubeflow.steps.Trainr.cpu=2"], "there is no step Trainr"),
        ([], "kubeflow.image is not set"),
        (
            ["--image", "image:1"],
            "kubeflow.data_uri: expected gs://BUCKET/...; found nothing. The flag --data-uri sets it",
        ),
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

    assert (Path(run.place("Trainer", "model")) / "Format-Serving" / "saved_model.pb").is_file()
    written = Path(run.place("Trainer", "model_run"))
    assert json.loads((written / "environment.json").read_text())["workers"] == 2
    hyperparameters = json.loads((written / "hyperparameters.json").read_text())
    assert hyperparameters["trainer.batch_size"]["source"] == "tuner"
    assert len(json.loads((written / "history.json").read_text())["epochs"]) == 2
