"""What commands show on a terminal: progress, notes and errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import rich.console
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datasets.directory import Dataset, DatasetError

PLAIN_WIDTH = 160  # columns of output that goes elsewhere than to a terminal; wide enough for paths


def note(text: str) -> None:
    """Prints a line."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far the body has come: a bar on a terminal, elsewhere a line before and after.

    Yields:
      A function that the body calls with how many more of `total` are done.
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
    """Prints what a finished dataset directory holds."""
    height, width = dataset.image_size
    print(f"{dataset.path}: {len(dataset.class_names)} classes, the first image is {width}x{height} pixels")


def run(command: Callable[..., None]) -> None:
    """Runs a command line; a failure is one message and exit code 1, without a traceback."""
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
