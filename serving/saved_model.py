"""A pushed model: a SavedModel with signatures, loaded with TensorFlow alone."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import tensorflow as tf

from serving.errors import RequestError

LABELS_FILE = "assets.extra/labels.txt"
DEFAULT_SIGNATURE, EXAMPLES_INPUT = "serving_default", "examples"
BYTES_SIGNATURE, BYTES_INPUT = "serve_image_bytes", "image_bytes"
PIXELS_SIGNATURE, PIXELS_INPUT = "serve_images", "images"
_PREDICTING = (DEFAULT_SIGNATURE, BYTES_SIGNATURE, PIXELS_SIGNATURE)
# Batch sizes of the requests that warm a model up, and the side of their images in pixels, unless the model
# takes only one size.
_WARM_UP_BATCHES = (1, 32)
_WARM_UP_SIDE = 64
_MAX_MESSAGE = 500  # characters
# Parts of TensorFlow's messages that name nodes, operations and places in the code of the model.
_NOISE = re.compile(
    r"Graph execution error:|Detected at node .*?\(most recent call last\):|<stack traces unavailable>"
    r"|\[\[.*?\]\]|\{\{.*?\}\}|\[Op:\w+\].*",
    re.DOTALL,
)
# The messages by which the model's graph refuses images.
_REFUSAL = re.compile(r"assertion failed: \[(.*)\]|StringToNumberOp could not correctly convert string: (.*)")
# Errors that a request causes. Other ones, such as too little memory, are the server's.
_CAUSED_BY_REQUEST = (
    tf.errors.InvalidArgumentError,
    tf.errors.OutOfRangeError,
    tf.errors.UnimplementedError,
    tf.errors.NotFoundError,
    tf.errors.DataLossError,
    ValueError,
    TypeError,
)


@dataclass(frozen=True)
class Tensor:
    """An input or output of a signature.

    Attributes:
      name: its name.
      dtype: type of its elements.
      shape: its shape; None for a dimension of any size. The first one is the batch.
    """

    name: str
    dtype: tf.DType
    shape: tuple[int | None, ...]


class Model:
    """A loaded version of a model.

    Attributes:
      path: the folder of the version.
      version: number of the version; 0 if the name of its folder is not a number.
      class_names: names of the classes, in the order of their indices; empty if the model has none.
      inputs: signature -> its inputs by name; the signatures that predict come first.
      outputs: signature -> its outputs by name.
      load_seconds: duration of loading and warming up the signatures that predict.
    """

    def __init__(self, path: Path) -> None:
        """Loads a version and answers a few requests, so that the first real one is fast.

        Args:
          path: the folder of the version, whose name is its number.

        Raises:
          OSError, ValueError: the folder holds no SavedModel that can be loaded, or one whose signatures do
            not compute batches.
          RequestError: the model does not answer the requests that warm it up.
        """
        start = time.perf_counter()
        self.path = path
        self.version = int(path.name) if path.name.isdecimal() else 0
        # The signatures do not keep the object alive that they need.
        self._loaded = tf.saved_model.load(str(path))
        signatures = self._loaded.signatures
        self._signatures = {
            name: signatures[name] for name in sorted(signatures, key=lambda name: name not in _PREDICTING)
        }
        if not self._signatures:
            raise ValueError(f"{path}: expected a SavedModel with signatures, found none")
        self.inputs = {
            name: _tensors(name, signature.structured_input_signature[1])
            for name, signature in self._signatures.items()
        }
        self.outputs = {
            name: _tensors(name, signature.structured_outputs) for name, signature in self._signatures.items()
        }
        labels = path / LABELS_FILE
        self.class_names = tuple(labels.read_text(encoding="utf-8").splitlines()) if labels.exists() else ()
        self._warm_up(_PREDICTING, _WARM_UP_BATCHES)
        self.load_seconds = time.perf_counter() - start

    def check_signature(self, name: str) -> None:
        """Checks that a signature exists.

        Raises:
          RequestError: it does not.
        """
        if name not in self._signatures:
            raise RequestError(
                400,
                f"Serving signature name: {name!r} not found in signature def; expected one of "
                f"{', '.join(sorted(self._signatures))}",
            )

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes the outputs of a signature.

        Args:
          signature: name of the signature.
          inputs: name -> values of each input, whose first dimension is the batch.

        Returns:
          Name -> values of each output.

        Raises:
          RequestError: the model cannot compute with these inputs, such as bytes that are no image.
          tf.errors.OpError: the model fails for another reason.
        """
        try:
            tensors = {name: tf.constant(value) for name, value in inputs.items()}
            return {name: value.numpy() for name, value in self._signatures[signature](**tensors).items()}
        except _CAUSED_BY_REQUEST as error:
            raise RequestError(400, _reason(error)) from None

    def warm_up_others(self) -> None:
        """Asks the signatures that do not predict for an answer, so that the first real one is fast.

        Raises:
          RequestError: a signature does not answer.
        """
        self._warm_up(self._signatures.keys() - set(_PREDICTING), batches=(1,))

    def _warm_up(self, signatures: Collection[str], batches: Iterable[int]) -> None:
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (_WARM_UP_SIDE, _WARM_UP_SIDE), "grey").save(buffer, "PNG")
        example = tf.train.Example()
        example.features.feature["image"].bytes_list.value.append(buffer.getvalue())
        encoded = {EXAMPLES_INPUT: example.SerializeToString(), BYTES_INPUT: buffer.getvalue()}
        for batch in batches:
            for signature in self.inputs:
                if signature not in signatures or len(self.inputs[signature]) != 1:
                    continue
                (tensor,) = self.inputs[signature].values()
                if tensor.name in encoded:
                    value = np.array([encoded[tensor.name]] * batch, dtype=object)
                elif tensor.name == PIXELS_INPUT:
                    shape = [batch, *(size or _WARM_UP_SIDE for size in tensor.shape[1:])]
                    value = np.zeros(shape, tensor.dtype.as_numpy_dtype)
                else:
                    continue
                self.run(signature, {tensor.name: value})


def _tensors(signature: str, specs: Mapping[str, tf.TensorSpec]) -> dict[str, Tensor]:
    """Describes the inputs or outputs of a signature, all of which must have a batch of any size."""
    for name, spec in specs.items():
        if not spec.shape.rank or spec.shape[0] is not None:
            raise ValueError(
                f"signature {signature}: {name}: expected a shape whose first dimension is a batch of any "
                f"size, found {spec.shape}"
            )
    return {name: Tensor(name, spec.dtype, tuple(spec.shape)) for name, spec in specs.items()}


def _reason(error: Exception) -> str:
    """Returns TensorFlow's message without the names of its nodes and operations, on one line."""
    text = getattr(error, "message", None) or str(error)
    text = _NOISE.sub(" ", text)
    text = " ".join(text.split())
    if refusal := _REFUSAL.fullmatch(text):
        text = refusal[1] or refusal[2]
    return text[:_MAX_MESSAGE] or type(error).__name__
