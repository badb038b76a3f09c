"""Runs the pipeline on this machine: `python local_runner.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from datasets import terminal
from pipeline import cli
from pipeline.local import command, interruption
from settings.base import ConfigError

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command(cls=terminal.Command, epilog=cli.KEYS)
def main(
    data: Annotated[
        str | None,
        typer.Option(
            help="`cifar10`, `shapes`, a dataset directory, or a folder as TFDS prepares it. "
            "By default CIFAR-10 where it is prepared or can be downloaded, `shapes` otherwise."
        ),
    ] = None,
    model: cli.Model = None,
    config: cli.Config = None,
    overrides: cli.Overrides = None,
    root: Annotated[
        str | None, typer.Option(help="Folder of all artifacts, logs and pushed models; `runs` by default.")
    ] = None,
    rerun_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="COMPONENT",
            help="Runs this component and all that depend on it, even if the cache has their results.",
        ),
    ] = None,
    no_tune: cli.NoTune = False,
    hyperparameters: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|FILE",
            help="Takes the values that an earlier search has found, and leaves them out of the search: "
            "those of a run below the root, or of its hyperparameters.json or best_hyperparameters.txt.",
        ),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Writes the summary as JSON, even if the run fails.")
    ] = None,
    show_augmentation: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draws a dozen training images as the network sees them in the first four epochs, with "
            "these settings, and ends without running the pipeline.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also shows the logs of TFX and TensorFlow.")
    ] = False,
) -> None:
    """Runs the pipeline from TFRecords to a pushed model; unchanged steps come from the cache."""
    try:
        settings = cli.load(config, overrides, model, no_tune, hyperparameters, data=data, root=root)
        command.check(settings, rerun_from, summary, show_augmentation)
    except ConfigError as error:
        terminal.fail(str(error))
    if show_augmentation:
        command.show_augmentation(settings, show_augmentation)
        return
    with interruption.Watch() as watch:
        try:
            succeeded = command.run(settings, [rerun_from] if rerun_from else [], summary, verbose, watch)
        except ConfigError as error:
            terminal.fail(str(error))
        except KeyboardInterrupt:
            watch.end()
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    app()
