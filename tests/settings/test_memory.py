"""Tests the estimate of memory against measured peaks of trainings, and its parts against closed forms."""

from __future__ import annotations

import pytest

from settings import loading, memory

MIB = 2**20
BFLOAT16 = "trainer.precision=mixed_bfloat16"


def estimate(preset, overrides=(), size=(32, 32), train=49_000, val=1_000, cores=2):
    config = loading.load([loading.PRESETS / preset], overrides, on_base=True)
    return memory.estimate(config, size, {"train": train, "val": val, "test": 10}, cores)


# Peaks in MiB of whole runs' processes, which docs/running.md and the presets state.
@pytest.mark.parametrize(
    ("preset", "megabytes", "train"),
    [
        ("quick.yaml", 2_300, 49_000),
        ("cnn.yaml", 3_300, 49_000),
        ("cnn_best.yaml", 3_500, 49_000),
        ("mobilenetv2.yaml", 4_000, 49_000),
        ("mobilenetv2_head.yaml", 4_600, 49_000),
    ],
)
def test_whole_runs_on_cifar10(preset, megabytes, train):
    assert estimate(preset, train=train).memory / 1e6 == pytest.approx(megabytes, rel=0.3)


# (preset, settings, side of the images, images in a step, MiB by which `loop.train` raised the process's peak
# on two cores; this includes about 300 MiB for compiled graphs)
PEAKS = [
    ("quick.yaml", [], 64, 250, 994),
    ("quick.yaml", [], 128, 250, 3567),
    ("quick.yaml", [], 64, 1000, 3502),
    ("quick.yaml", [], 256, 64, 3656),
    ("quick.yaml", ["model.cnn.activation=relu", "model.cnn.filters=[32,64,128,256]"], 128, 128, 1553),
    ("cnn.yaml", [BFLOAT16], 32, 1000, 1524),
    ("cnn.yaml", ["trainer.precision=float32"], 64, 500, 4846),
    ("cnn_best.yaml", [BFLOAT16], 32, 500, 1417),
    ("cnn_best.yaml", ["trainer.precision=float32"], 64, 250, 3961),
    ("mobilenetv2.yaml", [BFLOAT16], 96, 128, 689),
    ("mobilenetv2.yaml", [BFLOAT16], 160, 128, 1350),
    ("mobilenetv2.yaml", [BFLOAT16], 224, 128, 2424),
    ("mobilenetv2.yaml", [BFLOAT16, "model.mobilenetv2.weights=random"], 224, 32, 2127),
    ("mobilenetv2_head.yaml", [BFLOAT16], 224, 256, 1126),
    ("small_data.yaml", [], 224, 50, 1332),
    ("photos.yaml", [BFLOAT16], 224, 32, 1027),
]
GRAPHS = 300 * MIB


@pytest.mark.parametrize(("preset", "settings", "side", "batch_size", "peak"), PEAKS)
def test_trainings(preset, settings, side, batch_size, peak):
    found = estimate(
        preset,
        [*settings, f"model.image_size={side}", f"trainer.batch_size={batch_size}", "tuner.enabled=false"],
        train=4 * batch_size,
        val=batch_size,
    )
    assert (found.work + GRAPHS) / MIB == pytest.approx(peak, rel=0.3)


def test_no_preset_is_estimated_to_need_more_than_a_machine_of_eight_gigabytes_has():
    for preset in loading.PRESETS.glob("*.yaml"):
        assert estimate(preset.name, cores=4).memory < 6e9, preset


def test_photographs_need_less_than_four_gigabytes():
    found = estimate("photos.yaml", size=(1200, 1600), train=3_000, val=400)
    assert found.memory < 4e9


def test_images_beyond_the_cache_go_to_the_disk():
    pixels = 3 * 32 * 32
    found = estimate("quick.yaml", ["trainer.cache_mebibytes=100"])
    assert (found.images, found.disk) == (1_000 * pixels, 49_000 * pixels)
    found = estimate("quick.yaml", ["trainer.cache_mebibytes=200"])
    assert (found.images, found.disk) == (50_000 * pixels, 0)


@pytest.mark.parametrize(
    ("settings", "batch_size"),
    [
        ([], 500),  # the largest that the Tuner tries
        (["tuner.enabled=false"], 250),
        (["trainer.batch_size=64"], 64),
        (["trainer.batch_size=50000"], 49_000),
    ],
)
def test_size_of_a_step(settings, batch_size):
    assert estimate("quick.yaml", settings).batch_size == batch_size


def test_memory_grows_with_the_pixels_and_the_batch():
    small = estimate("quick.yaml", ["trainer.batch_size=500"], size=(64, 64))
    wide = estimate("quick.yaml", ["trainer.batch_size=500"], size=(64, 128))
    many = estimate("quick.yaml", ["trainer.batch_size=1000"], size=(64, 64))
    assert wide.work == pytest.approx(2 * small.work, rel=0.02)
    assert many.work == pytest.approx(2 * small.work, rel=0.02)


def test_a_head_alone_needs_no_backward_pass_of_the_network():
    with_fine_tuning = ["model.mobilenetv2.fine_tune_epochs=5", "model.mobilenetv2.fine_tune_from=Conv1"]
    head = estimate("mobilenetv2_head.yaml", train=1000)
    assert head.work < estimate("mobilenetv2_head.yaml", with_fine_tuning, train=1000).work / 2


def test_each_process_of_the_tuner_needs_memory():
    alone, two, four = (estimate("quick.yaml", [f"tuner.parallel={count}"]) for count in (1, 2, 4))
    assert alone.memory < two.memory < four.memory
    without_tuner = estimate("quick.yaml", ["tuner.parallel=4", "tuner.enabled=false"])
    assert without_tuner.work < two.work
