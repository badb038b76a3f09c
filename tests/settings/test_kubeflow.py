import pytest

from settings import loading
from settings.base import ConfigError


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("kubeflow.steps.Trainr.cpu=2", "kubeflow.steps: there is no step Trainr; expected some of Import"),
        ("kubeflow.steps.Baseline.cpu=2", "there is no step Baseline"),
        ("kubeflow.steps.Trainer.cpus=2", "kubeflow.steps.Trainer.cpus: unknown key; did you mean cpu?"),
        ("kubeflow.steps.Trainer.memory_gb=0", "kubeflow.steps.Trainer.memory_gb: input should be greater"),
        ("kubeflow.steps.Trainer.workers=2", "workers need a machine_type, such as n1-standard-8"),
        ("kubeflow.steps.Trainer={machine_type: n1, cpu: 2}", "leave out cpu and memory_gb"),
        ("kubeflow.steps.Tuner={machine_type: n1, workers: 2}", "and workers, not Tuner"),
        ("kubeflow.steps.Trainer.accelerator_count=2", "accelerator_count needs an accelerator"),
        ("kubeflow.vertex.regoin=r", "kubeflow.vertex.regoin: unknown key; did you mean region?"),
        ("kubeflow.vertex.labels={team: 1}", "kubeflow.vertex.labels.team: input should be a valid string"),
        ("kubeflow.kfp=5", "kubeflow.kfp: is a section, not a value; set kubeflow.kfp.host"),
        ("kubeflow.cache=1", "kubeflow.cache: input should be a valid boolean"),
    ],
)
def test_invalid_settings_are_refused(error_message, override, expected):
    assert expected in error_message(override)


def test_machines_of_the_trainer_are_refused_on_targets_that_cannot_provide_them():
    kubeflow = loading.load(
        overrides=["kubeflow.steps.Trainer={machine_type: n1-standard-8, workers: 4}"]
    ).kubeflow
    with pytest.raises(ConfigError, match="workers 4, but a local run trains in one process"):
        kubeflow.check_custom_job("local")
    with pytest.raises(ConfigError, match="workers 4, but open-source Kubeflow Pipelines trains in one"):
        kubeflow.check_custom_job("kfp")
    with pytest.raises(ConfigError, match=r"needs kubeflow\.vertex\.project and kubeflow"):
        kubeflow.check_custom_job("vertex")
    # The error message advises these overrides.
    without_machines = [
        "kubeflow.steps.Trainer={machine_type: n1-standard-8, workers: 4}",
        "kubeflow.steps.Trainer.machine_type=null",
        "kubeflow.steps.Trainer.workers=1",
    ]
    for target in ("local", "kfp", "vertex"):
        loading.load(overrides=without_machines).kubeflow.check_custom_job(target)
