"""Judges the bytes of one image file, and converts it to the form in which a dataset stores it.

An image is usable if TensorFlow, which decodes it in training and serving, can decode what is stored. JPEG
and ordinary PNG files are stored byte for byte. All other formats that Pillow reads are stored as PNG without
loss, and so are PNG files with an EXIF rotation or with 16 bits. The rotation of JPEG files is left to the
decoder.
"""

from __future__ import annotations

import functools
import io
import os
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import PIL.ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from datasets import decoding, depth, duplicates
from datasets.depth import Ranges, ValueRange
from datasets.duplicates import Fingerprint

# How an image is stored: `keep` the file's bytes, `convert` them with Pillow, or `redraw` as PNG what
# TensorFlow decodes, because Pillow, which reads images for reports, cannot.
Handling = Literal["keep", "convert", "redraw"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# Position of the bit depth in the header of a PNG file.
_PNG_DEPTH = 24
# Texts in PNG files that may contain an orientation. Looking for one with Pillow decodes the whole image.
_PNG_ORIENTATIONS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_ORIENTATION = 0x0112  # EXIF tag
_BITS_PER_SAMPLE = 258  # TIFF tag
# Pillow's formats that are no pictures, need other programs, or are recognised by their suffix alone.
_NOT_TAKEN = frozenset(
    "BUFR EPS FITS GRIB HDF5 IM IMT IPTC MCIDAS MPEG PCD SPIDER TGA WMF XVTHUMB".split()  # noqa: SIM905
)
# A higher level takes longer and saves about a tenth.
_PNG_COMPRESSION = 1
# Brands of HEIF files, which follow `ftyp` at byte 4.
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heif", b"mif1", b"msf1", b"hevc"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})


class UnusableError(ValueError):
    """An image that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A usable image.

    Attributes:
      format: Pillow's name of the file's format, such as `JPEG`.
      width: width in pixels, when upright; 0 if `values` is given.
      height: height in pixels, when upright; 0 if `values` is given.
      size: number of bytes as stored; those of the file if `values` is given.
      handling: how the image is stored.
      fingerprint: the fingerprint of the stored image; None if `values` is given.
      values: the range of an image of more than 8 bits, for which no range of the dataset was given. The
        image is judged and has a fingerprint only when it is inspected again with that range.
    """

    format: str
    width: int
    height: int
    size: int
    handling: Handling
    fingerprint: Fingerprint | None
    values: ValueRange | None = None


def inspect(data: bytes, ranges: Ranges | None = None) -> Inspected:
    """Judges an image.

    Args:
      data: content of the file.
      ranges: ranges of the images of more than 8 bits in the dataset; None while they are unknown.

    Raises:
      UnusableError: the image cannot be used.
    """
    with warnings.catch_warnings():
        # Pillow warns of images of more than 89 million pixels, and of damaged metadata. Both are usable.
        warnings.simplefilter("ignore")
        try:
            return _inspect(data, ranges)
        except UnusableError:
            raise
        except MemoryError:
            raise UnusableError("does not fit into memory") from None
        except Exception as error:  # Pillow does not document what damaged or hostile files make it raise
            raise UnusableError(str(error) or type(error).__name__) from None


def store(data: bytes, handling: Handling, ranges: Ranges) -> bytes:
    """Returns an image as a dataset stores it.

    Args:
      data: content of the file.
      handling: what `inspect` decided.
      ranges: ranges of the images of more than 8 bits in the dataset.

    Returns:
      A JPEG or PNG file.
    """
    if handling == "keep":
        return data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        if handling == "redraw":
            pixels = _decode_with_tensorflow(data)
            return _save(PIL.Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))
        return _convert(data, ranges)


@functools.cache
def suffixes() -> frozenset[str]:
    """Returns the suffixes of the formats that are taken, in lower case, such as `.jpg`."""
    # MPO is a JPEG with further pictures appended, and is read as JPEG. HEIC files are named even if they
    # cannot be read.
    taken = {*formats(), "MPO"}
    known = {suffix for suffix, name in PIL.Image.registered_extensions().items() if name in taken}
    return frozenset(known | {".heic", ".heif"})


@functools.cache
def formats() -> tuple[str, ...]:
    """Returns Pillow's names of the formats that are taken, the most common ones first."""
    try:  # The plugin is optional: its decoder has another licence than Pillow.
        import pillow_heif  # noqa: PLC0415
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    PIL.Image.init()
    return tuple(name for name in PIL.Image.ID if name not in _NOT_TAKEN)


def begins_like_image(path: Path) -> bool:
    """Returns whether a file whose suffix is not that of an image begins like a common format.

    TIFF is not among these formats, because photographs in raw formats begin like it.
    """
    with path.open("rb") as file:
        start = file.read(12)
    return (
        start.startswith((_PNG_SIGNATURE, _JPEG_SIGNATURE, b"GIF87a", b"GIF89a"))
        or (start[:4] == b"RIFF" and start[8:] == b"WEBP")
        or (start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS | _AVIF_BRANDS)
    )


def load_tensorflow() -> Any:
    """Imports TensorFlow, which takes seconds, without the messages that it prints while it starts."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import tensorflow as tf  # noqa: PLC0415

    return tf


def _inspect(data: bytes, ranges: Ranges | None) -> Inspected:
    if decoding.count_pixels(data) > decoding.MAX_PIXELS:
        raise UnusableError(f"more than {decoding.MAX_PIXELS:,} pixels")
    name = _identify(data)
    handling: Handling = "keep"
    encoded = data
    if name != "JPEG" and not (name == "PNG" and _is_plain_png(data)):
        if ranges is None and (values := _deep_values(data)) is not None:
            # Transparency always uses all bits.
            colours = values[..., :-1] if values.ndim == 3 and values.shape[2] in (2, 4) else values
            return Inspected(name, 0, 0, len(data), "convert", None, depth.measure(colours))
        handling, encoded = "convert", _convert(data, ranges or {})
    pixels = _decode_with_tensorflow(encoded)
    try:
        image = decoding.decode(encoded)
    except decoding.ImageError:
        handling = "redraw"
        encoded = _save(PIL.Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))
        image = decoding.decode(encoded)
    fingerprint = duplicates.fingerprint(np.asarray(image))
    return Inspected(name, image.width, image.height, len(encoded), handling, fingerprint)


def _identify(data: bytes) -> str:
    """Returns Pillow's name of the format of a file."""
    if not data:
        raise UnusableError("empty file")
    if data.startswith(_PNG_SIGNATURE):
        return "PNG"
    if data.startswith(_JPEG_SIGNATURE):
        return "JPEG"
    try:
        with PIL.Image.open(io.BytesIO(data), formats=formats()) as image:
            name = image.format or ""
            if isinstance(image, TiffImageFile) and image.mode in ("RGB", "RGBA"):
                # Pillow has no mode for deeper colours.
                bits = image.tag_v2.get(_BITS_PER_SAMPLE, (8,))[0]
                name += f" (the upper 8 of {bits} bits)" if bits > 8 else ""
            return name
    except PIL.UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
            raise UnusableError("HEIC file; `pip install pillow-heif` makes them readable") from None
        raise UnusableError("not an image") from None


def _is_plain_png(data: bytes) -> bool:
    """Returns whether a PNG file has at most 8 bits and is upright, so that it can be stored as it is."""
    return data[_PNG_DEPTH : _PNG_DEPTH + 1] != b"\x10" and _png_orientation(data) == 1


def _png_orientation(data: bytes) -> int:
    if not any(text in data for text in _PNG_ORIENTATIONS):
        return 1
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the file is damaged, or has a part that Pillow refuses and TensorFlow ignores
        return 1


def _deep_values(data: bytes) -> np.ndarray | None:
    """Returns the pixels of an image of more than 8 bits, [height, width] or [height, width, channels]."""
    if data.startswith(_PNG_SIGNATURE):
        if data[_PNG_DEPTH : _PNG_DEPTH + 1] != b"\x10":
            return None
        # Pillow reads 16-bit colours with 8 bits.
        values = _decode_with_tensorflow(data, np.uint16)
        return values.squeeze(2) if values.shape[2] == 1 else values
    with PIL.Image.open(io.BytesIO(data), formats=formats()) as image:
        if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
            return None
        return np.asarray(image)


def _convert(data: bytes, ranges: Ranges) -> bytes:
    """Converts an image that is not stored as it is to an upright PNG of 8 bits."""
    values = _deep_values(data)
    if values is None:
        with PIL.Image.open(io.BytesIO(data), formats=formats()) as opened:
            image = _to_png_mode(PIL.ImageOps.exif_transpose(opened))
    else:
        image = PIL.Image.fromarray(_to_uint8(values, ranges))
        # Pillow turns other formats than PNG while it reads them.
        image.getexif()[_ORIENTATION] = _png_orientation(data) if data.startswith(_PNG_SIGNATURE) else 1
        image = PIL.ImageOps.exif_transpose(image)
    return _save(image)


def _to_uint8(values: np.ndarray, ranges: Ranges) -> np.ndarray:
    scale = ranges["float" if values.dtype.kind == "f" else "integer"]
    if values.ndim == 3 and values.shape[2] in (2, 4):
        alpha = (values[..., -1:] >> 8).astype(np.uint8)
        return np.concatenate([scale.to_uint8(values[..., :-1]), alpha], axis=2)
    return scale.to_uint8(values)


def _to_png_mode(image: PIL.Image.Image) -> PIL.Image.Image:
    """Converts an image to a mode that PNG represents, with its transparency."""
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    return image if image.mode in ("1", "L", "RGB") else image.convert("RGB")


def _save(image: PIL.Image.Image) -> bytes:
    # Colour profiles and texts are left out: no decoder here uses them.
    image.info = {}
    encoded = io.BytesIO()
    image.save(encoded, "PNG", compress_level=_PNG_COMPRESSION)
    return encoded.getvalue()


def _decode_with_tensorflow(data: bytes, dtype: type = np.uint8) -> np.ndarray:
    """Decodes an image as training and serving do.

    Args:
      data: a PNG or JPEG file.
      dtype: np.uint8, or np.uint16 for the full depth of a PNG.

    Returns:
      Pixels [height, width, channels].
    """
    tf = load_tensorflow()
    with tf.device("CPU"):
        try:
            return tf.io.decode_image(data, dtype=tf.as_dtype(dtype), expand_animations=False).numpy()
        except tf.errors.OpError as error:
            raise UnusableError(f"TensorFlow cannot decode it: {_describe(error.message)}") from None


def _describe(message: str) -> str:
    """Removes the names of operations from a message of TensorFlow."""
    return re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\].*", "", message).strip()
