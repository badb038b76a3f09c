"""Tests that runs which need more than the machine has are refused, with settings that fit."""

from __future__ import annotations

import re
import shutil

import pytest

from pipeline import machine
from pipeline.local import memory
from pipeline.machine import Memory
from settings import loading
from settings.base import ConfigError

GB = 10**9
EIGHT_GB = Memory(8 * GB, 6 * GB)
PHOTOGRAPHS = (1200, 1600)
FEW = {"train": 12, "val": 2, "test": 2}


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch):
    """The tests' machine may have a GPU."""
    monkeypatch.setattr(machine, "has_gpu", lambda: False)


def configured(*overrides, preset="quick.yaml"):
    return loading.load([loading.PRESETS / preset], overrides)


def check(config, size, counts, available=EIGHT_GB):
    memory.check(config, size, counts, available)


def refusal(*arguments):
    with pytest.raises(ConfigError) as refused:
        check(*arguments)
    return str(refused.value)


def test_photographs_in_full_size_are_refused_with_settings_that_fit():
    message = refusal(configured(), PHOTOGRAPHS, FEW)
    assert re.match(r"the run is estimated to need 2\d\.\d GB of memory", message)
    assert "14 decoded images of 1600x1200 pixels" in message
    assert "This machine has 8.0 GB, of which 6.0 GB are available" in message
    assert "`--config configs/photos.yaml`, a preset for photographs" in message
    assert "`--set model.image_size=224`" in message
    check(configured("model.image_size=224"), PHOTOGRAPHS, FEW)
    check(configured(preset="photos.yaml"), PHOTOGRAPHS, FEW)


def test_a_smaller_batch_is_proposed_where_it_fits():
    config = configured("trainer.batch_size=1000", "model.image_size=96")
    message = refusal(config, (96, 96), {"train": 5_000, "val": 500, "test": 500})
    batch_size = int(re.search(r"`--set trainer.batch_size=(\d+)`", message)[1])
    check(configured(f"trainer.batch_size={batch_size}"), (96, 96), {"train": 5_000, "val": 500, "test": 500})
    assert "photos.yaml" not in message  # the images are not large


def test_a_file_is_proposed_for_images_that_fill_the_memory():
    config = configured("trainer.cache_mebibytes=10000", preset="mobilenetv2.yaml")
    counts = {"train": 200_000, "val": 2_000, "test": 2_000}
    assert "`--set trainer.cache_mebibytes=0`" in refusal(config, (32, 32), counts)


def test_only_what_is_available_counts():
    config, counts = configured(), {"train": 49_000, "val": 1_000, "test": 10_000}
    check(config, (32, 32), counts, Memory(8 * GB, 3 * GB))
    message = refusal(config, (32, 32), counts, Memory(8 * GB, GB, is_limited=True))
    assert (
        "This container may use 8.0 GB, of which 1.0 GB are available. Run on a machine with more" in message
    )


def test_a_network_on_a_gpu_needs_no_memory_of_the_machine(monkeypatch):
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    check(configured(), PHOTOGRAPHS, FEW)
    assert "for training" in refusal(configured(), PHOTOGRAPHS, FEW, Memory(8 * GB, GB))


def test_a_machine_of_unknown_memory_refuses_nothing(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: None)
    memory.check(configured(), PHOTOGRAPHS, FEW)


def test_a_full_disk_is_named_before_the_images_are_decoded(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(GB, GB, 10**6))
    config, counts = configured("trainer.cache_mebibytes=1"), {"train": 49_000, "val": 100, "test": 100}
    with pytest.raises(ConfigError, match=r"take 0\.2 GB, more than .*where 0\.0 GB are free\. Set TMPDIR"):
        memory.check(config, (32, 32), counts, EIGHT_GB)


def test_a_file_in_memory_counts_as_memory(monkeypatch):
    config = configured("trainer.cache_mebibytes=0", preset="mobilenetv2.yaml")
    counts = {"train": 200_000, "val": 2_000, "test": 2_000}
    check(config, (32, 32), counts)
    monkeypatch.setattr(machine, "is_in_memory", lambda folder: True)
    assert "GB for 202,000 decoded images" in refusal(config, (32, 32), counts)


def test_large_images_without_a_size_are_mentioned():
    described = memory.describe_large_images(configured(), PHOTOGRAPHS)
    assert described is not None
    assert "1600x1200 pixels" in described
    assert "--config configs/photos.yaml" in described
    assert memory.describe_large_images(configured("model.image_size=64"), PHOTOGRAPHS) is None
    assert memory.describe_large_images(configured(), (128, 128)) is None


def test_fewer_processes_of_the_tuner_are_proposed():
    config = configured("trainer.batch_size=128", "tuner.parallel=16")
    message = refusal(config, (32, 32), {"train": 1000, "val": 100, "test": 100})
    assert "at a time in 16 processes and for evaluation" in message
    assert "Set `--set tuner.parallel=1`" in message
