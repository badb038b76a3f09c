"""What the commands of this package say on the terminal."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from typer.core import TyperCommand, TyperGroup


def fail(message: str, status: int = 1) -> NoReturn:
    """Ends the program with an error message on standard error, and an exit status."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(status)


def check_output_file(path: Path | None, option: str) -> None:
    """Ends the program with an error if a file cannot be written at a path, before any work is done for it.

    Args:
      path: the file; None checks nothing.
      option: the option that names it.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        found = "a folder with this name" if path.is_dir() else f"no folder {path.parent}"
        fail(f"{option} {path}: expected a file in an existing folder, found {found}")


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


class Group(TyperGroup):
    """Commands that end quietly if nobody reads their output."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs the chosen command, or shows its help."""
        with quiet_if_closed():
            return super().main(*args, **options)
