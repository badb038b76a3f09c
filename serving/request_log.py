"""Keeps what the drift test needs to know of a share of the requests, as Parquet files by day.

The rows of `FOLDER/<model>/date=YYYY-MM-DD/*.parquet`, one per image, have the columns

- `time` timestamp[us, UTC], `model` string, `version` int64, and `request` string, the same for the images of
  one request;
- `brightness`, `contrast`, `sharpness` float32: statistics of the network's input;
- `features` fixed-size list of float32: the network's last features;
- `confidence` float32 in [0, 1], `class_id` int32, `class_name` string: the answer;
- `image` binary, if images are kept: the encoded image, or the pixels as PNG.
"""

from __future__ import annotations

import datetime
import io
import logging
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from serving import atomic_file, values
from serving.metrics import Metrics
from serving.saved_model import (
    BYTES_INPUT,
    BYTES_SIGNATURE,
    DEFAULT_SIGNATURE,
    EXAMPLES_INPUT,
    PIXELS_INPUT,
    PIXELS_SIGNATURE,
    Model,
)

_LOG = logging.getLogger("serving")
_STATISTICS = ("brightness", "contrast", "sharpness")
_OUTPUTS = {*_STATISTICS, "features", "probabilities", "class_id", "class_name"}
# Signature of a request -> (the signature that describes its images, the input of that signature).
_DESCRIBE = {
    DEFAULT_SIGNATURE: ("describe_image_bytes", BYTES_INPUT),
    BYTES_SIGNATURE: ("describe_image_bytes", BYTES_INPUT),
    PIXELS_SIGNATURE: ("describe_images", PIXELS_INPUT),
}
# What waits to be described is bounded, in images and bytes, and is described in batches.
_MOST_WAITING_IMAGES, _MOST_WAITING_BYTES, _BATCH = 512, 64 * 2**20, 64
# Seconds for which a request waits for others, while its own answer goes out.
_GATHER_SECONDS = 0.25
# A file is written when its rows are this many, or its first row is this old. A kill loses the other rows.
_FILE_ROWS, _FILE_SECONDS = 1000, 15.0
# Outcomes that /metrics counts.
WRITTEN, QUEUE_FULL, LIMIT, FAILED = "written", "queue_full", "limit", "failed"


@dataclass(frozen=True)
class LogOptions:
    """What is kept of the requests.

    Attributes:
      folder: folder of the log.
      fraction: share of the requests that are kept, in (0, 1].
      limit: most rows of a model and day.
      images: whether to keep the images, too.
    """

    folder: Path
    fraction: float
    limit: int = 100_000
    images: bool = False


@dataclass(frozen=True)
class _Request:
    """The images of a request that was answered, and the signature that describes them."""

    name: str
    model: Model
    signature: str
    images: np.ndarray  # object [batch], or uint8 [batch, height, width, 3]
    time: datetime.datetime
    is_examples: bool

    @property
    def kind(self) -> tuple[str, Model, str, datetime.date, tuple[int, ...]]:
        """What has to be equal for two requests to be described together."""
        return (self.name, self.model, self.signature, self.time.date(), self.images.shape[1:])


@dataclass
class _Buffer:
    """Rows that are not written yet; `since` is when the first of them came, by the monotonic clock."""

    tables: list[pa.Table]
    since: float

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.tables)


class RequestLog:
    """Describes and writes requests in a thread of its own.

    `offer` is called in the thread of the event loop. It neither waits nor fails: what the thread cannot take
    is left out and counted.

    Args:
      options: what is kept.
      metrics: counts the images.

    Raises:
      OSError: the folder cannot be made.
    """

    def __init__(self, options: LogOptions, metrics: Metrics) -> None:
        self._options = options
        self._metrics = metrics
        self._waiting: list[_Request] = []
        self._waiting_images = self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._buffers: dict[tuple[str, int, datetime.date], _Buffer] = {}
        self._rows: dict[tuple[str, datetime.date], int] = {}  # written or in a buffer
        self._problem = ""
        options.folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._work, name="request log")

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Writes what has been taken, and ends the thread."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self._thread.join()

    def check(self, name: str, model: Model) -> None:
        """Says if the requests to a version cannot be logged."""
        if not any(_describes(model, signature) for signature in _DESCRIBE):
            _LOG.warning(
                "model %s: requests to version %s are not logged: it was exported without the signatures "
                "describe_image_bytes and describe_images",
                name,
                model.version,
            )

    def offer(self, name: str, model: Model, signature: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Takes a request that was answered, if it is one of the share that is kept.

        Args:
          name: name of the model.
          model: the version that answered.
          signature: signature of the request.
          inputs: its inputs, which must not change afterwards.
        """
        if random.random() >= self._options.fraction or not _describes(model, signature):
            return
        describe, _ = _DESCRIBE[signature]
        (images,) = inputs.values()
        now = datetime.datetime.now(datetime.timezone.utc)
        request = _Request(name, model, describe, images, now, EXAMPLES_INPUT in inputs)
        size = sum(map(len, images)) if images.dtype == object else images.nbytes
        with self._changed:
            if (
                self._waiting_images + len(images) > _MOST_WAITING_IMAGES
                or self._waiting_bytes + size > _MOST_WAITING_BYTES
            ):
                self._count(request, QUEUE_FULL, len(images))
                return
            self._waiting.append(request)
            self._waiting_images += len(images)
            self._waiting_bytes += size
            self._changed.notify()

    def _work(self) -> None:
        stopped = False
        while not stopped:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping.is_set(), _FILE_SECONDS / 4)
            # Requests that follow are described in the same batch. After the stop, none follow.
            self._stopping.wait(_GATHER_SECONDS if self._waiting else 0)
            stopped = self._stopping.is_set()
            with self._changed:
                taken, self._waiting = self._waiting, []
                self._waiting_images = self._waiting_bytes = 0
            for batch in _batches(taken):
                try:
                    self._describe(batch)
                except Exception as error:  # the log must not disturb anything
                    self._fail(
                        batch[0].name, batch[0].model.version, sum(len(r.images) for r in batch), error
                    )
            self._flush(everything=stopped)

    def _describe(self, batch: Sequence[_Request]) -> None:
        """Adds the rows of requests of one kind to a buffer."""
        first = batch[0]
        name, version, day = first.name, first.model.version, first.time.date()
        written = self._written(name, day)
        room = max(0, self._options.limit - written)
        images = np.concatenate([_encoded(request) for request in batch])
        self._count(first, LIMIT, len(images) - len(images[:room]))
        images = images[:room]
        if not len(images):
            return
        _, input_name = _DESCRIBE[PIXELS_SIGNATURE if images.ndim > 1 else BYTES_SIGNATURE]
        # A request may have more images than are computed together.
        parts = [
            first.model.run(first.signature, {input_name: images[start : start + _BATCH]})
            for start in range(0, len(images), _BATCH)
        ]
        outputs = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        identities = [
            identity
            for request in batch
            for identity in [(request.time, uuid.uuid4().hex)] * len(request.images)
        ]
        table = _rows(name, version, identities[:room], outputs)
        if self._options.images:
            encoded = [_png(image) for image in images] if images.ndim > 1 else list(images)
            table = table.append_column("image", pa.array(encoded, pa.binary()))
        buffer = self._buffers.setdefault((name, version, day), _Buffer([], time.monotonic()))
        buffer.tables.append(table)
        self._rows[name, day] = written + len(images)

    def _written(self, name: str, day: datetime.date) -> int:
        """Returns the number of rows of a model and day, those of an earlier server included."""
        if (name, day) not in self._rows:
            self._rows = {key: rows for key, rows in self._rows.items() if key[0] != name}  # earlier days
            files = self._folder(name, day).glob("[!.]*.parquet")
            self._rows[name, day] = sum(pq.ParquetFile(file).metadata.num_rows for file in files)
        return self._rows[name, day]

    def _folder(self, name: str, day: datetime.date) -> Path:
        return self._options.folder / name / f"date={day.isoformat()}"

    def _flush(self, everything: bool) -> None:
        now = time.monotonic()
        for key, buffer in list(self._buffers.items()):
            if everything or buffer.rows >= _FILE_ROWS or now - buffer.since >= _FILE_SECONDS:
                del self._buffers[key]
                name, version, day = key
                try:
                    _write(self._folder(name, day), version, pa.concat_tables(buffer.tables))
                except Exception as error:  # such as a full disk
                    self._fail(name, version, buffer.rows, error)
                else:
                    self._problem = ""
                    self._metrics.logged(name, version, WRITTEN, buffer.rows)

    def _count(self, request: _Request, outcome: str, images: int) -> None:
        self._metrics.logged(request.name, request.model.version, outcome, images)

    def _fail(self, name: str, version: int, images: int, error: Exception) -> None:
        self._metrics.logged(name, version, FAILED, images)
        if str(error) != self._problem:
            _LOG.error("model %s: %s images of requests could not be logged: %s", name, images, error)
        self._problem = str(error)


def _describes(model: Model, signature: str) -> bool:
    """Returns whether a version can describe the images of requests to a signature."""
    if signature not in _DESCRIBE:
        return False
    describe, input_name = _DESCRIBE[signature]
    if model.inputs.get(describe, {}).keys() != {input_name}:
        return False
    return model.outputs[describe].keys() >= _OUTPUTS


def _batches(requests: Sequence[_Request]) -> Iterator[list[_Request]]:
    """Forms batches of one kind; a request that is larger than a batch is one alone."""
    kinds: dict[tuple, list[_Request]] = defaultdict(list)
    for request in requests:
        batch = kinds[request.kind]
        if batch and sum(len(each.images) for each in batch) + len(request.images) > _BATCH:
            yield kinds.pop(request.kind)
        kinds[request.kind].append(request)
    yield from kinds.values()


def _encoded(request: _Request) -> np.ndarray:
    """Returns the images of a request; those in serialized tf.train.Example are taken out of them."""
    if not request.is_examples:
        return request.images
    encoded = [values.image_of(example) or b"" for example in request.images]
    return np.array(encoded, dtype=object)


def _rows(
    name: str,
    version: int,
    identities: Sequence[tuple[datetime.datetime, str]],
    outputs: Mapping[str, np.ndarray],
) -> pa.Table:
    size = len(identities)
    times, requests = zip(*identities, strict=True)
    features = outputs["features"].astype(np.float32)
    return pa.table(
        {
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "model": pa.array([name] * size, pa.string()),
            "version": pa.array([version] * size, pa.int64()),
            "request": pa.array(requests, pa.string()),
            **{key: pa.array(outputs[key], pa.float32()) for key in _STATISTICS},
            "confidence": pa.array(outputs["probabilities"].max(axis=1), pa.float32()),
            "class_id": pa.array(outputs["class_id"].astype(np.int32), pa.int32()),
            "class_name": pa.array([each.decode() for each in outputs["class_name"]], pa.string()),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1]),
        }
    )


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _write(folder: Path, version: int, table: pa.Table) -> None:
    """Writes a file, which has its name only when it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{version}-{time.time_ns()}-{uuid.uuid4().hex[:8]}.parquet"
    with atomic_file.replacing(path) as part, part.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
