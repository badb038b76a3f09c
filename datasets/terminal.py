"""Terminal output of the dataset commands: progress, notes and errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import rich.console
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datasets.directory import Dataset, DatasetError

PLAIN_WIDTH = 160  # columns of output that does not go to a terminal; wide enough for paths


def note(text: str) -> None:
    """Prints a line to stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows the progress of the body: as a bar on a terminal, otherwise as a line before and a line after.

    Args:
      description: name of the work, shown beside the bar.
      total: number of units of work, such as images or bytes.

    Yields:
      A function that the body calls with the number of units that it has completed since the last call.
    """
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        note(f"{description} ...")
        yield lambda count: None
        note(f"{description}: done")
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


def report(dataset: Dataset) -> None:
    """Prints the path, the number of classes and the image size of a finished dataset directory."""
    height, width = dataset.image_size
    print(f"{dataset.path}: {len(dataset.class_names)} classes, the first image is {width}x{height} pixels")


def run(command: Callable[..., None]) -> None:
    """Runs a function as a command line program.

    Dataset errors and file errors end the program with a message and exit code 1, without a traceback.

    Args:
      command: function whose parameters are the arguments and options, as Typer reads them.
    """
    try:
        typer.run(command)
    except DatasetError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def fail(message: str) -> NoReturn:
    """Ends the program with an error message and exit code 1."""
    note(f"error: {message}")
    sys.exit(1)
