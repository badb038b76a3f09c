"""Runs a function on many chunks of work on all cores, or in this process while there is little to do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol, TypeVar

from datasets.directory import DatasetError

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

# In seconds. Less work than this is done in this process, because each process imports TensorFlow first.
_SECONDS_ALONE = 5.0
# So many chunks are not tried in this process first.
_MANY_CHUNKS = 30
# Each process needs half a gigabyte of memory.
_MAX_PROCESSES = 16


class Workers(Protocol):
    """What applies a function to chunks of work."""

    def map(self, function: Callable[[Chunk], Result], chunks: Sequence[Chunk]) -> Iterator[Result]:
        """Yields the result of a function for every chunk, in their order."""
        ...


class LocalWorkers:
    """This process, and as many worker processes as there are cores once the work turns out to be large."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[Chunk], Result], chunks: Sequence[Chunk]) -> Iterator[Result]:
        """Applies a function to every chunk.

        Args:
          function: a function of a module; it and its arguments and results are pickled.
          chunks: the arguments.

        Yields:
          The results, in the order of the chunks.

        Raises:
          DatasetError: a worker process was killed.
        """
        if self._pool is None and len(chunks) > _MANY_CHUNKS and _processes() > 1:
            self._pool = _start()
        done = 0
        started = 0.0
        while self._pool is None and done < len(chunks):
            # The first chunk is not measured, because it may import TensorFlow.
            if done > 1 and _processes() > 1:
                expected = (time.monotonic() - started) / (done - 1) * (len(chunks) - done)
                if expected > _SECONDS_ALONE:
                    self._pool = _start()
                    break
            yield function(chunks[done])
            done += 1
            started = started or time.monotonic()
        if self._pool is not None:
            try:
                yield from self._pool.map(function, chunks[done:])
            except BrokenProcessPool:
                raise DatasetError(
                    "a worker process ended unexpectedly, probably because memory ran out; close other "
                    "programs or use a machine with more memory"
                ) from None

    def close(self) -> None:
        """Ends the worker processes, without the work that has not begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def start() -> Iterator[LocalWorkers]:
    """Provides workers, and ends their processes after the body."""
    workers = LocalWorkers()
    try:
        yield workers
    finally:
        workers.close()


def _processes() -> int:
    return min(len(os.sched_getaffinity(0)), _MAX_PROCESSES)


def _start() -> ProcessPoolExecutor:
    # Processes that were forked could not use TensorFlow if this one has.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(_processes(), mp_context=context, initializer=_prepare_process)


def _prepare_process() -> None:
    # An interrupt also reaches these processes; the one that started them ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Images are decoded on the CPU, one after the other. Each process would otherwise reserve GPU memory.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
