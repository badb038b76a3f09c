"""Small synthetic images, examples and settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from datasets import features
from models.data.images import Images
from settings import search
from settings.images import Color, ResizeMethod
from settings.training import TrainingSettings

SIDE = 16  # height and width of the images after Transform, in pixels
# How Transform brings images of other proportions to that size, and the colour of the margins.
RESIZE: ResizeMethod = "pad"
BACKGROUND: Color = (200, 20, 60)
CLASS_NAMES = ["blue", "green", "red"]


def colored(count: int, side: int, seed: int = 0) -> Images:
    """Returns noisy images whose class is their colour, which any network learns in a few steps."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASS_NAMES)
    pixels = generator.integers(0, 120, (count, side, side, 3))
    pixels[np.arange(count), :, :, 2 - labels] += 100
    return Images(pixels.astype(np.uint8), labels.astype(np.int64))


def small_settings(**sections: Any) -> TrainingSettings:
    """Returns settings that train in a second.

    Args:
      sections: for each section of the settings, such as `trainer`, the fields to override.
    """
    values: dict[str, dict[str, Any]] = {
        "model": {"cnn": {"filters": (8, 8), "convolutions_per_block": 1, "dense_units": 0, "dropout": 0.0}},
        "augmentation": {"rotation_degrees": 0.0, "shift_fraction": 0.0, "flip": False},
        "trainer": {"epochs": 2, "batch_size": 16, "learning_rate": 0.01},
        "tuner": {"trials": 2, "epochs": 1, "space": {**search.DEFAULT, "trainer.batch_size": (8, 16)}},
    }
    for name, fields in sections.items():
        values[name] = {**values[name], **fields}
    return TrainingSettings.model_validate({"seed": 1, **values})


def png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [height, width, 3] as PNG."""
    return tf.io.encode_png(pixels).numpy()


def example(image: bytes, label: int | None = None) -> tf.train.Example:
    """Returns a raw example; without a label, as in a request to the served model."""
    result = tf.train.Example()
    result.features.feature[features.IMAGE].bytes_list.value.append(image)
    if label is not None:
        result.features.feature[features.LABEL].int64_list.value.append(label)
    return result
