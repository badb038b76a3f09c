"""Exports the served model: a SavedModel with Transform's graph and the network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
import tensorflow_transform as tft

from datasets import features
from models import attribution, decoding, preprocessing, statistics, views
from models.calibration import Calibration
from settings.export import ExportConfig
from settings.images import Color, ResizeMethod

# Path within the SavedModel of a file with the class names, one per line. Servers ignore the files of this
# folder.
LABELS_FILE = "assets.extra/labels.txt"
# The name of each signature, and the name of its only input.
PREDICTING = {"serving_default": "examples", "serve_image_bytes": "image_bytes", "serve_images": "images"}
DESCRIBING = {"describe_image_bytes": "image_bytes", "describe_images": "images"}
EXPLAINING = {"explain_image_bytes": "image_bytes"}
SIGNATURES = {**PREDICTING, **DESCRIBING, **EXPLAINING}
# Largest number of classes that a signature names with their probabilities.
MOST_NAMED = 5
_EXAMPLES = tf.TensorSpec([None], tf.string, name="examples")
_IMAGE_BYTES = tf.TensorSpec([None], tf.string, name="image_bytes")
_IMAGES = tf.TensorSpec([None, None, None, preprocessing.CHANNELS], tf.uint8, name="images")


def export(
    model: keras.Model,
    transform: tft.TFTransformOutput,
    class_names: Sequence[str],
    directory: str,
    *,
    resize_method: ResizeMethod,
    background: Color,
    config: ExportConfig,
    calibrated: Calibration | None = None,
) -> None:
    """Writes a SavedModel that any server can load.

    Three signatures predict:

    - `serving_default(examples)`: serialized tf.train.Example with an `image`, string [batch].
    - `serve_image_bytes(image_bytes)`: encoded PNG or JPEG, string [batch]; TensorFlow Serving decodes
      base64 for inputs whose name ends in `_bytes`.
    - `serve_images(images)`: uint8 [batch, height, width, 3] of any height and width; upright, and without
      transparency.

    Each returns `probabilities` float32 [batch, classes], `class_id` int64 [batch] and `class_name` string
    [batch], and the most probable classes, best first: `top_k_names` string [batch, k] and
    `top_k_probabilities` float32 [batch, k], where k is 5, or the number of classes if it is smaller. Images
    of a different size than the network's input are resized as in training. Images that cannot be decoded,
    or have more pixels than Transform's graph takes, raise an InvalidArgumentError, which names the position
    of the first of them.

    With `config.abstain_below` they also return `abstained` bool [batch], true where no class is that
    probable; `class_name` is empty there. With `config.prediction_set` they return `prediction_set` bool
    [batch, classes], true for the classes that may be the right one, always also for the most probable one.

    `describe_image_bytes(image_bytes)` and `describe_images(images)` return `probabilities`, `class_id` and
    `class_name` as those do, but always name a class; `features` float32 [batch, d], the input of the
    network's last layer; and `brightness`, `contrast` and `sharpness` of the network's input, float32
    [batch], see `statistics.measure`. `explain_image_bytes(image_bytes)` returns `image` uint8 [batch,
    height, width, 3], what the network sees, and `heat` float32 [batch, height, width] in [0, 1], how much
    each pixel contributes to the predicted class, see `attribution.integrated_gradients`.

    In addition to the signatures, the loaded object has two functions: `logits(images)`, the calibrated
    network alone, from float32 [batch, height, width, 3] in [0, 1] to float32 [batch, classes], whose
    gradients can be computed; and `pixels(image_bytes)`, from encoded images to what the network sees of
    them, uint8 [batch, height, width, 3] of the network's size. `assets.extra/labels.txt` holds the class
    names, one per line.

    Args:
      model: the network, from float32 [batch, height, width, 3] in [0, 1] to logits [batch, classes].
      transform: the output of Transform that `model` was trained on.
      class_names: names of the classes in the order of their labels, one per logit of `model`.
      directory: folder to write. An existing folder is replaced. If the export fails, the folder is removed.
      resize_method: how `transform` resizes images, the `method` of `preprocessing.resize`.
      background: colour of the margins of the method `pad`.
      config: the views of an image that are averaged, and the outputs besides those above.
      calibrated: the temperature that the logits are divided by; None is 1.

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
    served = _ServedModel(model, transform, class_names, resize, config, calibrated or Calibration())
    signatures = {name: getattr(served, name) for name in SIGNATURES}
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
        config: ExportConfig,
        calibrated: Calibration,
    ) -> None:
        super().__init__(name="served")
        # A new model of the same layers does not have the optimizer, whose state is two values per parameter.
        self._network = keras.Model(model.inputs, [model.layers[-1].input, model.outputs[0]])
        self._class_names = tf.constant(list(class_names))
        self._resize = resize
        self._config = config
        self._least_probability = calibrated.least_probability
        # Not an attribute: it would also be written as a Keras layer, which takes longer than all of the
        # signatures together. Their graphs hold what it computes.
        transform_layer = transform.transform_features_layer()

        def decode(image_bytes: tf.Tensor) -> tf.Tensor:
            return transform_layer({features.IMAGE: decoding.check(image_bytes)})[features.IMAGE]

        self._decode = decode
        images = [tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="images")]

        def evaluate(images: tf.Tensor) -> list[tf.Tensor]:
            last_features, logits = self._network(images, training=False)
            calibrated_logits = tf.cast(logits, tf.float32) / calibrated.temperature
            return [tf.cast(last_features, tf.float32), calibrated_logits]

        # Images, as for the network -> its last features and its calibrated logits.
        self._evaluate = tf.function(evaluate, input_signature=images, autograph=False)
        self.logits = tf.function(
            lambda images: self._evaluate(images)[1], input_signature=images, autograph=False
        )

    # AutoGraph is off because it has nothing to convert here, and would take 10 s to find that out.
    @tf.function(input_signature=[_EXAMPLES], autograph=False)
    def serving_default(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(examples, {features.IMAGE: tf.io.FixedLenFeature([], tf.string)})
        return self._predict(self._decode(parsed[features.IMAGE]))

    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def serve_image_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._predict(self._decode(image_bytes))

    @tf.function(input_signature=[_IMAGES], autograph=False)
    def serve_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._predict(preprocessing.scale(self._resize(images)))

    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def describe_image_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._describe(self._decode(image_bytes))

    @tf.function(input_signature=[_IMAGES], autograph=False)
    def describe_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._describe(preprocessing.scale(self._resize(images)))

    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def explain_image_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = self._decode(image_bytes)
        _, probabilities = self._look(images)
        heat = attribution.integrated_gradients(self.logits, images, tf.argmax(probabilities, axis=-1))
        return {"image": preprocessing.to_uint8(images), "heat": heat}

    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def pixels(self, image_bytes: tf.Tensor) -> tf.Tensor:
        return preprocessing.to_uint8(self._decode(image_bytes))

    def _look(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the features of images, float32 [batch, d], and their probabilities."""
        last_features, first = self._evaluate(images)
        config = self._config
        logits = views.average(self.logits, images, first, config.views, config.extra_views_below)
        return last_features, tf.nn.softmax(logits)

    def _predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        _, probabilities = self._look(images)
        best = tf.math.top_k(probabilities, min(MOST_NAMED, probabilities.shape[-1]))
        answer = {
            **self._answer(probabilities),
            "top_k_names": tf.gather(self._class_names, best.indices),
            "top_k_probabilities": best.values,
        }
        highest = best.values[:, :1]
        if self._config.abstain_below is not None:
            abstained = highest[:, 0] < self._config.abstain_below
            answer |= {"abstained": abstained, "class_name": tf.where(abstained, "", answer["class_name"])}
        if self._config.prediction_set is not None:
            answer["prediction_set"] = (probabilities >= self._least_probability) | (probabilities == highest)
        return answer

    def _describe(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        last_features, probabilities = self._look(images)
        return {
            **self._answer(probabilities),
            "features": last_features,
            **statistics.measure(images),
        }

    def _answer(self, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
        class_id = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "class_name": tf.gather(self._class_names, class_id),
        }
