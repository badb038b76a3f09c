"""Terminal output of the dataset commands: progress, notes and errors."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import rich.console
import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from typer.core import TyperCommand, TyperGroup

from datasets import digest
from datasets.directory import Dataset, DatasetError

# Size of a dataset whose files take seconds to read, in bytes.
_LONG_BYTES = 2 * 10**9
PLAIN_WIDTH = 160  # columns of output that does not go to a terminal; wide enough for paths
_LINE_SECONDS = 30  # between the lines that show progress where there is no terminal


def note(text: str) -> None:
    """Prints a line to stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(description: str, total: int, *, in_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """Shows the progress of the body: as a bar on a terminal, otherwise as lines.

    The lines are one before the body, one after it, and one every 30 seconds.

    Args:
      description: name of the work, shown beside the bar.
      total: number of units of work, such as images or bytes.
      in_bytes: whether the units are bytes, which are shown as MB.

    Yields:
      A function that the body calls with the number of units that it has completed since the last call.
    """
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        note(f"{description} ...")
        yield _line_progress(description, total, in_bytes)
        note(f"{description}: done")
        return
    done = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = TextColumn("{task.description}"), BarColumn(), done, TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


def compute_digest(dataset: Dataset) -> str:
    """Computes the digest of a dataset directory, and shows the progress if that takes more than seconds.

    Raises:
      DatasetError: the shards of the directory are not complete.
      OSError: a file cannot be read.
    """
    total = sum(file.stat().st_size for file in digest.files(dataset.path))
    if total < _LONG_BYTES:
        return digest.of_directory(dataset.path)
    with progress(f"Reading {dataset.path}", total, in_bytes=True) as advance:
        return digest.of_directory(dataset.path, advance)


def _line_progress(description: str, total: int, in_bytes: bool) -> Callable[[int], None]:
    done = 0
    last = time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            amount = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if in_bytes else f"{done:,} of {total:,}"
            note(f"{description}: {amount}")

    return advance


def run(command: Callable[..., None]) -> None:
    """Runs a function as a command line program.

    Dataset errors and file errors end the program with a message and exit code 1, without a traceback.

    Args:
      command: function whose parameters are the arguments and options, as Typer reads them.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(cls=Command)(command)
    try:
        app()
    except DatasetError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


@contextmanager
def quiet_if_closed() -> Iterator[None]:
    """Ends the program without a message, as SIGPIPE ends others, if nobody reads what the body prints."""
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        # Rich and Typer end the program by themselves.
        is_theirs = isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
        if not is_theirs and (isinstance(error, SystemExit) or not _is_closed(sys.stdout.fileno())):
            raise  # for another reason, such as a connection to another machine
        # What is buffered would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _is_closed(descriptor: int) -> bool:
    """Returns whether the other end of a pipe is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


class Command(TyperCommand):
    """A command that ends quietly if nobody reads its output, as behind `| head`."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs the command, or shows its help."""
        with quiet_if_closed():
            return super().main(*args, **options)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments; the message on an option without its value shows the usage, as others do."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # Typer has a copy of Click, whose classes are not public.
            if getattr(error, "ctx", ctx) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise


class Group(TyperGroup):
    """Commands that end quietly if nobody reads their output."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs the chosen command, or shows its help."""
        with quiet_if_closed():
            return super().main(*args, **options)


def fail(message: str) -> NoReturn:
    """Ends the program with an error message and exit code 1."""
    note(f"error: {message}")
    sys.exit(1)
