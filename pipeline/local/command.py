"""Performs one run on this machine, from the settings to the summary; `local_runner.py` calls it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

import ml_metadata as mlmd
from rich.console import Console

from components import metadata
from datasets import catalog, directory, terminal
from datasets.catalog import Opened
from lineage import lock
from models.networks import weights
from pipeline import console, machine, temporary
from pipeline.local import abandoned, memory, store
from pipeline.local.interruption import Watch
from settings import search as spaces
from settings.base import ConfigError
from settings.pipeline import PipelineConfig
from settings.places import METADATA_FILE, check_literal

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


def run(
    config: PipelineConfig,
    rerun_from: list[str],
    summary_file: Path | None,
    verbose: bool,
    watch: Watch,
) -> bool:
    """Runs the pipeline, and shows its progress and its summary.

    Bad data, missing weights and a damaged database end the program with a message at the beginning.

    Args:
      config: the settings, for which `check` found nothing.
      rerun_from: ids of components that run even if the cache has their results, together with all
        components that depend on them.
      summary_file: file for the summary as JSON; None writes none.
      verbose: whether the logs are shown on the terminal, too.
      watch: tells whether a signal asks the run to end.

    Returns:
      Whether all components succeeded.

    Raises:
      ConfigError: the database of ML Metadata cannot be read or written; the message says why.
      KeyboardInterrupt: a signal ended the run; its summary is written.
    """
    start = time.monotonic()
    root = Path(config.root).absolute()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.exclusive(root))
            _settle_earlier_runs(root)
            opened = _open(config, root)
            data_digest = terminal.compute_digest(opened.dataset)
            stack.enter_context(temporary.folder())
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
        try:
            screen = stack.enter_context(console.logs_to(log, verbose, watch.output_is_closed))
        except OSError as error:
            terminal.fail(f"{log}: {error.strerror}")
        with console.waiting(screen, "Loading TensorFlow and TFX"):
            # These imports take some 20 seconds; invalid settings are reported before.
            from pipeline import pipeline  # noqa: PLC0415
            from pipeline.local import records, runner, summary  # noqa: PLC0415

        graph = pipeline.create_pipeline(config, name, opened.dataset, data_digest)
        if config.has_tuner:
            screen.print(
                _describe_search(config, directory.count_examples(opened.dataset)["train"]),
                highlight=False,
                markup=False,
            )
        database = root / METADATA_FILE
        gone = _forget_missing(database, name, screen)
        with console.View(screen, [component.id for component in graph.components]) as view:
            described_run = records.describe(config, opened.name, pipeline.ENTRY_MODULES)
            result = runner.run(graph, view.update, rerun_from, described_run, watch)
        _settle_this_run(root)
        seconds = time.monotonic() - start
        with store.errors_named(database):
            described = summary.build(
                result,
                database,
                name,
                opened.name,
                config.model.architecture,
                seconds,
                notes=[gone] if gone else [],
            )
        _record_end(database, described, screen)
        shown = {**described, "data": _NOT_CIFAR10} if opened.is_fallback else described
        summary.show(screen, shown, name, log, waits=config.pusher.promote == "manual")
        page = shlex.join(["python", "-m", "lineage", "page", "--root", str(root)])
        screen.print(f"All runs as a page: {page}", soft_wrap=True, highlight=False, markup=False)
    if summary_file:
        _write_summary(described, summary_file)
    if result.signal:
        raise KeyboardInterrupt
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
    if told := _describe_searched_augmentation(config):
        print(told)


_NOT_CIFAR10 = "shapes, NOT CIFAR-10: it is not prepared and cannot be downloaded"


def _settle_earlier_runs(root: Path) -> None:
    """Checks the database of earlier runs, if there is one, and settles what killed runs have left."""
    database = root / METADATA_FILE
    if not database.exists():
        return
    store.check(database)
    with store.errors_named(database):
        unended = abandoned.settle(root)
    if unended:
        terminal.note(unended)


def _settle_this_run(root: Path) -> None:
    """Settles what this run has left after an interruption or on a full disk.

    If the disk is still full, the next run settles it.
    """
    with contextlib.suppress(ConfigError, OSError), store.errors_named(root / METADATA_FILE):
        abandoned.settle(root)


def _forget_missing(database: Path, name: str, screen: Console) -> str | None:
    """Marks earlier results whose files are gone, and returns a sentence on them, or None."""
    from pipeline.local import missing  # noqa: PLC0415 - it loads TFX.

    with store.errors_named(database):
        gone = missing.forget(metadata.open_store(database), name)
    if gone:
        screen.print(gone, soft_wrap=True, highlight=False, markup=False)
    return gone


def _record_end(database: Path, summary: dict[str, Any], screen: Console) -> None:
    from pipeline.local import records  # noqa: PLC0415 - it loads TFX.

    try:
        records.end(metadata.open_store(database), summary)
    except mlmd.errors.StatusError as error:
        told = f"The end of this run is not recorded. {store.describe(database, str(error))}"
        screen.print(told, soft_wrap=True, highlight=False, markup=False)


def _write_summary(summary: dict[str, Any], file: Path) -> None:
    try:
        file.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        terminal.fail(f"--summary {file}: {error.strerror}")


def _open(config: PipelineConfig, root: Path) -> Opened:
    """Opens the dataset and checks that the settings and the pretrained weights suit it."""
    if config.has_tuner:  # before the dataset, which may be prepared first
        config.tuner.check_parallel(len(os.sched_getaffinity(0)), machine.has_gpu())
    opened = catalog.open_dataset(config.data, root)
    config.evaluation.check_slices(opened.dataset.features)
    size = _check_size(config, opened)
    memory.check(config, opened.dataset.image_size, directory.count_examples(opened.dataset))
    for network in config.networks():
        weights.locate(network, size)
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


def _describe_searched_augmentation(config: PipelineConfig) -> str | None:
    """Says which settings the pictures show with a value that the Tuner replaces; None if there are none."""
    shown = [
        f"{key}={json.dumps(spaces.get(config, key))}"
        for key in (config.searched() if config.has_tuner else {})
        if key.startswith("augmentation.") or key == "trainer.crop_scales"
    ]
    if not shown:
        return None
    return (
        f"The Tuner may choose other values than the pictures show, which are drawn with {', '.join(shown)}"
    )


def _describe_search(config: PipelineConfig, train_images: int) -> str:
    """Describes which settings the Tuner replaces, the values among which it chooses, and its trials.

    Args:
      config: the settings.
      train_images: number of images in the train split.
    """
    search, space = config.tuner, spaces.resolve(config.searched(), config)
    parts = [f"{dimension.key} {dimension.describe()}" for dimension in space]
    chosen = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    images = min(train_images, search.max_train_images or train_images)
    points = search.limiting_points(space, search.trials)
    trials = search.trials if points is None else len(points)
    return (
        f"The Tuner chooses {chosen}, and overrides what presets set there: up to "
        f"{spaces.count(trials, 'trial')} of up to {spaces.count(search.epochs, 'epoch')} on {images:,} "
        "images. --set fixes a value instead; --no-tune leaves the search out."
    )
