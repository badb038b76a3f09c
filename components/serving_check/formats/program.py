"""Converts an exported model and compares the results with it; runs as a program of its own.

A converter that crashes then does not end the pipeline's process, and its memory is freed. Usage: python -m
components.serving_check.formats.program REQUEST_JSON. The request is a `Request` as JSON. The program writes
the converted models and `ANSWER` to the request's folder.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components import tfrecords
from components.serving_check.formats import agreement, conversion, runtimes
from datasets import features
from models.data.images import at_a_time
from settings.export import Format

ANSWER = "answer.json"
# Name of the SavedModel in the answer, and that of its network on one view where it averages several.
SAVED_MODEL, ONE_VIEW = "saved_model", "saved_model_one_view"
# With this number of images, an agreement of 99.5 % has a standard error of 0.07 %. More images would take
# long with a large network.
_MOST_IMAGES = 10_000
_CALIBRATION_IMAGES = 256
_BATCH = 64  # images that the SavedModel predicts at a time, or fewer if they are large


@dataclasses.dataclass(frozen=True)
class Request:
    """What to convert.

    Attributes:
      model_directory: the SavedModel.
      directory: existing folder for the models and the answer.
      formats: the formats.
      views: number of views that the SavedModel averages.
      test_files: TFRecord files of the examples on which the models are compared.
      calibration_files: TFRecord files of the examples that calibrate models of integers.
    """

    model_directory: str
    directory: str
    formats: tuple[Format, ...]
    views: int
    test_files: tuple[str, ...]
    calibration_files: tuple[str, ...]


def answer(request: Request) -> dict[str, Any]:
    """Converts a model and compares the results with it.

    Returns:
      `size`, the [height, width] of the network's input in pixels; `images`, the number of images that were
      compared, of `available` in the test split; `problems`, format -> why it could not be converted or run;
      and `models`, name -> its `accuracy`, its `agreement` with the network of the SavedModel on one view,
      both from 0 to 1, the `milliseconds` of one image on one core, and its size in `bytes`. The names are
      `SAVED_MODEL`, `ONE_VIEW` if the SavedModel averages several views, and those of the formats that have
      no problem.
    """
    loaded = tf.saved_model.load(request.model_directory)
    network = conversion.Network(loaded)
    models, places = {SAVED_MODEL: _as_served(loaded)}, {SAVED_MODEL: request.model_directory}
    if request.views > 1:
        models[ONE_VIEW], places[ONE_VIEW] = _one_view(network), request.model_directory
    batch = at_a_time(network.size, _BATCH)
    calibration = tfrecords.read(request.calibration_files).take(_CALIBRATION_IMAGES)
    images = np.concatenate([images for images, _ in _read(loaded, calibration, batch)])
    problems = {}
    for name in request.formats:
        print(f"converting the model to {name}", flush=True)
        file = Path(request.directory) / conversion.FILES[name]
        try:
            conversion.convert(network, name, file, images)
            predict = runtimes.load(name, file)
            predict(images[:1])
        except Exception as error:  # Converters and runtimes raise exceptions of many types.
            problems[name] = _first_line(error)
        else:
            models[name], places[name] = predict, str(file)
    records = tfrecords.read(request.test_files)
    available = int(records.reduce(np.int64(0), lambda count, _: count + 1))
    test = _read(loaded, records.shard(-(-available // _MOST_IMAGES), 0), batch)
    reference = ONE_VIEW if request.views > 1 else SAVED_MODEL
    total, scores = agreement.count(models, reference, test)
    milliseconds = agreement.measure_milliseconds(models, images)
    return {
        "size": network.size,
        "images": total,
        "available": available,
        "problems": problems,
        "models": {
            name: {
                "accuracy": score.correct / total,
                "agreement": score.agreeing / total,
                "milliseconds": milliseconds[name],
                "bytes": _bytes(places[name]),
            }
            for name, score in scores.items()
        },
    }


def _as_served(loaded: Any) -> runtimes.Predict:
    signature = loaded.signatures["serve_images"]
    return lambda images: signature(images=tf.constant(images))["probabilities"].numpy()


def _one_view(network: conversion.Network) -> runtimes.Predict:
    function = network.function(batch=None)
    return lambda images: function(tf.constant(images))["probabilities"].numpy()


def _read(loaded: Any, records: tf.data.Dataset, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads what the network sees of the images of examples, and their labels."""
    spec = {
        features.IMAGE: tf.io.FixedLenFeature([], tf.string),
        features.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }
    for serialized in records.batch(batch).prefetch(1):
        parsed = tf.io.parse_example(serialized, spec)
        yield loaded.pixels(parsed[features.IMAGE]).numpy(), parsed[features.LABEL].numpy()


def _bytes(path: str) -> int:
    """Returns the size of a file, or of all files of a folder."""
    if not tf.io.gfile.isdir(path):
        return tf.io.gfile.stat(path).length
    return sum(_bytes(posixpath.join(path, name)) for name in tf.io.gfile.listdir(path))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def main() -> None:
    """Reads the request and writes the answer."""
    # One core for the SavedModel, as for the other formats, which compute at the same time.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    values = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    request = Request(**values)
    (Path(request.directory) / ANSWER).write_text(json.dumps(answer(request)), encoding="utf-8")


if __name__ == "__main__":
    main()
