import json

import pytest

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
def test_without_anything_set_a_run_is_as_compiled(read, compiled_files, target):
    asked = read(target)
    assert (asked.name, asked.root, asked.parameters) == ("tiny", "gs://bucket/runs/pipelines/tiny", {})
    assert "Trainer" in asked.steps
    if target == "vertex":
        assert json.loads(submission.to_json(asked)) == json.loads(compiled_files["vertex"].read_text())


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_a_run_can_have_its_own_root_data_and_training(read, target):
    asked = read(
        f"{target}-no-tune",
        *("trainer={epochs: 30, learning_rate: 1e-3}", "trainer.batch_size=32"),
        **{"root": "gs://other/runs", "kubeflow.data_uri": "gs://other/data"},
    )
    assert asked.root == "gs://other/runs/pipelines/tiny"
    assert asked.parameters == {
        "serving_uri": "gs://other/runs/serving/tiny",
        "data_uri": "gs://other/data",
        "epochs": 30,
        "learning_rate": 1e-3,
        "batch_size": 32,
    }


def test_a_job_for_vertex_has_what_is_set_beside_the_compiled_defaults(read):
    job = json.loads(submission.to_json(read("vertex", "trainer.epochs=30", "root=gs://other/runs")))
    assert job["runtimeConfig"] == {
        "gcsOutputDirectory": "gs://other/runs/pipelines/tiny",
        "parameters": {
            "data_uri": {"stringValue": "gs://bucket/data"},
            "serving_uri": {"stringValue": "gs://other/runs/serving/tiny"},
            "epochs": {"intValue": 30},
        },
    }


def test_a_preset_sets_where_runs_go_and_nothing_that_is_compiled_in(compiled_files, tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("trainer: {epochs: 9}\nroot: gs://preset\nkubeflow: {vertex: {project: p}}\n")
    asked = submission.read(compiled_files["vertex"], "vertex", loading.load([preset]))
    assert (asked.root, asked.parameters) == ("gs://bucket/runs/pipelines/tiny", {})


@pytest.mark.parametrize("target", ["vertex", "kfp"])
def test_the_cache_can_be_switched_off_for_a_run(read, target):
    def enabled(asked):
        spec = asked.compiled.get("pipelineSpec", asked.compiled)
        return {t.get("cachingOptions", {}).get("enableCache") for t in spec["root"]["dag"]["tasks"].values()}

    assert True in enabled(read(target))
    assert enabled(read(target, "kubeflow.cache=false")) == {False}


@pytest.mark.parametrize(
    ("name", "override", "expected"),
    [
        ("kfp", "trainer.learning_rate=0.1", "no parameter learning_rate: its Tuner chooses the value"),
        ("vertex", "trainer.batch_size=8", "no parameter batch_size: its Tuner chooses the value"),
        ("kfp", "seed=1", "seed is compiled into the file and cannot be set any more; compile it again"),
        ("vertex", "kubeflow.image=i:2", "kubeflow.image is compiled into the file"),
        ("vertex", "kubeflow.kfp.host=http://h", "kubeflow.kfp.host has no effect with --target vertex"),
        ("kfp", "kubeflow.vertex.region=r", "kubeflow.vertex.region has no effect with --target kfp"),
    ],
)
def test_what_a_run_cannot_set_is_refused(read, name, override, expected):
    with pytest.raises(ConfigError) as refused:
        read(name, override)
    assert expected in str(refused.value)


def test_a_file_for_something_else_is_refused(read, compiled_files, tmp_path):
    with pytest.raises(ConfigError, match=r"schema 2\.1\.0 for Kubeflow; expected .* 2\.0\.0 for Ver"):
        read("kfp", target="vertex")
    with pytest.raises(ConfigError, match=r"submit it with --target vertex"):
        read("vertex", target="kfp")
    for content, expected in (
        (None, "No such file"),
        (b"- a\n- list\n", "is no compiled pipeline; expected what `compile --target kfp` wrote"),
        (b"pipelineSpec: 3\n", "is no compiled pipeline"),
        (b"schemaVersion: [1]\n", "is no compiled pipeline"),
        (b"a: [", "is no compiled pipeline"),
        (b"{schemaVersion: 2.1.0, defaultPipelineRoot: gs://b}", "is no compiled pipeline"),
        (b"{schemaVersion: 2.1.0, defaultPipelineRoot: gs://b, root: x}", "is no compiled pipeline"),
        (b"\xff\xfe", "is no text"),
    ):
        file = tmp_path / "file"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigError) as refused:
            submission.read(file, "kfp", loading.load())
        assert expected in str(refused.value)


def test_a_file_of_an_older_compiler_has_no_parameters(compiled_files, tmp_path):
    compiled = json.loads(compiled_files["vertex"].read_text())
    del compiled["pipelineSpec"]["root"]["inputDefinitions"]
    file = tmp_path / "old"
    file.write_text(json.dumps(compiled))
    with pytest.raises(ConfigError, match="no parameter epochs: compile it again"):
        submission.read(file, "vertex", loading.load(overrides=["trainer.epochs=3"]))


def test_each_change_of_a_step_is_shown_once_and_the_end_is_returned(monkeypatch):
    monkeypatch.setattr(submission, "_POLL_SECONDS", 0)
    steps = [
        {},
        {"A": "waiting"},
        {"A": "running"},
        {"A": "running", "B": "cached"},
        {"A": "done", "B": "cached"},
    ]
    looks = [Progress("running", s, []) for s in steps] + [Progress("failed", steps[-1], ["why"])]
    lines = []
    ended = submission.follow(iter(looks).__next__, lines.append)
    assert (ended.state, ended.problems, ended.has_succeeded) == ("failed", ["why"], False)
    assert [line.split() for line in lines] == [["A", "running"], ["B", "cached"], ["A", "done"]]
