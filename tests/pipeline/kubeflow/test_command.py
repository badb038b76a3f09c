"""Tests what compiling says before it loads TFX."""

from __future__ import annotations

import pytest

from pipeline.kubeflow import command
from settings import loading
from settings.base import ConfigError


@pytest.mark.parametrize(
    ("overrides", "warns"),
    [
        (["kubeflow.steps.Trainer={memory_gb: 1.5}"], True),
        (["kubeflow.steps.Trainer={memory_gb: 8}"], False),
        (["kubeflow.steps.Trainer={memory_gb: 1.5, accelerator: nvidia.com/gpu}"], False),
        (["kubeflow.steps.Evaluator={memory_gb: 1.5}"], False),
    ],
)
def test_a_limit_of_the_trainer_below_the_estimate_is_mentioned(tiny_dataset, capsys, overrides, warns):
    command._warn_of_memory(loading.load(overrides=overrides, on_base=True), tiny_dataset)
    said = capsys.readouterr().err
    assert ("GB of memory, and kubeflow.steps.Trainer.memory_gb is 1.5" in said) == warns
    assert bool(said) == warns


def test_more_trials_at_a_time_than_cores_of_the_tuner_are_refused():
    def checked(*overrides):
        command._check_search(loading.load(overrides=["tuner.parallel=3", *overrides], on_base=True))

    checked()
    checked("kubeflow.steps.Tuner={cpu: 3.5}")
    checked("kubeflow.steps.Tuner={cpu: 2}", "tuner.enabled=false")
    with pytest.raises(ConfigError, match=r"2 can be used here"):
        checked("kubeflow.steps.Tuner={cpu: 2}")
    with pytest.raises(ConfigError, match=r"has a GPU"):
        checked("kubeflow.steps.Tuner={accelerator: nvidia.com/gpu}")


def test_data_outside_of_the_bucket_of_the_root_is_mentioned(capsys):
    def warned(data):
        command._warn_of_other_buckets(loading.load(values={"root": "s3://a/r", "kubeflow.data_uri": data}))
        return capsys.readouterr().err

    assert warned("s3://a/data") == ""
    expected = "warning: kubeflow.data_uri is minio://mlpipeline/data, and the root is in s3://a. "
    assert warned("minio://mlpipeline/data").startswith(expected)


@pytest.mark.parametrize(
    ("target", "overrides", "expected"),
    [
        ("kfp", ["pusher.target=vertex_endpoint"], "a pipeline on open-source Kubeflow cannot deploy"),
        ("vertex", ["pusher.target=vertex_endpoint"], r"needs kubeflow\.vertex\.project and"),
        ("kfp", ["pusher.promote=manual"], "models are pushed to gs://b/runs, but only"),
        (
            "kfp",
            ["pusher.promote=manual", "kubeflow.serving=minio://b/serving"],
            "models are pushed to minio://b/serving, but only",
        ),
    ],
)
def test_what_the_pusher_cannot_do_is_refused(tmp_path, target, overrides, expected):
    place = ("root=gs://b/runs", "kubeflow.data_uri=gs://b/data", "kubeflow.image=image:1")
    with pytest.raises(ConfigError, match=expected):
        command.compile_to(tmp_path / "file", loading.load(overrides=[*place, *overrides]), target)
    assert not (tmp_path / "file").exists()
