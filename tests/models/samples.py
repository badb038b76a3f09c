"""Small made-up images, examples and settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from datasets import features
from models.data.images import Images
from settings.training import TrainingSettings

SIDE = 16  # of the images after Transform
CLASS_NAMES = ["blue", "green", "red"]


def colored(count: int, side: int, seed: int = 0) -> Images:
    """Noisy images whose class is their colour: any network learns them in a few steps."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASS_NAMES)
    pixels = generator.integers(0, 120, (count, side, side, 3))
    pixels[np.arange(count), :, :, 2 - labels] += 100
    return Images(pixels.astype(np.uint8), labels.astype(np.int64))


def small_settings(**sections: Any) -> TrainingSettings:
    """Settings that train in a second; `trainer={...}` and the like replace single fields."""
    values: dict[str, dict[str, Any]] = {
        "model": {"cnn": {"filters": (8, 8), "convolutions_per_block": 1, "dense_units": 0, "dropout": 0.0}},
        "augmentation": {"rotation_degrees": 0.0, "shift_fraction": 0.0, "flip": False},
        "trainer": {"epochs": 2, "batch_size": 16, "learning_rate": 0.01},
        "tuner": {"trials": 2, "epochs": 1, "batch_sizes": (8, 16)},
    }
    for name, fields in sections.items():
        values[name] = {**values[name], **fields}
    return TrainingSettings.model_validate({"seed": 1, **values})


def png(pixels: np.ndarray) -> bytes:
    return tf.io.encode_png(pixels).numpy()


def example(image: bytes, label: int | None = None) -> tf.train.Example:
    made = tf.train.Example()
    made.features.feature[features.IMAGE].bytes_list.value.append(image)
    if label is not None:
        made.features.feature[features.LABEL].int64_list.value.append(label)
    return made
