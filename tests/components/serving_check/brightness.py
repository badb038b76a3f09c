"""A tiny model with all signatures of an exported one, and examples for it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

SIDE = 4
NAMES = ["dark", "bright"]
_BYTES = [tf.TensorSpec([None], tf.string, name="image_bytes")]
_IMAGES = [tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8, name="images")]
_SIGNATURES = (
    *("serving_default", "serve_image_bytes", "serve_images"),
    *("describe_image_bytes", "describe_images", "explain_image_bytes"),
)


def png(brightness: int) -> bytes:
    """Returns a uniform image, from 0 (black) to 255 (white)."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), brightness, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_examples(path: Path, values: Sequence[int]) -> str:
    """Writes an example for each brightness, whose label says whether it is bright."""
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for value in values:
            example = tf.train.Example()
            example.features.feature["image"].bytes_list.value.append(png(value))
            example.features.feature["label"].int64_list.value.append(int(value > 127))
            writer.write(example.SerializeToString())
    return str(path)


class Brightness(tf.Module):
    """Classifies images by their mean.

    Args:
      offset: added to what `serve_image_bytes` computes, so that it disagrees with the others.
      forgets: whether an empty batch makes it answer differently afterwards.
    """

    def __init__(self, offset: float = 0.0, forgets: bool = False) -> None:
        super().__init__()
        self._offset = offset
        self._forgets = forgets
        self._lost = tf.Variable(0.0)

    def save(self, directory: Path) -> str:
        signatures = {name: getattr(self, name) for name in _SIGNATURES}
        tf.saved_model.save(self, str(directory), signatures=signatures)
        return str(directory)

    @tf.function(input_signature=_BYTES, autograph=False)
    def pixels(self, image_bytes: tf.Tensor) -> tf.Tensor:
        def decode(encoded: tf.Tensor) -> tf.Tensor:
            image = tf.io.decode_image(encoded, 3, expand_animations=False)[:SIDE, :SIDE]
            return tf.ensure_shape(image, [SIDE, SIDE, 3])

        return tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec([SIDE, SIDE, 3], tf.uint8))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")], autograph=False)
    def serving_default(self, examples: tf.Tensor) -> dict[str, Any]:
        parsed = tf.io.parse_example(examples, {"image": tf.io.FixedLenFeature([], tf.string)})
        return self._predict(self.pixels(parsed["image"]))

    @tf.function(input_signature=_BYTES, autograph=False)
    def serve_image_bytes(self, image_bytes: tf.Tensor) -> dict[str, Any]:
        return self._predict(self.pixels(image_bytes), self._offset)

    @tf.function(input_signature=_IMAGES, autograph=False)
    def serve_images(self, images: tf.Tensor) -> dict[str, Any]:
        if self._forgets:
            with tf.control_dependencies([self._lost.assign_add(tf.cast(tf.size(images) == 0, tf.float32))]):
                images = tf.identity(images)
        return self._predict(images, 0.3 * self._lost)

    @tf.function(input_signature=_BYTES, autograph=False)
    def describe_image_bytes(self, image_bytes: tf.Tensor) -> dict[str, Any]:
        return self._describe(self.pixels(image_bytes))

    @tf.function(input_signature=_IMAGES, autograph=False)
    def describe_images(self, images: tf.Tensor) -> dict[str, Any]:
        return self._describe(images)

    @tf.function(input_signature=_BYTES, autograph=False)
    def explain_image_bytes(self, image_bytes: tf.Tensor) -> dict[str, Any]:
        images = self.pixels(image_bytes)
        return {"image": images, "heat": tf.cast(images[..., 0], tf.float32) / 255}

    def _predict(self, images: tf.Tensor, offset: float | tf.Tensor = 0.0) -> dict[str, Any]:
        mean = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2, 3]) / 255
        bright = tf.clip_by_value(mean + offset, 0, 1)
        probabilities = tf.stack([1 - bright, bright], 1)
        class_id = tf.argmax(probabilities, 1)
        best = tf.math.top_k(probabilities, 2)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "class_name": tf.gather(NAMES, class_id),
            "top_k_names": tf.gather(NAMES, best.indices),
            "top_k_probabilities": best.values,
        }

    def _describe(self, images: tf.Tensor) -> dict[str, Any]:
        mean = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2, 3]) / 255
        answer = {k: v for k, v in self._predict(images).items() if not k.startswith("top")}
        statistics = {"brightness": mean, "contrast": 2 * mean, "sharpness": 3 * mean}
        return {**answer, **statistics, "features": tf.stack([mean, -mean, 0 * mean], 1)}
