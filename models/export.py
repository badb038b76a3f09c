"""Exports the served model: a SavedModel with Transform's graph and the network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
import tensorflow_transform as tft

from datasets import features
from models import preprocessing
from settings.images import Color, ResizeMethod

# Path within the SavedModel of a file with the class names, one per line. Servers ignore the files of this
# folder.
LABELS_FILE = "assets.extra/labels.txt"
# The name of each signature, and the name of its only input.
SIGNATURES = {"serving_default": "examples", "serve_image_bytes": "image_bytes", "serve_images": "images"}


def export(
    model: keras.Model,
    transform: tft.TFTransformOutput,
    class_names: Sequence[str],
    directory: str,
    *,
    resize_method: ResizeMethod,
    background: Color,
) -> None:
    """Writes a SavedModel that any server can load, with three signatures.

    - `serving_default(examples)`: serialized tf.train.Example with an `image`, string [batch].
    - `serve_image_bytes(image_bytes)`: encoded PNG or JPEG, string [batch]; TensorFlow Serving decodes
      base64 for inputs whose name ends in `_bytes`.
    - `serve_images(images)`: uint8 [batch, height, width, 3] of any height and width; upright, and without
      transparency.

    Each signature returns `probabilities` float32 [batch, classes], `class_id` int64 [batch] and `class_name`
    string [batch]. Images of a different size than the network's input are resized as in training.

    In addition to the signatures, the loaded object has the function `logits(images)`, the network alone,
    from float32 [batch, height, width, 3] in [0, 1] to float32 [batch, classes]; its gradients can be
    computed. `assets.extra/labels.txt` holds the class names, one per line.

    Args:
      model: the network, from float32 [batch, height, width, 3] in [0, 1] to logits [batch, classes].
      transform: the output of Transform that `model` was trained on.
      class_names: names of the classes in the order of their labels, one per logit of `model`.
      directory: folder to write. An existing folder is replaced. If the export fails, the folder is removed.
      resize_method: how `transform` resizes images, the `method` of `preprocessing.resize`.
      background: colour of the margins of the method `pad`.

    Raises:
      ValueError: the number of class names is not the number of logits.
    """
    if len(class_names) != model.output_shape[-1]:
        raise ValueError(
            f"expected {model.output_shape[-1]} class names, found {len(class_names)}: {class_names}"
        )
    height, width, _ = model.input_shape[1:]
    resize = functools.partial(
        preprocessing.resize, size=(height, width), method=resize_method, background=background
    )
    served = _ServedModel(model, transform, class_names, resize)
    signatures = {
        "serving_default": served.serve_examples,
        "serve_image_bytes": served.serve_image_bytes,
        "serve_images": served.serve_images,
    }
    # Writes in place instead of renaming a finished folder: a bucket cannot rename folders, and would have to
    # copy every file.
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


class _ServedModel(tf.Module):
    """Combines the network, a Keras 3 model, with Transform's layer, which is not a Keras 3 layer."""

    def __init__(
        self,
        model: keras.Model,
        transform: tft.TFTransformOutput,
        class_names: Sequence[str],
        resize: Callable[[tf.Tensor], tf.Tensor],
    ) -> None:
        super().__init__(name="served")
        # A new model of the same layers does not have the optimizer, whose state is two values per parameter.
        self._network = keras.Model(model.inputs, model.outputs[0])
        self._transform = transform.transform_features_layer()
        self._class_names = tf.constant(list(class_names))
        self._resize = resize
        self.logits = tf.function(
            lambda images: tf.cast(self._network(images, training=False), tf.float32),
            input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="images")],
            autograph=False,
        )

    # AutoGraph is off because it has nothing to convert here, and would take 10 s to find that out.
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
        return self._predict(preprocessing.scale(self._resize(images)))

    def _predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(self.logits(images))
        class_id = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "class_name": tf.gather(self._class_names, class_id),
        }
