"""Answers images with a pushed model on the workers of Beam.

Workers do not have the main module of the process that starts the job. It must not define what they run.
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from datasets import remote, tfrecord
from datasets.directory import DatasetError
from pipeline import beam as beam_settings
from serving import saved_model
from serving.predict import answers, images
from serving.predict.images import Image
from settings.pipeline import PipelineConfig

PREFIX, SUFFIX = "answers", ".parquet"  # of the names of the files that are written
_IMAGES, _FAILED = "images", "failed"  # names of counters


def predict(
    sources: Sequence[str], model: str, out: str, config: PipelineConfig, top: int = 5
) -> tuple[int, int]:
    """Answers images, and writes the answers as Parquet files with the columns of `serving.predict`.

    Args:
      sources: paths or URIs of image files, TFRecord files and folders, and patterns.
      model: path or URI of a pushed version.
      out: path or URI of the folder to write, with the files `answers-*.parquet`.
      config: the runner of Beam and its options; `kubeflow.image` is the workers' image.
      top: number of classes to name for each image, 1 or more.

    Returns:
      The number of all images, and of those without an answer.

    Raises:
      DatasetError: a source names nothing, there is no model, `out` is not empty, or the job failed.
    """
    remote.check_destination(out)
    found = [_locate(source) for source in sources]
    schema = answers.schema(_class_names(model))
    arguments = beam_settings.arguments(config.beam, out, config.kubeflow.image)
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(arguments))
        _ = (
            pipeline
            | "ListSources" >> beam.Create(found, reshuffle=False)
            | "ListFiles" >> beam.FlatMap(_files)
            | "Distribute" >> beam.Reshuffle()
            | "Answer" >> beam.ParDo(_Answer(model, top))
            | "Write"
            >> WriteToParquet(posixpath.join(out, PREFIX), schema, codec="snappy", file_name_suffix=SUFFIX)
        )
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as error:  # runners wrap the errors of workers in their own
        remote.remove(out)
        raise DatasetError(f"the Beam job failed: {error}") from None
    except BaseException:
        remote.remove(out)
        raise
    return _count(result, _IMAGES), _count(result, _FAILED)


class _Answer(beam.DoFn):
    """Answers the images of files: path -> rows of the answers."""

    def __init__(self, model: str, top: int) -> None:
        self._model, self._top = model, top
        self._shared = Shared()  # the workers of a process use one model

    def setup(self) -> None:
        self._answerer = self._shared.acquire(lambda: _load(self._model, self._top))

    def start_bundle(self) -> None:
        self._batch: list[Image] = []
        self._bytes = 0

    def process(self, path: str) -> Iterator[dict[str, Any]]:
        for image in _read(path):
            if self._batch and self._bytes + len(image.encoded) > answers.BATCH_BYTES:
                yield from self._flush()
            self._batch.append(image)
            self._bytes += len(image.encoded)
            if len(self._batch) == answers.BATCH:
                yield from self._flush()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for row in self._flush():
            yield WindowedValue(row, window.max_timestamp(), [window])

    def _flush(self) -> list[dict[str, Any]]:
        if not self._batch:
            return []
        rows = self._answerer.answer(self._batch).to_pylist()
        Metrics.counter(__name__, _IMAGES).inc(len(rows))
        Metrics.counter(__name__, _FAILED).inc(sum(row["error"] is not None for row in rows))
        self.start_bundle()
        return rows


def _locate(source: str) -> tuple[str, str]:
    """Returns the pattern of the files that a source names, and the folder that it is, or an empty text."""
    folder = source.rstrip("/")
    # Beam finds a folder of this machine by its own name, too, and object stores may have objects whose names
    # end in a slash.
    is_folder = source.endswith("/") or (not remote.is_uri(source) and Path(source).is_dir())
    if not is_folder and _match(source, 1):
        return source, ""
    if _match(f"{folder}/**", 1):
        return f"{folder}/**", folder
    raise DatasetError(f"{source}: expected an image, a TFRecord file, a folder or a pattern; found nothing")


def _match(pattern: str, limit: int | None = None) -> list[str]:
    try:
        (match,) = FileSystems.match([pattern], [limit])
    except Exception as error:  # each file system raises its own errors
        raise DatasetError(f"cannot list {pattern}: {error}") from None
    return sorted(each.path for each in match.metadata_list)


def _files(found: tuple[str, str]) -> Iterator[str]:
    """Yields the files that a source names; those of folders only if they are images or TFRecords."""
    pattern, folder = found
    for path in _match(pattern):
        parts = path.removeprefix(f"{folder}/").split("/") if folder else []
        hidden = any(part.startswith(".") for part in parts)
        is_file = remote.is_uri(path) or images.size_of(path) is not None
        if not folder or (not hidden and is_file and images.kind_of(path)):
            yield path


def _read(path: str) -> Iterator[Image]:
    """Yields the images of a file; errors of reading are images with an `error`."""
    number: int | None = None
    try:
        with FileSystems.open(path) as file:  # decompresses files whose names end in .gz
            if images.kind_of(path) != "records":
                yield images.from_file(path, file.read(images.MAX_BYTES + 1))
                return
            number = 0
            for _, content in tfrecord.parse(file, path):
                yield images.from_example(path, number, content)
                number += 1
    except Exception as error:  # each file system raises its own errors
        yield Image(path, record=number, error=f"cannot be read: {error}")


def _class_names(model: str) -> list[str]:
    path = posixpath.join(model, saved_model.LABELS_FILE)
    try:
        with FileSystems.open(path) as file:
            return file.read().decode().splitlines()
    except Exception as error:  # each file system raises its own errors
        raise DatasetError(
            f"--model {model}: expected a pushed version, such as runs/serving/NAME/VERSION: {error}"
        ) from None


def _load(model: str, top: int) -> answers.Answerer:
    """Loads a model; one that is not on this machine is copied for as long as that takes."""
    if not remote.is_uri(model):
        return answers.Answerer(saved_model.Model(Path(model)), top)
    with tempfile.TemporaryDirectory() as folder:
        for name in remote.list_files(model):
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileSystems.open(posixpath.join(model, name)) as file:
                target.write_bytes(file.read())
        return answers.Answerer(saved_model.Model(Path(folder)), top)


def _count(result: Any, name: str) -> int:
    counters = result.metrics().query(MetricsFilter().with_namespace(__name__).with_name(name))["counters"]
    return sum(counter.result for counter in counters)
