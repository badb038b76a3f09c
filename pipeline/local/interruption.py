"""Ends a run in an orderly way when a signal asks for it, or when nobody reads its output any more."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

# Ctrl-C; a scheduler such as Kubernetes or systemd; a terminal that is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STATUS_OF_SIGNALS = 128  # Shells add the number of the signal to this.


class Watch:
    """Turns signals into KeyboardInterrupt, and remembers the first one; use it as a context manager.

    Libraries may wrap the exception in one of their own, or drop it. `number` says nevertheless that the run
    is to end. A signal that is ignored stays ignored, such as SIGHUP under `nohup`.

    Attributes:
      number: the first signal; SIGPIPE if nobody reads the output any more; None if the run may go on.
    """

    def __init__(self) -> None:
        self.number: signal.Signals | None = None

    def __enter__(self) -> Watch:
        heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._handle) for number in heeded}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def end(self) -> NoReturn:
        """Ends the program with the exit status of the signal, and with a word unless nobody reads it.

        Child processes that still run are killed, and threads are not waited for: Beam has threads that wait
        for its worker processes, and these wait for work.
        """
        number = self.number or signal.SIGINT
        if number is not signal.SIGPIPE:
            with contextlib.suppress(OSError):  # The terminal may be closed.
                print("interrupted", file=sys.stderr, flush=True)
        for child in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        os._exit(_STATUS_OF_SIGNALS + number)

    def check(self) -> None:
        """Raises KeyboardInterrupt if the run is to end."""
        if self.number is not None:
            raise KeyboardInterrupt

    def output_is_closed(self) -> None:
        """Ends the run, because nobody reads its output any more.

        Raises:
          KeyboardInterrupt: in the main thread, unless a signal ends the run already. Another thread only
            notes that the run is to end.
        """
        is_first = self.number is None
        self.number = self.number or signal.SIGPIPE
        if is_first and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        is_first = self.number is None
        self.number = self.number or signal.Signals(number)
        # A repeated Ctrl-C also ends what the first one has begun. Other signals may arrive twice, from a
        # supervisor and from the terminal, and must not disturb the end of the run.
        if is_first or number == signal.SIGINT:
            raise KeyboardInterrupt


def _descendants(parent: int) -> list[int]:
    """Lists the processes that a process has started, and those that these have started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # The process has ended.
            # After the name of the program, in parentheses: its state, and the process that started it.
            above = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(above, []).append(int(stat.parent.name))
    found = list(children.get(parent, []))
    for each in found:
        found += children.get(each, [])
    return found
