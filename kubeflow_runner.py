"""Compiles the pipeline for Vertex and Kubeflow, and submits it: `python kubeflow_runner.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from datasets import terminal
from pipeline import cli, code_digest
from pipeline.kubeflow import command, submission
from settings import loading
from settings.base import ConfigError
from settings.kubeflow import BackEnd

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Compiles the pipeline for Vertex AI Pipelines and for Kubeflow Pipelines, and submits it to them."""


@app.command("compile", epilog=cli.KEYS)
def compile_(
    target: Annotated[
        BackEnd,
        typer.Option(
            help="`vertex` writes a PipelineJob in JSON, `kfp` a PipelineSpec in YAML for open-source "
            "Kubeflow Pipelines 2."
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file that is written.")],
    data: Annotated[
        str,
        typer.Option(help="A dataset directory on this machine; its classes and its schema are compiled in."),
    ],
    root: Annotated[
        str, typer.Option(help="Where the steps keep everything that they make, such as gs://bucket/runs.")
    ],
    data_uri: Annotated[
        str | None,
        typer.Option(help="Where the steps find that dataset directory, such as gs://bucket/data."),
    ] = None,
    image: Annotated[str | None, typer.Option(help="The container image of all steps.")] = None,
    model: cli.Model = None,
    config: cli.Config = None,
    overrides: cli.Overrides = None,
    no_tune: cli.NoTune = False,
) -> None:
    """Compiles the pipeline into a file. Needs no network and no credentials, and writes nothing else."""
    try:
        settings = cli.load(
            config,
            overrides,
            model,
            no_tune,
            data=data,
            root=root,
            kubeflow__data_uri=data_uri,
            kubeflow__image=image,
        )
        command.compile_to(output, settings, target)
    except ConfigError as error:
        terminal.fail(str(error))
    except OSError as error:
        terminal.fail(f"{error.filename or output}: {error.strerror}")


@app.command()
def submit(
    target: Annotated[BackEnd, typer.Option(help="What the file was compiled for.")],
    file: Annotated[Path, typer.Option(metavar="FILE", help="What `compile` wrote.")],
    root: Annotated[
        str | None, typer.Option(help="Where the steps keep what they make, instead of the compiled root.")
    ] = None,
    data_uri: Annotated[
        str | None, typer.Option(help="Where the steps find the dataset directory, instead of there.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Google Cloud project of a run on Vertex.")] = None,
    region: Annotated[str | None, typer.Option(help="Region of a run on Vertex.")] = None,
    host: Annotated[str | None, typer.Option(help="URL of Kubeflow Pipelines.")] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            help="A preset in YAML, of which `kubeflow.vertex`, `kubeflow.kfp` and `kubeflow.cache` count; "
            "may be repeated, and later ones win."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A key of `kubeflow.vertex`, `kubeflow.kfp` or a runtime parameter: `trainer.epochs`, and "
            "without a Tuner `trainer.learning_rate` and `trainer.batch_size`; may be repeated.",
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Runs every step, also those whose result is known.")
    ] = False,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="CRON",
            help="Runs again and again, as the five fields of cron say: minute, hour, day of the month, "
            "month, day of the week. `0 3 * * 1` is every Monday at three, UTC.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follows the run to its end; exit code 0 if it succeeds.")
    ] = False,
) -> None:
    """Submits a compiled file, and prints the link of its run or schedule."""
    flags = {
        "root": root,
        "kubeflow.data_uri": data_uri,
        "kubeflow.vertex.project": project,
        "kubeflow.vertex.region": region,
        "kubeflow.kfp.host": host,
        "kubeflow.cache": False if no_cache else None,
    }
    try:
        settings = loading.load(
            config or (),
            overrides or (),
            {key: value for key, value in flags.items() if value is not None},
            on_base=True,
        )
        command.submit(file, target, settings, schedule=schedule, wait=wait)
    except (ConfigError, submission.SubmissionError) as error:
        terminal.fail(str(error))
    except KeyboardInterrupt:
        sys.exit(cli.INTERRUPTED)


@app.command("image-tag")
def image_tag() -> None:
    """Prints the tag of the container image: a digest of the code and of the locked packages."""
    typer.echo(code_digest.image_tag())


if __name__ == "__main__":
    app()
