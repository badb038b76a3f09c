import json

import pytest

from datasets import digest
from pipeline.kubeflow import submission
from pipeline.kubeflow.submission import Progress
from settings import loading
from settings.base import ConfigError


@pytest.fixture
def read(compiled_files):
    def read_(name, *overrides, target=None, **values):
        settings = loading.load(overrides=overrides, values=values)
        return submission.read(compiled_files[name], target or name.partition("-")[0], settings)

    return read_


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_without_overrides_a_run_is_as_compiled(read, compiled_files, target):
    request = read(target)
    assert (request.name, request.root, request.parameters) == ("tiny", "gs://bucket/runs/pipelines/tiny", {})
    assert "Trainer" in request.steps
    if target == "vertex":
        assert json.loads(submission.to_json(request)) == json.loads(compiled_files["vertex"].read_text())


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_a_run_can_change_root_data_and_training(read, target):
    request = read(
        f"{target}-no-tune",
        *("trainer={epochs: 30, learning_rate: 1e-3}", "trainer.batch_size=32"),
        **{"root": "gs://other/runs", "kubeflow.data_uri": "gs://other/data"},
    )
    assert request.root == "gs://other/runs/pipelines/tiny"
    assert request.parameters == {
        "serving_uri": "gs://other/runs/serving/tiny",
        "data_uri": "gs://other/data",
        "data_digest": digest.ANY,
        "epochs": 30,
        "learning_rate": 1e-3,
        "batch_size": 32,
    }


def test_a_job_for_vertex_has_all_parameters_with_changed_and_compiled_values(read, tiny_dataset):
    job = json.loads(submission.to_json(read("vertex", "trainer.epochs=30", "root=gs://other/runs")))
    assert job["runtimeConfig"] == {
        "gcsOutputDirectory": "gs://other/runs/pipelines/tiny",
        "parameters": {
            "data_uri": {"stringValue": "gs://bucket/data"},
            "data_digest": {"stringValue": digest.of_directory(tiny_dataset.path)},
            "serving_uri": {"stringValue": "gs://other/runs/serving/tiny"},
            "epochs": {"intValue": 30},
        },
    }


def test_a_preset_does_not_change_settings_that_are_compiled_in(compiled_files, tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("trainer: {epochs: 9}\nroot: gs://preset\nkubeflow: {vertex: {project: p}}\n")
    request = submission.read(compiled_files["vertex"], "vertex", loading.load([preset]))
    assert (request.root, request.parameters) == ("gs://bucket/runs/pipelines/tiny", {})


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_the_cache_can_be_disabled_for_a_run(read, target):
    def enabled(request):
        spec = request.compiled.get("pipelineSpec", request.compiled)
        return {t.get("cachingOptions", {}).get("enableCache") for t in spec["root"]["dag"]["tasks"].values()}

    assert True in enabled(read(target))
    assert enabled(read(target, "kubeflow.cache=false")) == {False}


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_data_of_unknown_content_is_read_again(read, target):
    def is_cached(request):
        spec = request.compiled.get("pipelineSpec", request.compiled)
        return spec["root"]["dag"]["tasks"]["ImportExampleGen"]["cachingOptions"]["enableCache"]

    assert is_cached(read(target))
    assert not is_cached(read(target, "kubeflow.data_uri=gs://bucket/data"))


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_data_of_unknown_content_does_not_come_from_the_cache(read, target):
    def cached(request):
        spec = request.compiled.get("pipelineSpec", request.compiled)
        options = spec["root"]["dag"]["tasks"]["ImportExampleGen"]["cachingOptions"]
        return options.get("enableCache", False)

    assert cached(read(target, "trainer.epochs=3"))
    assert not cached(read(target, **{"kubeflow.data_uri": "gs://bucket/data"}))


@pytest.mark.parametrize(
    ("name", "override", "expected"),
    [
        ("kfp", "trainer.learning_rate=0.1", "no parameter learning_rate: its Tuner chooses the value"),
        ("vertex", "trainer.batch_size=8", "no parameter batch_size: its Tuner chooses the value"),
        ("kfp", "seed=1", "seed is compiled into the file and a run cannot change it; compile again"),
        (
            "kfp",
            "kubeflow.kfp.shared_memory=2Gi",
            "kubeflow.cache, kubeflow.kfp.host, kubeflow.kfp.namespace, kubeflow.kfp.experiment, kubeflow."
            "kfp.service_account, kubeflow.kfp.token_file, kubeflow.kfp.cookie_file, kubeflow.kfp.ca_file",
        ),
        ("vertex", "kubeflow.image=i:2", "kubeflow.image is compiled into the file"),
        ("vertex", "kubeflow.kfp.host=http://h", "kubeflow.kfp.host has no effect with --target vertex"),
        ("kfp", "kubeflow.vertex.region=r", "kubeflow.vertex.region has no effect with --target kfp"),
    ],
)
def test_settings_that_a_run_cannot_change_are_refused(read, name, override, expected):
    with pytest.raises(ConfigError) as refused:
        read(name, override)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("target", "values", "expected"),
    [
        ("kfp", {"root": "gs://other/runs", "kubeflow.data_uri": "minio://other/data"}, None),
        ("vertex", {"root": "gs://other/runs", "kubeflow.data_uri": "gs://other"}, None),
        ("kfp", {"root": "/mnt/runs"}, "root: expected minio://BUCKET/.*; found /mnt/runs"),
        ("kfp", {"root": "oci://b/runs"}, "root: expected minio://BUCKET/.*; found oci://b/runs"),
        ("kfp", {"kubeflow.data_uri": "/mnt"}, "kubeflow.data_uri: expected minio://.*; found /mnt"),
        ("kfp", {"kubeflow.data_uri": "minio://b"}, "kubeflow.data_uri: expected a folder in the bucket"),
        ("kfp", {"root": "s3://b/runs"}, "root: expected gs://.*, since the Pusher .*; found s3://b"),
        (
            "vertex",
            {"kubeflow.data_uri": "s3://b/data"},
            "kubeflow.data_uri: expected gs://BUCKET/...; found",
        ),
    ],
)
def test_places_of_a_run_are_checked_like_those_of_a_file(compiled_files, target, values, expected):
    settings = loading.load(values=values)
    request = submission.read(compiled_files[target], target, settings)
    if expected is None:
        submission.check_places(request, target, settings)
        return
    with pytest.raises(ConfigError, match=expected):
        submission.check_places(request, target, settings)


def test_a_file_for_another_target_or_of_another_format_is_refused(read, compiled_files, tmp_path):
    with pytest.raises(ConfigError, match=r"schema 2\.1\.0 for Kubeflow; expected .* 2\.0\.0 for Ver"):
        read("kfp", target="vertex")
    with pytest.raises(ConfigError, match=r"submit it with --target vertex"):
        read("vertex", target="kfp")
    for content, expected in (
        (None, "No such file"),
        (b"- a\n- list\n", "not a compiled pipeline; expected a file that `compile --target kfp` wrote"),
        (b"pipelineSpec: 3\n", "it is not a compiled pipeline"),
        (b"schemaVersion: [1]\n", "it is not a compiled pipeline"),
        (b"a: [", "it is not a compiled pipeline"),
        (b"{schemaVersion: 2.1.0, defaultPipelineRoot: gs://b}", "it is not a compiled pipeline"),
        (b"{schemaVersion: 2.1.0, defaultPipelineRoot: gs://b, root: x}", "it is not a compiled pipeline"),
        (
            b"{schemaVersion: 2.1.0, defaultPipelineRoot: gs://b, pipelineInfo: {name: n}, "
            b"root: {dag: {tasks: {T: {}}}}, deploymentSpec: {executors: {E: {container: {command: 3}}}}}",
            "it is not a compiled pipeline",
        ),
        (b"\xff\xfe", "it is not text"),
    ):
        file = tmp_path / "file"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigError) as refused:
            submission.read(file, "kfp", loading.load())
        assert expected in str(refused.value)


def test_a_file_of_an_older_version_without_parameters_is_refused(compiled_files, tmp_path):
    compiled = json.loads(compiled_files["vertex"].read_text())
    del compiled["pipelineSpec"]["root"]["inputDefinitions"]
    file = tmp_path / "old"
    file.write_text(json.dumps(compiled))
    with pytest.raises(ConfigError, match="no parameter epochs: compile again"):
        submission.read(file, "vertex", loading.load(overrides=["trainer.epochs=3"]))


def test_follow_shows_each_change_of_a_step_once_and_returns_the_last_progress(monkeypatch):
    monkeypatch.setattr(submission, "_POLL_SECONDS", 0)
    steps = [
        {},
        {"A": "waiting"},
        {"A": "running"},
        {"A": "running", "B": "cached"},
        {"A": "done", "B": "cached"},
    ]
    polls = [Progress("running", s, []) for s in steps] + [Progress("failed", steps[-1], ["why"])]
    lines = []
    ended = submission.follow(iter(polls).__next__, lines.append)
    assert (ended.state, ended.problems, ended.has_succeeded) == ("failed", ["why"], False)
    assert [line.split() for line in lines] == [["A", "running"], ["B", "cached"], ["A", "done"]]
