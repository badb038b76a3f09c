"""The served model: Transform's graph and the network in one SavedModel."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf
import tensorflow_transform as tft

from datasets import features
from models import preprocessing

# In the SavedModel, where servers leave files alone that they do not know: the class names, one a line.
LABELS_FILE = "assets.extra/labels.txt"
# Signature -> the name of its only input.
SIGNATURES = {"serving_default": "examples", "serve_image_bytes": "image_bytes", "serve_images": "images"}


def export(
    model: keras.Model, transform: tft.TFTransformOutput, class_names: Sequence[str], directory: str
) -> None:
    """Writes a SavedModel that any server can load, with three signatures.

    `serving_default(examples)`: serialized tf.train.Example with an `image`, string [batch].
    `serve_image_bytes(image_bytes)`: encoded PNG or JPEG, string [batch]; TensorFlow Serving decodes
    base64 for inputs whose name ends in `_bytes`.
    `serve_images(images)`: uint8 [batch, height, width, 3] of any height and width.

    Each returns `probabilities` float32 [batch, classes], `class_id` int64 [batch] and `class_name`
    string [batch]. Images of another size are resized as in training. Beside the signatures the loaded
    object has `logits(images)`, the network alone: float32 [batch, height, width, 3] in [0, 1] to
    [batch, classes], for whoever wants its gradients. `assets.extra/labels.txt` holds
    the class names.

    Args:
      model: from float32 [batch, height, width, 3] in [0, 1] to logits [batch, classes].
      transform: the output of Transform that `model` was trained behind.
      class_names: by label; as many as `model` has logits.
      directory: to be made, replaced if there is one already; after a failure there is none.

    Raises:
      ValueError: there are more or fewer names than logits.
    """
    if len(class_names) != model.output_shape[-1]:
        raise ValueError(
            f"expected {model.output_shape[-1]} class names, found {len(class_names)}: {class_names}"
        )
    served = _Served(model, transform, class_names)
    signatures = {
        "serving_default": served.serve_examples,
        "serve_image_bytes": served.serve_image_bytes,
        "serve_images": served.serve_images,
    }
    # In its place at once: a bucket has no folders that could be renamed, each file would be copied.
    if tf.io.gfile.exists(directory):
        tf.io.gfile.rmtree(directory)
    try:
        tf.saved_model.save(served, directory, signatures=signatures)
        tf.io.gfile.makedirs(f"{directory}/{LABELS_FILE.partition('/')[0]}")
        with tf.io.gfile.GFile(f"{directory}/{LABELS_FILE}", "w") as file:
            file.write("".join(f"{name}\n" for name in class_names))
    except BaseException:
        if tf.io.gfile.exists(directory):
            tf.io.gfile.rmtree(directory)
        raise


class _Served(tf.Module):
    """The network and Transform's layer, side by side: one is Keras 3, the other is not."""

    def __init__(
        self, model: keras.Model, transform: tft.TFTransformOutput, class_names: Sequence[str]
    ) -> None:
        super().__init__(name="served")
        # Another model of the same layers: without the optimizer and its two values per parameter.
        self._network = keras.Model(model.inputs, model.outputs[0])
        self._transform = transform.transform_features_layer()
        self._class_names = tf.constant(list(class_names))
        height, width, _ = model.input_shape[1:]
        self._size = (height, width)
        self.logits = tf.function(
            lambda images: tf.cast(self._network(images, training=False), tf.float32),
            input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="images")],
            autograph=False,
        )

    # Without AutoGraph, as there is nothing for it to rewrite; it would take 10 s to find out.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")], autograph=False)
    def serve_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(examples, {features.IMAGE: tf.io.FixedLenFeature([], tf.string)})
        return self._predict(self._transform(parsed)[features.IMAGE])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def serve_image_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._predict(self._transform({features.IMAGE: image_bytes})[features.IMAGE])

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, preprocessing.CHANNELS], tf.uint8, name="images")],
        autograph=False,
    )
    def serve_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._predict(preprocessing.scale(preprocessing.resize(images, self._size)))

    def _predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(self.logits(images))
        class_id = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "class_name": tf.gather(self._class_names, class_id),
        }
