"""Refuses a run that needs more memory or disk space than this machine has, before anything is trained."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline import machine
from settings import loading, memory
from settings.base import ConfigError
from settings.pipeline import PipelineConfig

# In pixels. With a longer side, images are likely to be photographs.
_SMALL_IMAGE = 128
_PHOTOGRAPHS = loading.PRESETS / "photos.yaml"
# Image sizes to propose, the best first.
_SIDES = (224, 160, 128, 96, 64)
_GB = 1e9


def check(
    config: PipelineConfig,
    dataset_size: tuple[int, int],
    counts: Mapping[str, int],
    available: machine.Memory | None = None,
) -> None:
    """Compares what a run needs with what this machine has.

    Args:
      config: the settings.
      dataset_size: (height, width) of the dataset's images, in pixels.
      counts: number of images of each split.
      available: the memory that is there; None measures it.

    Raises:
      ConfigError: the run is estimated to need more; the message has the estimate, and settings with which
        the run needs less.
    """
    available = available or machine.memory()
    needed = _estimate(config, dataset_size, counts)
    folder = Path(tempfile.gettempdir())
    in_memory = machine.is_in_memory(folder)
    if available is not None and _memory(needed, in_memory) > available.available:
        proposals = list(_propose(config, dataset_size, counts, available.available, in_memory))
        raise ConfigError(_describe(config, needed, counts, available, in_memory, proposals))
    free = shutil.disk_usage(folder).free
    if needed.disk > free:
        height, width = needed.size
        raise ConfigError(
            f"the decoded images of {width}x{height} pixels take {needed.disk / _GB:.1f} GB, more than "
            f"trainer.cache_mebibytes={config.trainer.cache_mebibytes}, and go to a file in {folder}, where "
            f"{free / _GB:.1f} GB are free. Set TMPDIR to a folder on a larger disk, or a smaller "
            "model.image_size"
        )


def describe_large_images(config: PipelineConfig, dataset_size: tuple[int, int]) -> str | None:
    """Returns a proposal for images that are likely to be photographs; None if they are small or resized."""
    height, width = dataset_size
    if config.model.image_size is not None or max(dataset_size) <= _SMALL_IMAGE:
        return None
    return (
        f"The first image has {width}x{height} pixels, and the network will take all images in that size: "
        f"model.image_size is not set. For photographs there is `--config configs/{_PHOTOGRAPHS.name}`; "
        f"`--set model.image_size={_SIDES[0]}` makes the images smaller for another network."
    )


def _estimate(
    config: PipelineConfig, dataset_size: tuple[int, int], counts: Mapping[str, int]
) -> memory.Estimate:
    needed = memory.estimate(config, dataset_size, counts, len(os.sched_getaffinity(0)))
    if machine.has_gpu():
        # The network's part is in the GPU's own memory.
        return dataclasses.replace(needed, work=0, evaluation=0)
    return needed


def _memory(needed: memory.Estimate, in_memory: bool) -> int:
    return needed.memory + needed.disk * in_memory


def _describe(
    config: PipelineConfig,
    needed: memory.Estimate,
    counts: Mapping[str, int],
    available: machine.Memory,
    in_memory: bool,
    proposals: list[str],
) -> str:
    height, width = needed.size
    images = needed.images + needed.disk * in_memory
    parallel = config.tuner.parallel if config.has_tuner else 1
    in_processes = f" in {parallel} processes" if parallel > 1 else ""
    place = "this container may use" if available.is_limited else "this machine has"
    return (
        f"the run is estimated to need {_memory(needed, in_memory) / _GB:.1f} GB of memory: "
        f"{needed.base / _GB:.1f} GB for TensorFlow and TFX, {images / _GB:.1f} GB for "
        f"{counts['train'] + counts['val']:,} decoded images of {width}x{height} pixels, and "
        f"{(needed.work + needed.evaluation) / _GB:.1f} GB for training with {needed.batch_size} images at a "
        f"time{in_processes} and for evaluation. "
        f"{place[0].upper()}{place[1:]} {available.total / _GB:.1f} GB, of which "
        f"{available.available / _GB:.1f} GB are available. "
        + (f"Set {', or '.join(proposals)}" if proposals else "Run on a machine with more memory")
    )


def _propose(
    config: PipelineConfig,
    dataset_size: tuple[int, int],
    counts: Mapping[str, int],
    available: int,
    in_memory: bool,
) -> Iterator[str]:
    """Yields flags with each of which the run fits into the memory."""

    def fits(changed: PipelineConfig) -> bool:
        return _memory(_estimate(changed, dataset_size, counts), in_memory) <= available

    if config.tuner.parallel > 1:
        tuner = config.tuner.model_copy(update={"parallel": 1})
        if fits(config.model_copy(update={"tuner": tuner})):
            yield "`--set tuner.parallel=1`"
    if describe_large_images(config, dataset_size) and fits(loading.load([_PHOTOGRAPHS])):
        yield f"`--config configs/{_PHOTOGRAPHS.name}`, a preset for photographs"
    largest = max(config.model.input_size(dataset_size))
    for side in (side for side in _SIDES if side < largest and _takes(config, side)):
        model = config.model.model_copy(update={"image_size": side})
        if fits(config.model_copy(update={"model": model})):
            yield f"`--set model.image_size={side}`"
            break
    batch_size = _estimate(config, dataset_size, counts).batch_size
    while (batch_size := batch_size // 2) > 0:
        space = {key: entry for key, entry in config.tuner.space.items() if key != "trainer.batch_size"}
        tuner = config.tuner.model_copy(update={"space": space})
        changed = config.with_setting("trainer.batch_size", batch_size).model_copy(update={"tuner": tuner})
        if fits(changed):
            yield f"`--set trainer.batch_size={batch_size}`"
            break
    if not in_memory:
        trainer = config.trainer.model_copy(update={"cache_mebibytes": 0})
        if fits(config.model_copy(update={"trainer": trainer})):
            yield "`--set trainer.cache_mebibytes=0`, which keeps the images in a file"


def _takes(config: PipelineConfig, side: int) -> bool:
    try:
        config.model.network.check_image_size((side, side), config.trainer.crop_scales)
    except ConfigError:
        return False
    return True
