"""Converts between the values of requests and the arrays that models compute with."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import tensorflow as tf
from google.protobuf.message import DecodeError

from serving.errors import RequestError
from serving.saved_model import BYTES_INPUT, BYTES_SIGNATURE, EXAMPLES_INPUT, Tensor

_B64 = "b64"
# The formats that TensorFlow decodes.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP")
_PREFIX_BYTES = 16  # by which Pillow tells formats apart
# Some implementations of protobuf warn of bytes that are no message, instead of refusing them.
warnings.filterwarnings("ignore", "Unexpected end-group tag", RuntimeWarning)


def to_array(value: Any, tensor: Tensor) -> np.ndarray:
    """Converts the JSON value of an input to an array.

    Args:
      value: nested lists of numbers, texts or `{"b64": text}`.
      tensor: the input; its shape includes the batch.

    Raises:
      RequestError: the value does not have the input's type or shape.
    """
    try:
        if tensor.dtype == tf.string:
            array = np.array(_bytes(value, tensor.name, len(tensor.shape)), dtype=object)
            if not all(isinstance(item, bytes) for item in array.flat):
                raise ValueError
        else:
            array = _numbers(value, tensor)
    except (ValueError, TypeError, ArithmeticError):
        raise RequestError(
            400, f"input {tensor.name}: expected nested lists of {tensor.dtype.name}, all of one shape"
        ) from None
    check_shape(array, tensor)
    return array


def check_shape(array: np.ndarray, tensor: Tensor) -> None:
    """Checks that an array has the shape of an input, with at least one element in the batch.

    Raises:
      RequestError: it has another shape.
    """
    fits = array.ndim == len(tensor.shape) and all(
        expected in (None, found) for expected, found in zip(tensor.shape, array.shape, strict=True)
    )
    if not fits or 0 in array.shape:
        expected = ", ".join("any" if size is None else str(size) for size in tensor.shape)
        raise RequestError(
            400,
            f"input {tensor.name}: expected the shape [{expected}] with at least one element, found "
            f"{list(array.shape)}",
        )


def count_pixels(inputs: Mapping[str, np.ndarray], limit: int) -> np.ndarray:
    """Counts the pixels of the images of a request, before anything decodes them.

    Bytes without the header of an image count as nothing: the model refuses them.

    Args:
      inputs: name -> values of each input: encoded images in `image_bytes` and `examples`, or pixels [batch,
        height, width, channels].
      limit: largest number of pixels of all images.

    Returns:
      Pixels of each image, int64 [batch].

    Raises:
      RequestError: there are more pixels, or `examples` has something else than Examples.
    """
    counts = np.zeros(len(next(iter(inputs.values()))), np.int64)
    for name, array in inputs.items():
        if name in (BYTES_INPUT, EXAMPLES_INPUT) and array.dtype == object:
            found = _count_encoded(array.reshape(-1), is_examples=name == EXAMPLES_INPUT, limit=limit)
            counts += np.reshape(found, (len(array), -1)).sum(axis=1)
        elif array.ndim == 4:
            counts += array.shape[1] * array.shape[2]
    if counts.sum() > limit:
        raise RequestError(
            413, f"expected at most {limit:,} pixels in the images of a request, found {counts.sum():,}"
        )
    return counts


def _count_encoded(array: np.ndarray, *, is_examples: bool, limit: int) -> list[int]:
    counts, pixels = [], 0
    for position, encoded in enumerate(array, start=1):
        image = encoded
        if is_examples:
            image = image_of(encoded)
            if image is None:
                raise RequestError(
                    400,
                    f"element {position} of {len(array)}: expected a serialized tf.train.Example; for image "
                    f"files use the signature {BYTES_SIGNATURE}",
                )
        width, height = image_size(image)
        pixels += width * height
        if pixels > limit:
            raise RequestError(
                413,
                f"expected at most {limit:,} pixels in the images of a request; image {position} of "
                f"{len(array)}, of {width}x{height}, goes beyond",
            )
        counts.append(width * height)
    return counts


def to_json(array: np.ndarray, *, binary: bool = False) -> list[Any]:
    """Converts an output to nested lists; bytes become text, or `{"b64": text}` if they are binary."""
    if array.dtype == object:
        return _texts(array.tolist(), binary)
    return array.tolist()


def _numbers(value: Any, tensor: Tensor) -> np.ndarray:
    """Converts nested lists to the type of an input, whose range they must not exceed."""
    array = np.array(value)
    if array.size == 0:
        return array.astype(tensor.dtype.as_numpy_dtype)
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not tensor.dtype.is_floating):
        raise ValueError
    with np.errstate(over="raise", invalid="raise"):
        converted = array.astype(tensor.dtype.as_numpy_dtype)
    if not tensor.dtype.is_floating and not np.array_equal(converted, array):
        raise ValueError
    return converted


def _bytes(value: Any, name: str, depth: int) -> Any:
    """Converts texts within at most `depth` nested lists."""
    if isinstance(value, list) and depth > 0:
        return [_bytes(item, name, depth - 1) for item in value]
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {_B64} and isinstance(value[_B64], str):
        try:
            return base64.b64decode(value[_B64], validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(400, f'input {name}: "b64" is not base64') from None
    raise RequestError(400, f'input {name}: expected texts or {{"b64": text}}, found {type(value).__name__}')


def _texts(value: Any, binary: bool) -> Any:
    if isinstance(value, list):
        return [_texts(item, binary) for item in value]
    return {_B64: base64.b64encode(value).decode()} if binary else value.decode("utf-8", "replace")


def image_of(example: bytes) -> bytes | None:
    """Returns the encoded image of a serialized tf.train.Example; no bytes if it has none.

    Returns:
      The image; None if the bytes are no Example.
    """
    try:
        parsed = tf.train.Example.FromString(example)
    except (DecodeError, UnicodeDecodeError, RuntimeWarning):
        return None
    # Of other messages, and of some image files, all fields are unknown.
    if example and not parsed.HasField("features"):
        return None
    images = parsed.features.feature["image"].bytes_list.value
    return images[0] if images else b""


def image_size(encoded: bytes) -> tuple[int, int]:
    """Returns (width, height) of an image from its header; (0, 0) if it has none."""
    # PIL.Image.open would do, but does not say the size of an image that it takes for a decompression bomb.
    PIL.Image.preinit()
    for name in _FORMATS:
        read, accepts = PIL.Image.OPEN[name]
        try:
            if accepts is None or accepts(encoded[:_PREFIX_BYTES]):
                return read(io.BytesIO(encoded), "").size
        except Exception:  # Pillow does not document what damaged headers make it raise
            continue
    return 0, 0
