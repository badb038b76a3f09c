"""Answers images with Beam, where one machine is too small: `python -m pipeline.predict_images`.

The images, the model and the answers are on a file system that the workers of the runner reach, such as gs://.
What happens to each image is the same as with `python -m serving.predict`.
"""

from __future__ import annotations

import posixpath
from typing import Annotated

import typer

from datasets import terminal
from pipeline import cli, temporary
from settings import loading
from settings.base import ConfigError

_SOME_FAILED = 3  # exit status, as that of `serving.predict`


def main(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES", help="Files, folders, patterns and TFRecords, gs://...."),
    ],
    *,
    model: Annotated[str, typer.Option(metavar="VERSION", help="A pushed version, gs://.../NAME/VERSION.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder to write, gs://...; it must be empty.")],
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Number of classes to name.")] = 5,
    config: cli.Config = None,
    overrides: cli.Overrides = None,
) -> None:
    """Answers images with a pushed model and Beam, and writes the answers as Parquet files.

    For more images than one machine can answer: the runner of `--set beam.runner=...` does it. The images are
    found, and the columns and the exit status are, as with `python -m serving.predict`.
    """
    try:
        settings = loading.load(config or (), overrides or (), {}, on_base=True)
    except ConfigError as error:
        terminal.fail(str(error))
    # Importing Beam and TensorFlow takes seconds.
    from pipeline import answering  # noqa: PLC0415

    count, failed = answering.predict(sources, model, out, settings, top)
    files = f"{posixpath.join(out, answering.PREFIX)}-*{answering.SUFFIX}"
    terminal.note(f"{count:,} images, {failed:,} without an answer: {files}")
    if failed:
        raise typer.Exit(_SOME_FAILED)


if __name__ == "__main__":
    with temporary.folder():
        terminal.run(main)
