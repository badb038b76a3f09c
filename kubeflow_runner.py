"""Compiles the pipeline for Vertex and Kubeflow, and submits it: `python kubeflow_runner.py --help`."""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline import config as configuration
from pipeline import console as consoles
from pipeline import options, source, submission

# What a shell reports of a program that SIGINT has ended.
_INTERRUPTED = 130

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


class Target(str, enum.Enum):
    """What a pipeline is compiled for."""

    VERTEX = "vertex"
    KFP = "kfp"


@app.callback()
def main() -> None:
    """Compiles the pipeline for Vertex AI Pipelines and for Kubeflow Pipelines, and submits it to them."""


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
        settings.check_places(target.value)
        if not output.absolute().parent.is_dir():
            raise configuration.ConfigError(f"--output {output}: its folder does not exist")
        if output.is_dir():
            raise configuration.ConfigError(f"--output {output}: expected a file, found a folder")
        if "://" in data:
            raise configuration.ConfigError(
                f"--data: expected a dataset directory on this machine, found {data}; where the steps find "
                "its copy is --data-uri"
            )
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
    except directory.DatasetError as error:
        options.fail(f"--data: {error}; `python -m datasets.cifar10 DIR`, for one, writes a whole one")
    except configuration.ConfigError as error:
        options.fail(str(error))
    except OSError as error:
        options.fail(f"{error.filename or output}: {error.strerror}")


@app.command()
def submit(
    target: Annotated[Target, typer.Option(help="What the file was compiled for.")],
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
        if schedule is not None:
            if wait:
                raise configuration.ConfigError("--wait follows one run; a schedule has no end")
            if len(schedule.split()) != 5:
                raise configuration.ConfigError(
                    f"--schedule {schedule!r}: expected the five fields of cron, such as '0 3 * * 1'"
                )
        settings = configuration.load(
            config or (), overrides or (), {key: value for key, value in flags.items() if value is not None}
        )
        asked = submission.read(file, target.value, settings)
        # What the clients print is no message to people.
        with consoles.logs_to(Path(os.devnull), verbose=False) as terminal:
            with consoles.waiting(terminal, "Submitting"):
                submitted = _submit(asked, target, settings.kubeflow, schedule)
            terminal.print("Schedule" if schedule else "Run", submitted.link, soft_wrap=True, highlight=False)
            ended = _follow(submitted, terminal) if wait else None
    except (configuration.ConfigError, submission.SubmissionError) as error:
        options.fail(str(error))
    if ended and not ended.has_succeeded:
        options.fail("; ".join(ended.problems) or f"the run was {ended.state}")


def _submit(
    asked: submission.Submission,
    target: Target,
    settings: configuration.KubeflowConfig,
    schedule: str | None,
) -> submission.Submitted:
    if target is Target.KFP:
        from pipeline import kfp_runs  # noqa: PLC0415 - imported once the flags are known to be good.

        return kfp_runs.submit(asked, settings.kfp, schedule)
    # Without credentials, Google's metadata server is searched for, by default three times for three seconds.
    os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    from pipeline import vertex_runs  # noqa: PLC0415 - takes some 3 seconds.

    return vertex_runs.submit(asked, settings.vertex, schedule)


def _follow(submitted: submission.Submitted, terminal: Console) -> submission.Progress:
    def show(line: str) -> None:
        terminal.print(line, highlight=False, markup=False)

    assert submitted.look is not None
    try:
        with consoles.waiting(terminal, "The run goes on; Ctrl-C leaves it alone"):
            ended = submission.follow(submitted.look, show)
    except KeyboardInterrupt:
        show("Not followed any longer; the run goes on:")
        terminal.print(submitted.link, soft_wrap=True, highlight=False)
        sys.exit(_INTERRUPTED)
    except submission.SubmissionError as error:
        raise submission.SubmissionError(
            f"the run goes on, but cannot be followed any longer: {error}. See {submitted.link}"
        ) from None
    show(f"The run is {ended.state}.")
    return ended


@app.command("image-tag")
def image_tag() -> None:
    """Prints the tag of the container image: a digest of the code and of the locked packages."""
    typer.echo(source.image_tag())


if __name__ == "__main__":
    app()
