"""Runs the pipeline on this machine: `python local_runner.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from datasets import terminal
from pipeline import cli
from pipeline.local import command
from settings.base import ConfigError

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command(epilog=cli.KEYS)
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
    no_tune: cli.NoTune = False,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Writes the summary as JSON, also of a failed run.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Shows TFX's and TensorFlow's logs, too.")
    ] = False,
) -> None:
    """Runs the pipeline: from TFRecords to a pushed model, with what is unchanged taken from the cache."""
    try:
        settings = cli.load(config, overrides, model, no_tune, data=data, root=root)
        command.check(settings, first, summary)
    except ConfigError as error:
        terminal.fail(str(error))
    try:
        succeeded = command.run(settings, [first] if first else [], summary, verbose)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(cli.INTERRUPTED)
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    app()
