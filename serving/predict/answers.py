"""Answers images with a pushed model, in batches."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from serving import values
from serving.errors import RequestError
from serving.predict.images import Image, Unread
from serving.saved_model import BYTES_INPUT, BYTES_SIGNATURE, LABELS_FILE, Model

BATCH = 64  # images
# Pixels that are decoded together, and those of the largest image; see `serving.server --max-pixels`.
_BATCH_PIXELS = 32_000_000
_MAX_PIXELS = 100_000_000
# Bytes of files that are in memory together for a batch, unless a single file has more.
BATCH_BYTES = 2**25
# While one batch is computed, others are read and decoded. More threads were not faster on two cores.
_THREADS = 2
_WAITING = 2  # batches beyond those that are worked on
# The model's message names the position of the image in the request, which has only one.
_POSITION = re.compile(r"image \d+ of \d+ ")

_LIST_OF_FLOATS = pa.list_(pa.float32())
_COLUMNS = (
    ("path", pa.string()),
    ("record", pa.int64()),
    ("id", pa.string()),
    ("class_name", pa.string()),
    ("class_id", pa.int64()),
    ("confidence", pa.float32()),
    ("abstained", pa.bool_()),
    ("top_k_names", pa.list_(pa.string())),
    ("top_k_probabilities", _LIST_OF_FLOATS),
    ("probabilities", _LIST_OF_FLOATS),
    ("prediction_set", pa.list_(pa.string())),
    ("error", pa.string()),
)
CLASS_NAMES = "class_names"  # key of the schema's metadata


def schema(class_names: Sequence[str]) -> pa.Schema:
    """Returns the columns of the answers.

    - `path` string: the file of the image; `-` for standard input.
    - `record` int64, `id` string: position of the record in a TFRecord file, from 0, and its feature `id`.
    - `class_name` string, `class_id` int64, `confidence` float32 in [0, 1]: the most probable class.
    - `abstained` bool: whether the model finds no class probable enough; `class_name` is empty then.
    - `top_k_names` and `top_k_probabilities`, lists of k: the most probable classes, best first.
    - `probabilities`, list of float32: of all classes, in the order of their ids.
    - `prediction_set`, list of names: the classes that may be the right one; null if the model has none.
    - `error` string: why there is no answer. The columns of the answer are null then.

    Args:
      class_names: names of the classes in the order of their ids, which become metadata of the schema.
    """
    return pa.schema(_COLUMNS, {CLASS_NAMES: json.dumps(list(class_names))})


class _Answer(NamedTuple):
    """What the model says of an image.

    Attributes:
      class_id: the most probable class.
      abstained: whether the model is unsure.
      probabilities: float32 [classes].
      best: int64 [k], the most probable classes, best first.
      held: bool [classes], the classes that may be the right one; None if the model does not say so.
    """

    class_id: int
    abstained: bool
    probabilities: np.ndarray
    best: np.ndarray
    held: np.ndarray | None


class Answerer:
    """Answers images with a model.

    Attributes:
      schema: columns of the answers, see the function `schema`.
    """

    def __init__(self, model: Model, top: int) -> None:
        """Checks that a model answers encoded images with named classes.

        Args:
          model: the model.
          top: number of classes to name for each image, 1 or more; at most all are named.

        Raises:
          ValueError: it does not.
        """
        if model.inputs.get(BYTES_SIGNATURE, {}).keys() != {BYTES_INPUT}:
            raise ValueError(
                f"expected a model with the signature {BYTES_SIGNATURE}({BYTES_INPUT}), found "
                f"{', '.join(sorted(model.inputs))}"
            )
        missing = {"probabilities", "class_id"} - model.outputs[BYTES_SIGNATURE].keys()
        if missing or not model.class_names:
            raise ValueError(
                f"expected a model that this pipeline pushed, whose {BYTES_SIGNATURE} returns probabilities "
                f"and class_id, with the names of the classes in {LABELS_FILE}; found none of "
                f"{', '.join(sorted(missing)) or LABELS_FILE}"
            )
        self.schema = schema(model.class_names)
        self._model = model
        self._names = np.array(model.class_names, dtype=object)
        self._top = min(top, len(model.class_names))

    def answer(self, images: Sequence[Image]) -> pa.RecordBatch:
        """Answers images. One that the model cannot decode does not keep the others from their answers.

        Args:
          images: the images; those with an `error` keep it.

        Returns:
          A row of `schema` for each image, in their order.
        """
        errors = [image.error for image in images]
        answers: list[_Answer | None] = [None] * len(images)
        for part in _split(images, errors):
            for position, outcome in zip(part, self._ask([images[i].encoded for i in part]), strict=True):
                if isinstance(outcome, str):
                    errors[position] = outcome
                else:
                    answers[position] = outcome

        def column(value: Callable[[_Answer], Any]) -> list[Any]:
            return [None if answer is None else value(answer) for answer in answers]

        columns: dict[str, list[Any]] = {
            "path": [_text(image.path) for image in images],
            "record": [image.record for image in images],
            "id": [image.id for image in images],
            "class_name": column(lambda answer: "" if answer.abstained else self._names[answer.class_id]),
            "class_id": column(lambda answer: answer.class_id),
            "confidence": column(lambda answer: answer.probabilities[answer.class_id]),
            "abstained": column(lambda answer: answer.abstained),
            "top_k_names": column(lambda answer: self._names[answer.best]),
            "top_k_probabilities": column(lambda answer: answer.probabilities[answer.best]),
            "probabilities": column(lambda answer: answer.probabilities),
            "prediction_set": column(
                lambda answer: None if answer.held is None else self._names[answer.held]
            ),
            "error": [error or None for error in errors],
        }
        arrays = [pa.array(columns[name], kind) for name, kind in _COLUMNS]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _ask(self, encoded: list[bytes]) -> list[_Answer | str]:
        """Returns the answer or the error of each image.

        An error of the model is one of the whole batch. Halves of the batch are asked until the images that
        cause errors are alone.
        """
        try:
            outputs = self._model.run(BYTES_SIGNATURE, {BYTES_INPUT: np.array(encoded, dtype=object)})
        except RequestError as error:
            if len(encoded) == 1:
                return [_POSITION.sub("", error.message)]
            middle = len(encoded) // 2
            return self._ask(encoded[:middle]) + self._ask(encoded[middle:])
        probabilities = outputs["probabilities"]
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : self._top]
        abstained = outputs.get("abstained", np.zeros(len(encoded), bool))
        sets = outputs.get("prediction_set", [None] * len(encoded))
        fields = outputs["class_id"].tolist(), abstained.tolist(), probabilities, best, sets
        return [_Answer(*each) for each in zip(*fields, strict=True)]


def answer_all(
    answerer: Answerer, images: Iterable[Unread]
) -> Generator[tuple[int, list[Image], pa.RecordBatch], None, None]:
    """Reads and answers images, several batches at a time.

    Args:
      answerer: answers the images.
      images: the images; a few hundred at most are taken before they are answered.

    Yields:
      For each batch, in the order of the images: its bytes, the images, and their answers.
    """

    def work(batch: list[Unread]) -> tuple[int, list[Image], pa.RecordBatch]:
        read = [image.read() for image in batch]
        return sum(image.size for image in batch), read, answerer.answer(read)

    pool = ThreadPoolExecutor(_THREADS)
    pending: deque[Future] = deque()
    try:
        for batch in _batches(images):
            pending.append(pool.submit(work, batch))
            if len(pending) == _THREADS + _WAITING:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # After an error or a signal, a thread may still be reading a file without an end.
        pool.shutdown(wait=False, cancel_futures=True)


def _batches(images: Iterable[Unread]) -> Iterator[list[Unread]]:
    """Yields batches of at most 64 images, and of limited bytes."""
    batch: list[Unread] = []
    size = 0
    for image in images:
        if batch and (len(batch) == BATCH or size + image.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += image.size
    if batch:
        yield batch


def _split(images: Sequence[Image], errors: list[str]) -> Iterator[list[int]]:
    """Yields the positions of images that are decoded together; those that are too large get an error."""
    part: list[int] = []
    pixels = 0
    for position, image in enumerate(images):
        if image.error:
            continue
        width, height = values.image_size(image.encoded)
        if width * height > _MAX_PIXELS:
            errors[position] = f"expected at most {_MAX_PIXELS:,} pixels, found more"
            continue
        if part and (len(part) == BATCH or pixels + width * height > _BATCH_PIXELS):
            yield part
            part, pixels = [], 0
        part.append(position)
        pixels += width * height
    if part:
        yield part


def _text(path: str) -> str:
    """Returns a path as text, also if the name of its file is no UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
