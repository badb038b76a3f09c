"""Runs the pipeline on this machine: `python local_runner.py --help`."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline import config as configuration
from pipeline import console as consoles
from pipeline import lock, options

# What a shell reports of a program that SIGINT has ended.
_INTERRUPTED = 130

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command(epilog=options.KEYS)
def main(
    data: Annotated[
        str | None,
        typer.Option(
            help="`cifar10`, `shapes`, a dataset directory, or a folder as TFDS prepares it. "
            "By default CIFAR-10 where it is prepared or can be downloaded, `shapes` otherwise."
        ),
    ] = None,
    model: options.Model = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    root: Annotated[
        str | None, typer.Option(help="Where everything that is made is kept; `runs` by default.")
    ] = None,
    first: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="COMPONENT",
            help="Runs this component and all that follow from it, cached or not.",
        ),
    ] = None,
    no_tune: options.NoTune = False,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Writes the summary as JSON, also of a failed run.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Shows TFX's and TensorFlow's logs, too.")
    ] = False,
) -> None:
    """Runs the pipeline: from TFRecords to a pushed model, with what is unchanged taken from the cache."""
    start = time.monotonic()
    try:
        settings = options.load(config, overrides, model, no_tune, data=data, root=root)
        if "://" in settings.root:
            raise configuration.ConfigError(
                f"root: expected a folder of this machine, found {settings.root}; a compiled pipeline can "
                "have its root elsewhere: see kubeflow_runner.py"
            )
        settings.kubeflow.check_custom_job("local")
        components = configuration.components(settings)
        if first and first not in components:
            raise configuration.ConfigError(
                f"--from {first}: no such component in this pipeline; expected one of {', '.join(components)}"
            )
        if summary and not summary.absolute().parent.is_dir():
            raise configuration.ConfigError(f"--summary {summary}: its folder does not exist")
    except configuration.ConfigError as error:
        options.fail(str(error))
    try:
        succeeded = _run(settings, [first] if first else [], summary, verbose, start)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(_INTERRUPTED)
    sys.exit(0 if succeeded else 1)


def _run(
    config: configuration.PipelineConfig,
    first: list[str],
    summary_file: Path | None,
    verbose: bool,
    start: float,
) -> bool:
    """Runs the pipeline and reports on it; returns whether it came to its end."""
    from datasets import catalog, directory  # noqa: PLC0415 - imported once the flags are known to be good.
    from models import weights  # noqa: PLC0415

    root = Path(config.root).absolute()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.exclusive(root))
            opened = catalog.open_dataset(config.data, root)
            config.evaluation.check_slices(opened.dataset.features)
            size = config.model.input_size(opened.dataset.image_size)
            config.trainer_settings().check_image_size(size)
            if config.model.architecture == "mobilenetv2":
                weights.locate(config.model.mobilenetv2, size)
        except (directory.DatasetError, configuration.ConfigError) as error:
            options.fail(str(error))
        except OSError as error:
            options.fail(f"{error.filename or root}: {error.strerror}")
        name = config.name or opened.name
        described = opened.name
        if opened.is_fallback:
            described = "shapes, NOT CIFAR-10, which is neither prepared nor to be downloaded"
            stderr = Console(stderr=True)
            stderr.print("Running on drawn shapes, NOT CIFAR-10.", style="bold yellow")
            stderr.print(opened.fallback_reason, soft_wrap=True, markup=False, highlight=False)
        # TensorFlow leaves oneDNN off on some CPUs, where training takes up to twice as long without.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        # Worker processes of Beam find this project's code by it.
        project = str(Path(__file__).resolve().parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH")]))
        log = root / "logs" / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{name}.log"
        terminal = stack.enter_context(consoles.logs_to(log, verbose))
        with consoles.waiting(terminal, "Loading TensorFlow and TFX"):
            from pipeline import local, pipeline, summary  # noqa: PLC0415 - takes some 20 seconds.

        graph = pipeline.create_pipeline(config, name, opened.dataset)
        database = root / configuration.METADATA_FILE
        anew = local.stale_imports(name, database, opened.dataset.path / directory.SCHEMA_FILE)
        with consoles.View(terminal, [component.id for component in graph.components]) as view:
            run = local.run(graph, view.update, [*anew, *first])
        if (failed := run.failed()) and failed.id == "ImportExampleGen":
            # Beam's message for a damaged file is the record itself, in hexadecimal.
            try:
                directory.check_records(opened.dataset)
            except directory.DatasetError as error:
                run.error = error
        seconds = time.monotonic() - start
        result = summary.build(run, database, opened.name, config.model.architecture, seconds)
        summary.show(terminal, {**result, "data": described}, name, log)
    if summary_file:
        summary_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if isinstance(run.error, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    return run.error is None


if __name__ == "__main__":
    app()
