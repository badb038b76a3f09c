"""Compares models of several formats with the SavedModel, image by image, and measures how fast they are."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from concurrent import futures

import numpy as np

from components.serving_check.formats.runtimes import Predict

_PROGRESS_EVERY = 1000  # images
# Each model takes this number of turns, and predicts this number of single images in each. The first images
# of a turn are not measured, because the processor's caches hold the model before.
_TURNS, _CALLS, _WARM_UP = 5, 25, 5


@dataclasses.dataclass
class Score:
    """What a model answered.

    Attributes:
      agreeing: number of images for which its most probable class is that of the reference.
      correct: number of images for which its most probable class is the label.
    """

    agreeing: int = 0
    correct: int = 0


def count(
    models: Mapping[str, Predict], reference: str, batches: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[int, dict[str, Score]]:
    """Counts for how many images models answer as one of them does, and correctly.

    The models compute at the same time, each in a thread of its own.

    Args:
      models: name -> model.
      reference: name of the model with which the others are compared.
      batches: (uint8 [batch, height, width, 3], labels int64 [batch]) each.

    Returns:
      (the number of images, name -> what the model answered).
    """
    total, scores = 0, {name: Score() for name in models}
    with futures.ThreadPoolExecutor(len(models)) as pool:
        for images, labels in batches:
            tasks = {name: pool.submit(predict, images) for name, predict in models.items()}
            answers = {name: task.result().argmax(axis=1) for name, task in tasks.items()}
            for name, answered in answers.items():
                scores[name].agreeing += int(np.sum(answered == answers[reference]))
                scores[name].correct += int(np.sum(answered == labels))
            if (total + len(labels)) // _PROGRESS_EVERY > total // _PROGRESS_EVERY:
                print(f"compared the formats on {total + len(labels):,} images", flush=True)
            total += len(labels)
    return total, scores


def measure_milliseconds(models: Mapping[str, Predict], images: np.ndarray) -> dict[str, float]:
    """Measures how long models take for a single image.

    Args:
      models: name -> model.
      images: at least one image, uint8 [count, height, width, 3].

    Returns:
      Name -> milliseconds, the median of 100 calls. The models take turns, so that other work on the machine
      slows all of them down.
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_TURNS):
        for name, predict in models.items():
            for call in range(_CALLS):
                image = images[call % len(images)][np.newaxis]
                start = time.perf_counter()
                predict(image)
                if call >= _WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * float(np.median(values)) for name, values in seconds.items()}
