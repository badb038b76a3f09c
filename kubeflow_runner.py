"""Compiles the pipeline for Vertex and Kubeflow, and submits it: `python kubeflow_runner.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from datasets import directory, terminal
from pipeline import cli, code_digest
from pipeline.kubeflow import command, submission, uploading
from settings import loading
from settings.base import ConfigError
from settings.kubeflow import BackEnd

app = typer.Typer(
    cls=terminal.Group, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
)


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
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")],
    data: Annotated[
        str,
        typer.Option(
            help="A dataset directory on this machine, whose classes and image size are compiled in."
        ),
    ],
    root: Annotated[
        str, typer.Option(help="Where the steps write artifacts and pushed models, such as gs://bucket/runs.")
    ],
    data_uri: Annotated[
        str | None,
        typer.Option(help="Where the steps read a copy of that dataset directory, such as gs://bucket/data."),
    ] = None,
    image: Annotated[str | None, typer.Option(help="The container image of all steps.")] = None,
    model: cli.Model = None,
    config: cli.Config = None,
    overrides: cli.Overrides = None,
    no_tune: cli.NoTune = False,
) -> None:
    """Compiles the pipeline into a file. Needs neither network nor credentials, and writes only that file."""
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
    typer.echo(f"Wrote {output}; python kubeflow_runner.py submit --target {target} --file {output}")


@app.command()
def submit(
    target: Annotated[BackEnd, typer.Option(help="The target that the file was compiled for.")],
    file: Annotated[Path, typer.Option(metavar="FILE", help="The file that `compile` wrote.")],
    root: Annotated[
        str | None, typer.Option(help="Where the steps write, instead of the root compiled into the file.")
    ] = None,
    data_uri: Annotated[
        str | None,
        typer.Option(help="Where the steps read the dataset directory, instead of the compiled place."),
    ] = None,
    project: Annotated[str | None, typer.Option(help="Google Cloud project, for Vertex.")] = None,
    region: Annotated[str | None, typer.Option(help="Google Cloud region, for Vertex.")] = None,
    host: Annotated[str | None, typer.Option(help="URL of Kubeflow Pipelines, for `kfp`.")] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            help="A preset in YAML; only `kubeflow.vertex`, `kubeflow.kfp` and `kubeflow.cache` are used. "
            "May be repeated, and later ones win."
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
        bool, typer.Option("--no-cache", help="Runs every step, even if the cache has its result.")
    ] = False,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="CRON",
            help="Runs on a schedule, given as the five fields of cron: minute, hour, day of the month, "
            "month, day of the week. `0 3 * * 1` is every Monday at 03:00 UTC.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Waits for the end of the run; the exit code is 0 if it succeeds.")
    ] = False,
) -> None:
    """Submits a compiled file and prints a link to its run or schedule."""
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


@app.command()
def upload(
    data: Annotated[Path, typer.Option(help="A dataset directory on this machine.")],
    data_uri: Annotated[
        str,
        typer.Option(
            help="The place where the steps will find it, such as minio://mlpipeline/cifar10, s3://... or "
            "gs://.... A dataset that is there is replaced."
        ),
    ],
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Address of the object store, for minio:// and s3://, such as http://localhost:9000."
        ),
    ] = None,
) -> None:
    """Uploads a dataset directory. A repeated call uploads only the files that are missing or differ."""
    try:
        digest = uploading.upload(data, data_uri, endpoint)
    except (ConfigError, directory.DatasetError) as error:
        terminal.fail(str(error))
    except KeyboardInterrupt:
        terminal.note("Interrupted; the same command goes on with the files that are missing.")
        sys.exit(cli.INTERRUPTED)
    typer.echo(f"{data_uri} holds the dataset with the digest {digest}")


@app.command("image-tag")
def image_tag() -> None:
    """Prints the tag of the container image: a digest of the code and of the locked packages."""
    typer.echo(code_digest.image_tag())


if __name__ == "__main__":
    app()
