"""Runs models of other formats, each on one core of this machine's CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from settings.export import Format

# uint8 [batch, height, width, 3] -> probabilities, float32 [batch, classes].
Predict = Callable[[np.ndarray], np.ndarray]


def load(name: Format, file: Path) -> Predict:
    """Loads a model that `conversion.convert` wrote.

    Args:
      name: its format.
      file: its file.

    Returns:
      A function from images, uint8 [batch, height, width, 3], to probabilities, float32 [batch, classes].
    """
    return _load_onnx(file) if name == "onnx" else _load_tflite(file)


def _load_tflite(file: Path) -> Predict:
    with warnings.catch_warnings():
        # TensorFlow 2.20 and later recommend the package ai-edge-litert, which has the same interpreter.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    # The output of a model of integers is `scale * (value - zero)`; the scale of one of floats is 0.
    scale, zero = outputs["quantization"]

    def predict_one(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(inputs["index"], image[np.newaxis])
        interpreter.invoke()
        (values,) = interpreter.get_tensor(outputs["index"])
        return np.float32(scale) * (values.astype(np.float32) - zero) if scale else values

    return lambda images: np.stack([predict_one(image) for image in images])


def _load_onnx(file: Path) -> Predict:
    import onnxruntime  # noqa: PLC0415 - an optional package

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]
