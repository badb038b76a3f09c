"""The program of a process that runs trials; `parallel.Workers` starts it and talks to it through pipes.

Each message is a line of JSON. The first line that the process reads is the `Start`; each further line is a
trial. It answers with lines that have one of these keys:

- `timed`: the trial's `Timing`, if it was asked for.
- `curve`: validation accuracy of each epoch of the trial so far.
- `record`: the trial has ended; `trials.record` describes the value.
- `fatal`: an error that ends the search, as a text.

TensorFlow is imported after the process has been given its cores, since it starts as many threads as it finds
cores.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Start:
    """What a process needs before its first trial.

    Attributes:
      settings: the training settings, as JSON-serialisable values.
      folder: the folder with the images, as `Images.share` writes them.
      num_classes: number of classes.
      cores: numbers of the CPU cores that the process may use.
    """

    settings: dict[str, Any]
    folder: str
    num_classes: int
    cores: list[int]


def prepare(start: Start) -> Callable[..., dict[str, Any]]:
    """Loads TensorFlow and the images; returns `Trials.run`."""
    from models.data.images import Images  # noqa: PLC0415 - see the docstring of the module
    from models.search.trials import Trials  # noqa: PLC0415
    from settings.training import TrainingSettings  # noqa: PLC0415

    settings = TrainingSettings.model_validate(start.settings)
    train, val = (Images.shared(start.folder, split) for split in ("train", "val"))
    return Trials(settings, train, val, start.num_classes).run


def serve(prepare: Callable[[Start], Callable[..., dict[str, Any]]]) -> None:
    """Runs the trials that come in, until the standard input is closed.

    Args:
      prepare: returns a function with the arguments of `Trials.run`.
    """
    # A signal for all processes of a run, such as Ctrl-C, is for the search: it ends this process by closing
    # the pipe. Otherwise, trials would fail because somebody ended the run.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # What libraries print goes to the log.

    def answer(key: str, value: Any) -> None:
        answers.write(json.dumps({key: value}) + "\n")
        answers.flush()

    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    try:
        start = Start(**json.loads(lines.get()))
        # Threads inherit the cores of the one that starts them.
        os.sched_setaffinity(0, start.cores)
        run = prepare(start)
        while True:
            trial = json.loads(lines.get())
            record = run(
                trial["values"],
                trial["epochs"],
                trial["name"],
                on_timed=(lambda timing: answer("timed", dataclasses.asdict(timing)))
                if trial["timed"]
                else None,
                on_epoch=lambda curve: answer("curve", list(curve)),
            )
            answer("record", record)
    except Exception as error:
        logging.getLogger(__name__).exception("a trial cannot be run")
        answer("fatal", str(error) or type(error).__name__)
        threading.Event().wait()  # until the search closes the pipe


def _read(lines: queue.SimpleQueue[str]) -> None:
    """Passes on the lines of the standard input; ends the process when the pipe is closed.

    That also happens if the process of the search is killed.
    """
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="process %(process)d: %(message)s")
    serve(prepare)
