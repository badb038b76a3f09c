"""Shows a run's progress on the terminal and redirects everything else to a log file."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from datasets.terminal import PLAIN_WIDTH

if TYPE_CHECKING:
    from pipeline.local.runner import ComponentRun

# Loggers whose messages are shown as the progress of the running component.
_PROGRESS_LOGGERS = ("models", "components")
# State of a component -> the word on the terminal, and its style.
_STYLES = {
    "not_run": ("waiting", "dim"),
    "running": ("running", "bold cyan"),
    "complete": ("done", "green"),
    "cached": ("cached", "blue"),
    "failed": ("failed", "bold red"),
    "interrupted": ("interrupted", "yellow"),
}


class _Terminal(io.TextIOWrapper):
    """Writes to the terminal until nobody reads any more; then it drops what is written."""

    def __init__(self, descriptor: int, on_closed: Callable[[], None]) -> None:
        super().__init__(os.fdopen(descriptor, "wb"), encoding="utf-8")
        self._on_closed = on_closed

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop_if_closed(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop_if_closed(error)

    def _drop_if_closed(self, error: OSError) -> None:
        if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal's window is closed
            raise error
        _drop_output(self.fileno())
        self._on_closed()


@contextlib.contextmanager
def logs_to(path: Path, verbose: bool, on_closed: Callable[[], None] = lambda: None) -> Iterator[Console]:
    """Redirects the output of this process and its children to a file.

    It redirects the file descriptors, since TensorFlow's C++ code does not write through `sys.stdout`.

    Args:
      path: the log file; its folder is created.
      verbose: whether the log is shown on the terminal, too.
      on_closed: called once if nobody reads the output any more, as behind `| head`.

    Yields:
      A console that writes to the terminal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal, saved_stderr = os.dup(1), os.dup(2)
    with contextlib.ExitStack() as stack:
        if verbose:
            # `tee` gets its own session: Ctrl-C would end it before it has written the last lines.
            command = ["tee", "-a", str(path)]
            tee = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
            )
            assert tee.stdin is not None
            log = tee.stdin.fileno()
        else:
            log = stack.enter_context(path.open("ab")).fileno()
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            with _Terminal(os.dup(terminal), on_closed) as file:
                live = file.isatty() and not verbose
                yield Console(file=file, force_terminal=live, width=None if file.isatty() else PLAIN_WIDTH)
        finally:
            _flush_or_drop(1, sys.stdout)
            _flush_or_drop(2, sys.stderr)
            os.dup2(terminal, 1)
            os.dup2(saved_stderr, 2)
            os.close(terminal)
            os.close(saved_stderr)


def _flush_or_drop(descriptor: int, stream: TextIO) -> None:
    """Writes what a stream has buffered to the log; on a full disk it is dropped, not shown afterwards."""
    try:
        stream.flush()
    except OSError:
        _drop_output(descriptor)
        stream.flush()


def _drop_output(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def waiting(console: Console, text: str) -> Live:
    """Returns a context manager that shows a spinner; without a terminal it shows nothing.

    Args:
      console: where to show the spinner.
      text: the text beside the spinner.
    """
    spinner = Spinner("dots", text) if console.is_terminal else ""
    return Live(spinner, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)


class View:
    """Shows the components of a run: a live table on a terminal, otherwise one line per change.

    Use it as a context manager. While it is active, it also shows the progress that the components log.
    """

    def __init__(self, console: Console, component_ids: Sequence[str]):
        """Creates a view in which all components wait.

        Args:
          console: where to show the components.
          component_ids: ids of the components, in the order of the table.
        """
        self._console = console
        self._states: dict[str, tuple[str, float]] = dict.fromkeys(component_ids, ("not_run", 0.0))
        self._running: str | None = None
        self._started = 0.0
        self._detail = ""
        # `logs_to` already redirects stdout and stderr to the log; rich must not redirect them again.
        self._live = Live(
            get_renderable=self._table,
            console=console,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> View:
        self._handler = _ProgressHandler(self)
        for name in _PROGRESS_LOGGERS:
            logging.getLogger(name).addHandler(self._handler)
            logging.getLogger(name).setLevel(logging.INFO)
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        for name in _PROGRESS_LOGGERS:
            logging.getLogger(name).removeHandler(self._handler)

    def update(self, component: ComponentRun) -> None:
        """Shows the new state of a component."""
        state = component.state.value
        self._states[component.id] = (state, component.seconds)
        self._running = component.id if state == "running" else None
        self._detail = ""
        self._started = time.monotonic()
        if not self._console.is_terminal:
            seconds = "" if state == "running" else f"  {component.seconds:.1f} s"
            self._console.print(f"{component.id:<18} {_STYLES[state][0]}{seconds}", highlight=False)

    def progress(self, message: str) -> None:
        """Shows a line about the progress of the running component."""
        self._detail = message
        if not self._console.is_terminal:
            # In a redirected log, a line of progress stays one line, for grep and other programs.
            self._console.print(f"{'':<18} {message}", highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, (state, seconds) in self._states.items():
            word, style = _STYLES[state]
            running = name == self._running
            elapsed = time.monotonic() - self._started if running else seconds
            shown = "" if state == "not_run" else f"{elapsed:.1f} s"
            detail = Text(self._detail if running else "", "dim")
            table.add_row(Text(name), Text(word, style), Text(shown, justify="right"), detail)
        return table


class _ProgressHandler(logging.Handler):
    def __init__(self, view: View):
        super().__init__(logging.INFO)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.progress(record.getMessage())
