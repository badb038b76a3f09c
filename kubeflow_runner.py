"""Compiles the pipeline for Vertex and Kubeflow: `python kubeflow_runner.py --help`."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline import console as consoles
from pipeline import options, source

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


class Target(str, enum.Enum):
    """What a pipeline is compiled for."""

    VERTEX = "vertex"
    KFP = "kfp"


@app.callback()
def main() -> None:
    """Prepares the pipeline for Vertex AI Pipelines and for Kubeflow Pipelines."""


@app.command("compile", epilog=options.KEYS)
def compile_(
    target: Annotated[
        Target,
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
    model: options.Model = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    no_tune: options.NoTune = False,
) -> None:
    """Compiles the pipeline into a file. Needs no network and no credentials, and writes nothing else."""
    from datasets import catalog, directory  # noqa: PLC0415 - imported once the flags are known to be good.

    try:
        settings = options.load(
            config,
            overrides,
            model,
            no_tune,
            data=data,
            root=root,
            kubeflow__data_uri=data_uri,
            kubeflow__image=image,
        )
        if settings.kubeflow.image is None:
            raise configuration.ConfigError(
                "kubeflow.image is not set; expected, here or as --image, the image with this project's code"
            )
        settings.kubeflow.check_custom_job(target.value)
        if not output.absolute().parent.is_dir():
            raise configuration.ConfigError(f"--output {output}: its folder does not exist")
        dataset = directory.read(Path(data).expanduser())
        settings.evaluation.check_slices(dataset.features)
        name = settings.name or catalog.slug(dataset.path)
        with (
            consoles.logs_to(Path(os.devnull), verbose=False) as terminal,
            consoles.waiting(terminal, "Loading TensorFlow and TFX"),
        ):
            from pipeline import kubeflow  # noqa: PLC0415 - takes some 20 seconds.

            compiled = kubeflow.compile_pipeline(settings, name, dataset, target.value)
        output.write_text(kubeflow.serialize(compiled, target.value), encoding="utf-8")
    except (directory.DatasetError, configuration.ConfigError) as error:
        options.fail(str(error))
    except OSError as error:
        options.fail(f"{error.filename or output}: {error.strerror}")


@app.command("image-tag")
def image_tag() -> None:
    """Prints the tag of the container image: a digest of the code and of the locked packages."""
    typer.echo(source.image_tag())


if __name__ == "__main__":
    app()
