"""Converts the exported model to other formats; see this package's docstring for what they compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from models import preprocessing
from settings.export import Format

# Format -> name of its file.
FILES: dict[Format, str] = {
    "tflite": "model.tflite",
    "tflite_int8": "model_int8.tflite",
    "onnx": "model.onnx",
}
# The newest version of ONNX's operators that tf2onnx 1.17 supports is 18; more runtimes support 17.
_ONNX_OPERATORS = 17


class Network:
    """The network of an exported model, from pixels to probabilities.

    Attributes:
      loaded: the exported model.
      size: (height, width) of its input in pixels.
    """

    def __init__(self, loaded: Any) -> None:
        """Wraps the network.

        Args:
          loaded: a SavedModel of `models.export`, as `tf.saved_model.load` returns it.
        """
        self.loaded = loaded
        (images,), _ = loaded.logits.concrete_functions[0].structured_input_signature
        self.size: tuple[int, int] = (images.shape[1], images.shape[2])

    def function(self, batch: int | None) -> Any:
        """Returns a tf.function from `images`, uint8 [batch, height, width, 3], to `probabilities`.

        Args:
          batch: number of images; None for any number.
        """
        images = tf.TensorSpec([batch, *self.size, preprocessing.CHANNELS], tf.uint8, name="images")

        @tf.function(input_signature=[images], autograph=False)
        def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"probabilities": tf.nn.softmax(self.loaded.logits(preprocessing.scale(images)))}

        return predict


def convert(network: Network, name: Format, file: Path, calibration: np.ndarray) -> None:
    """Writes a network in another format.

    Args:
      network: the network.
      name: the format.
      file: file to write.
      calibration: images that tell `tflite_int8` the range of each layer's outputs, uint8 [count, height,
        width, 3]; images of the train split.

    Raises:
      Exception: the converter does not support the network, or is not installed. Converters raise exceptions
        of many types.
    """
    _CONVERTERS[name](network, file, calibration)


def _write_tflite(network: Network, file: Path, calibration: np.ndarray) -> None:
    del calibration
    file.write_bytes(_tflite_converter(network).convert())


def _write_tflite_int8(network: Network, file: Path, calibration: np.ndarray) -> None:
    converter = _tflite_converter(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in calibration)
    # Integers from the input to the output, which accelerators without floating point need.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8
    file.write_bytes(converter.convert())


def _tflite_converter(network: Network) -> Any:
    function = network.function(batch=1).get_concrete_function()
    # With the object that holds the variables, the converter also writes the names of the input and output.
    return tf.lite.TFLiteConverter.from_concrete_functions([function], network.loaded)


def _write_onnx(network: Network, file: Path, calibration: np.ndarray) -> None:
    del calibration
    import tf2onnx  # noqa: PLC0415 - an optional package

    function = network.function(batch=None)
    model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=_ONNX_OPERATORS)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    file.write_bytes(model.SerializeToString())


_CONVERTERS: dict[Format, Callable[[Network, Path, np.ndarray], None]] = {
    "tflite": _write_tflite,
    "tflite_int8": _write_tflite_int8,
    "onnx": _write_onnx,
}
