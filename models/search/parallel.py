"""Processes that run the trials of a search at the same time.

Each process is started anew, not forked, because TensorFlow's threads do not survive a fork. It has its own
share of the cores, so that the processes together have as many threads as one would have.

KerasTuner's own parallel search (`keras_tuner.distribute`) is not used: its workers cannot reach the records
and the plan of `SearchOracle`, its chief waits forever for a worker that was killed, and its points depend on
which worker is faster.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from models.data.images import Images
from models.search import results, trials, worker
from settings.training import TrainingSettings

# The program of a process; tests replace it.
PROGRAM: tuple[str, ...] = ("-m", worker.__name__)


@dataclasses.dataclass
class _Running:
    """A process, and the trial that it runs.

    Attributes:
      process: the process.
      listener: the thread that reads its answers until it ends.
      trial: the trial; None if the process is idle.
      started: when the trial began, by `time.monotonic`.
      curve: validation accuracy of the trial after each epoch so far.
    """

    process: subprocess.Popen[str]
    listener: threading.Thread
    trial: Mapping[str, Any] | None = None
    started: float = 0.0
    curve: Sequence[float] = ()

    def end(self) -> None:
        """Kills the process if it still runs."""
        self.process.kill()
        self.listener.join()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


class Workers:
    """The processes of a search, by their numbers; use it as a context manager, which ends them.

    The processes read the images from a temporary file, so that they share the memory of its pages.

    Attributes:
      train_images, val_images: the images in that file.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        train_images: Images,
        val_images: Images,
        num_classes: int,
        cores: Sequence[int],
    ) -> None:
        """Creates the processes' common state.

        Args:
          settings: the settings, of which a trial changes some; `settings.tuner.parallel` is the number of
            processes.
          train_images: the images that each trial trains on.
          val_images: the images that each trial's accuracy is measured on.
          num_classes: number of classes.
          cores: numbers of the CPU cores that the processes share, at least one for each.

        Raises:
          NoRoomError: there is not enough disk space for the images.
        """
        self._settings = settings.to_json()
        self._num_classes = num_classes
        self._cores = shares(cores, settings.tuner.parallel)
        self._answers: queue.SimpleQueue[tuple[subprocess.Popen[str], dict[str, Any]]] = queue.SimpleQueue()
        self._running: dict[int, _Running] = {}
        self._folder = tempfile.TemporaryDirectory()
        try:
            self.train_images = train_images.share(self._folder.name, "train")
            self.val_images = val_images.share(self._folder.name, "val")
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for running in self._running.values():
            running.end()
        self._folder.cleanup()

    def start(self, count: int) -> None:
        """Starts the first `count` processes.

        Loading TensorFlow takes longer than a short trial, which would otherwise be over before the process
        of the next one is ready.
        """
        for number in range(count):
            self._running[number] = self._start(number)

    def begin(
        self, number: int, values: Mapping[str, Any], epochs: int, name: str, *, timed: bool = False
    ) -> None:
        """Begins a trial in an idle process, which is started if it does not exist.

        Args:
          number: number of the process, from 0.
          values: dotted key of each searched setting -> its value.
          epochs: epochs of each phase.
          name: name of the trial in logs.
          timed: whether its first steps are timed.
        """
        if number not in self._running:
            self._running[number] = self._start(number)
        running = self._running[number]
        running.trial = {"values": values, "epochs": epochs, "name": name, "timed": timed}
        running.started, running.curve = time.monotonic(), ()
        _send(running.process, running.trial)

    def receive(self) -> tuple[int, dict[str, Any]]:
        """Waits for the next answer of a process.

        Returns:
          The number of the process and its answer, see `worker`. A trial whose process was killed has failed.
        """
        while True:
            process, answer = self._answers.get()
            number = next(key for key, running in self._running.items() if running.process is process)
            running = self._running[number]
            if "ended" in answer:
                self._running.pop(number).end()
                if running.trial is None:
                    continue  # The next trial starts another process.
                answer = self._explain(running, answer["ended"])
            if "curve" in answer:
                running.curve = answer["curve"]
            if "record" in answer:
                running.trial = None
            return number, answer

    def _start(self, number: int) -> _Running:
        # The process has its own session, so that Ctrl-C is for this process alone.
        process = subprocess.Popen(
            [sys.executable, *PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        listener = threading.Thread(target=self._listen, args=(process,), daemon=True)
        listener.start()
        start = worker.Start(self._settings, self._folder.name, self._num_classes, self._cores[number])
        _send(process, dataclasses.asdict(start))
        return _Running(process, listener)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        """Passes on the answers of a process, and the status with which it ends."""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._answers.put((process, json.loads(line)))
        self._answers.put((process, {"ended": process.wait()}))

    def _explain(self, running: _Running, status: int) -> dict[str, Any]:
        """Returns the answer for a process that has ended during its trial."""
        if status >= 0:
            return {"fatal": f"its process ended with status {status}; the log tells why"}
        try:
            name = signal.Signals(-status).name
        except ValueError:  # a real-time signal
            name = f"signal {-status}"
        reason = f"its process was killed ({name})"
        if -status == signal.SIGKILL:
            reason += ": too little memory, or somebody has ended it"
        assert running.trial is not None
        return {
            "record": trials.record(
                running.trial["epochs"],
                running.curve,
                time.monotonic() - running.started,
                len(self.train_images),
                state=results.FAILED,
                reason=reason,
            )
        }


def shares(cores: Sequence[int], count: int) -> list[list[int]]:
    """Divides cores among processes, neighbours together; the first ones get what is left over."""
    size, larger = divmod(len(cores), count)
    ends = [(number + 1) * size + min(number + 1, larger) for number in range(count)]
    return [list(cores[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _send(process: subprocess.Popen[str], message: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    # Of a process that has ended, the thread that listens to it tells.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
