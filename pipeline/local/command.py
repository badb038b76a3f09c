"""Performs one run on this machine, from the settings to the summary; `local_runner.py` calls it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import time
from pathlib import Path

from rich.console import Console

from datasets import catalog, directory, terminal
from datasets.catalog import Opened
from lineage import lock
from models.networks import weights
from pipeline import console
from pipeline.local import memory
from settings.base import ConfigError
from settings.pipeline import PipelineConfig
from settings.places import METADATA_FILE, check_literal
from settings.training import BATCH_SIZE, LEARNING_RATE

_PROJECT = Path(__file__).resolve().parents[2]


def check(
    config: PipelineConfig, rerun_from: str | None, summary: Path | None, augmentation: Path | None = None
) -> None:
    """Checks what can be checked before anything is read or written.

    Args:
      config: the settings.
      rerun_from: the component of `--from`, or None.
      summary: the file of `--summary`, or None.
      augmentation: the file of `--show-augmentation`, or None.

    Raises:
      ConfigError: a setting or flag is not valid for a run on this machine.
    """
    if "://" in config.root:
        raise ConfigError(
            f"root: expected a folder on this machine, found {config.root}; only a compiled pipeline can "
            "have its root elsewhere, see kubeflow_runner.py"
        )
    try:
        check_literal(str(Path(config.root).absolute()))
    except ValueError as error:
        raise ConfigError(f"root {config.root}: {error}") from None
    config.kubeflow.check_custom_job("local")
    config.export.check_packages()
    config.pusher.check_target("local", config.kubeflow.vertex)
    if rerun_from and rerun_from not in config.steps():
        raise ConfigError(
            f"--from {rerun_from}: no such component in this pipeline; expected one of "
            f"{', '.join(config.steps())}"
        )
    for flag, file in (("--summary", summary), ("--show-augmentation", augmentation)):
        if file and not file.absolute().parent.is_dir():
            raise ConfigError(f"{flag} {file}: its folder does not exist")
    if augmentation and augmentation.suffix.lower() != ".png":
        raise ConfigError(f"--show-augmentation {augmentation}: expected a name that ends with .png")
    if augmentation and (rerun_from or summary):
        raise ConfigError(
            "--show-augmentation runs no pipeline: leave --from and --summary out, or run without it"
        )


def run(config: PipelineConfig, rerun_from: list[str], summary_file: Path | None, verbose: bool) -> bool:
    """Runs the pipeline, and shows its progress and its summary.

    Bad data and missing weights end the program with a message before anything is computed.

    Args:
      config: the settings, for which `check` found nothing.
      rerun_from: ids of components that run even if the cache has their results, together with all
        components that depend on them.
      summary_file: file for the summary as JSON; None writes none.
      verbose: whether the logs are shown on the terminal, too.

    Returns:
      Whether all components succeeded.

    Raises:
      KeyboardInterrupt: Ctrl-C ended the run; its summary is written.
    """
    start = time.monotonic()
    root = Path(config.root).absolute()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.exclusive(root))
            opened = _open(config, root)
            data_digest = terminal.compute_digest(opened.dataset)
        except (directory.DatasetError, ConfigError) as error:
            terminal.fail(str(error))
        except OSError as error:
            terminal.fail(f"{error.filename or root}: {error.strerror}")
        name = config.name or opened.name
        _warn_of_fallback(opened)
        if proposal := memory.describe_large_images(config, opened.dataset.image_size):
            terminal.note(proposal)
        _set_environment()
        log = root / "logs" / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{name}.log"
        screen = stack.enter_context(console.logs_to(log, verbose))
        with console.waiting(screen, "Loading TensorFlow and TFX"):
            # These imports take some 20 seconds; invalid settings are reported before.
            from components import metadata  # noqa: PLC0415
            from pipeline import pipeline  # noqa: PLC0415
            from pipeline.local import missing, records, runner, summary  # noqa: PLC0415

        graph = pipeline.create_pipeline(config, name, opened.dataset, data_digest)
        if config.has_tuner:
            screen.print(_describe_search(config), highlight=False, markup=False)
        database = root / METADATA_FILE
        gone = missing.forget(metadata.open_store(database), name)
        if gone:
            screen.print(gone, soft_wrap=True, highlight=False, markup=False)
        with console.View(screen, [component.id for component in graph.components]) as view:
            described_run = records.describe(config, opened.name, pipeline.ENTRY_MODULES)
            result = runner.run(graph, view.update, rerun_from, described_run)
        seconds = time.monotonic() - start
        described = summary.build(
            result,
            database,
            name,
            opened.name,
            config.model.architecture,
            seconds,
            notes=[gone] if gone else [],
        )
        records.end(metadata.open_store(database), described)
        shown = {**described, "data": _NOT_CIFAR10} if opened.is_fallback else described
        summary.show(screen, shown, name, log, waits=config.pusher.promote == "manual")
        page = shlex.join(["python", "-m", "lineage", "page", "--root", str(root)])
        screen.print(f"All runs as a page: {page}", soft_wrap=True, highlight=False, markup=False)
    if summary_file:
        summary_file.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    if isinstance(result.error, KeyboardInterrupt):
        raise result.error
    return result.error is None


def show_augmentation(config: PipelineConfig, file: Path) -> None:
    """Draws training images as the network sees them in the first epochs, without running the pipeline.

    A dataset that cannot be used ends the program with a message.

    Args:
      config: the settings, for which `check` found nothing.
      file: PNG file to write.
    """
    root = Path(config.root).absolute()
    try:
        opened = catalog.open_dataset(config.data, root)
        _check_size(config, opened)
        _warn_of_fallback(opened)
        with (
            console.logs_to(root / "logs" / "augmentation.log", verbose=False) as screen,
            console.waiting(screen, "Loading TensorFlow and drawing"),
        ):
            from pipeline.local import augmentation_sheet  # noqa: PLC0415 - it loads TensorFlow.

            augmentation_sheet.write(config, opened.dataset, file)
    except (directory.DatasetError, ConfigError) as error:
        terminal.fail(str(error))
    except OSError as error:
        terminal.fail(f"{error.filename or file}: {error.strerror}")
    print(f"wrote {file}")


_NOT_CIFAR10 = "shapes, NOT CIFAR-10: it is not prepared and cannot be downloaded"


def _open(config: PipelineConfig, root: Path) -> Opened:
    """Opens the dataset and checks that the settings and the pretrained weights suit it."""
    opened = catalog.open_dataset(config.data, root)
    config.evaluation.check_slices(opened.dataset.features)
    size = _check_size(config, opened)
    memory.check(config, opened.dataset.image_size, directory.count_examples(opened.dataset))
    weights.locate(config.model.network, size)
    return opened


def _check_size(config: PipelineConfig, opened: Opened) -> tuple[int, int]:
    """Checks that the network takes images of the configured size, and returns that (height, width)."""
    size = config.model.input_size(opened.dataset.image_size)
    config.model.network.check_image_size(size, config.trainer.crop_scales)
    return size


def _warn_of_fallback(opened: Opened) -> None:
    if opened.is_fallback:
        stderr = Console(stderr=True)
        stderr.print("Running on drawn shapes, NOT CIFAR-10.", style="bold yellow")
        stderr.print(opened.fallback_reason, soft_wrap=True, markup=False, highlight=False)


def _set_environment() -> None:
    # On some CPUs TensorFlow disables oneDNN, without which training takes up to twice as long.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Beam's worker processes have to find this project's code.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))


def _describe_search(config: PipelineConfig) -> str:
    """Describes which settings the Tuner replaces, and the values among which it chooses."""
    search, pinned = config.tuner, config.pinned()
    rates, sizes = search.learning_rate, search.batch_sizes
    searched = {
        LEARNING_RATE: f"from {rates.min:g} to {rates.max:g}",
        BATCH_SIZE: f"among {', '.join(map(str, sizes))}" if len(sizes) > 1 else f"(only {sizes[0]})",
    }
    parts = [f"trainer.{name} {where}" for name, where in searched.items() if name not in pinned]
    return (
        f"The Tuner chooses {' and '.join(parts)}, and overrides what presets set there. "
        "--set fixes a value instead; --no-tune leaves the search out."
    )
