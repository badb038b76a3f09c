"""Runs a function on many chunks of work as a Beam pipeline, on any runner.

The arguments and results go through files, because the job of some runners must not be larger than 10 MB, and
because results have to come back to the process that started the job.
"""

from __future__ import annotations

import pickle
import posixpath
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from datasets import remote
from datasets.directory import DatasetError
from datasets.workers import Chunk, Result


class BeamWorkers:
    """The workers of a Beam runner, in the place of `datasets.workers.Workers`."""

    def __init__(self, arguments: Sequence[str], staging: str) -> None:
        self._arguments = arguments
        self._staging = staging
        self._jobs = 0

    def map(self, function: Callable[[Chunk], Result], chunks: Sequence[Chunk]) -> Iterator[Result]:
        """Applies a function to every chunk, as one Beam job.

        Args:
          function: a function of a module; it and its arguments and results are pickled.
          chunks: the arguments.

        Yields:
          The results, in the order of the chunks, when all are ready.

        Raises:
          DatasetError: the job failed.
        """
        self._jobs += 1
        folder = posixpath.join(self._staging, f"job-{self._jobs}")
        names = [posixpath.join(folder, f"{number:06d}") for number in range(len(chunks))]
        for name, chunk in zip(names, chunks, strict=True):
            _save(f"{name}.task", chunk)
        try:
            with beam.Pipeline(options=PipelineOptions(list(self._arguments))) as pipeline:
                _ = (
                    pipeline
                    | "ListTasks" >> beam.Create(names, reshuffle=False)
                    | "Distribute" >> beam.Reshuffle()
                    | "Work" >> beam.Map(_work, function)
                )
        except RuntimeError as error:  # runners wrap the errors of workers
            raise DatasetError(f"the Beam job failed: {error}") from None
        for name in names:
            yield _load(f"{name}.result")


@contextmanager
def start(arguments: Sequence[str], out: str) -> Iterator[BeamWorkers]:
    """Provides the workers of a Beam runner.

    Args:
      arguments: the command line of Beam.
      out: URI or path of a folder beside which the files of the jobs are kept until the end of the body.
    """
    staging = f"{out.rstrip('/')}.jobs-{uuid.uuid4().hex[:8]}"
    try:
        yield BeamWorkers(arguments, staging)
    finally:
        remote.remove(staging)


def _work(name: str, function: Callable[[Any], Any]) -> None:
    _save(f"{name}.result", function(_load(f"{name}.task")))


def _save(path: str, value: Any) -> None:
    with FileSystems.create(path) as file:
        file.write(pickle.dumps(value))


def _load(path: str) -> Any:
    with FileSystems.open(path) as file:
        return pickle.loads(file.read())
