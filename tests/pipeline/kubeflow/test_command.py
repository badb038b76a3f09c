"""Tests what compiling says before it loads TFX."""

from __future__ import annotations

import pytest

from pipeline.kubeflow import command
from settings import loading


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
