"""Decodes images to pixels with Pillow, in the same way as the network's input is decoded."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

WHITE = (255, 255, 255)
# Largest number of pixels of an image. Pillow refuses larger ones as a possible attack.
MAX_PIXELS = 178_956_970
# Pillow's names of the formats that TensorFlow decodes, too. Importers convert other formats.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP")

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # before width and height, four bytes each
_PNG_DEPTH = 24  # position in a PNG file of the number of bits per channel

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_EXIF_SEGMENT, _START_OF_SCAN = b"\xff\xe1", b"\xff\xda"
_EXIF_HEADER = b"Exif\0\0"
_MOST_SEGMENTS = 100  # as many as `models.image_files` looks at
_BYTE_ORDERS = {b"MM\0*": ">", b"II*\0": "<"}
_INTEGERS = {3: "H", 4: "I"}  # type of a value in EXIF -> its format for `struct`
_ORIENTATION = 0x0112  # tag in EXIF
UPRIGHT = 1
# Orientation in EXIF -> how an image that is stored so is turned upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations in which the stored height is the width of the upright image.
_SWAPS_SIDES = range(5, 9)


class ImageError(OSError):
    """Bytes that are no image that can be used; the message says why."""


class TooLargeError(ImageError):
    """An image of more than `MAX_PIXELS`."""


def decode(encoded: bytes, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Decodes an image to RGB pixels, as `models.decoding` does with TensorFlow.

    Transparent pixels are composed on the background, and JPEG images are turned as their EXIF says. Images
    with more than 8 bits per channel are reduced to the highest 8.

    Args:
      encoded: bytes of a PNG, JPEG, GIF or BMP file.
      background: red, green and blue behind transparent pixels, each from 0 to 255. Transparent pixels of a
        GIF become black, because TensorFlow does not tell them from black ones.

    Returns:
      An image in mode RGB.

    Raises:
      ImageError: Pillow cannot decode the image, or it has more than `MAX_PIXELS`.
    """
    with _named_errors():
        image: Image.Image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
        turn = _TURNS.get(orientation(encoded))
        if image.format == "GIF":
            background = (0, 0, 0)
        elif image.format == "PNG":
            image = _to_8_bits(image, encoded[_PNG_DEPTH])
        if image.has_transparency_data:
            image = _compose(image.convert("RGBA"), background)
        rgb = image.convert("RGB")
        return rgb if turn is None else rgb.transpose(turn)


def identify(encoded: bytes) -> tuple[str, tuple[int, int]]:
    """Reads the header of an image.

    Args:
      encoded: bytes of a PNG, JPEG, GIF or BMP file.

    Returns:
      (Pillow's name of the format, such as `JPEG`; (width, height) in pixels of the upright image).

    Raises:
      ImageError: Pillow cannot read the header, or the image has more than `MAX_PIXELS`.
    """
    with _named_errors(), Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
        size = image.size[::-1] if orientation(encoded) in _SWAPS_SIDES else image.size
        return image.format or "", size


def count_pixels(encoded: bytes) -> int:
    """Returns the number of pixels that the header of an image promises, without decoding it.

    Args:
      encoded: bytes of any file.

    Returns:
      The number; more than `MAX_PIXELS`, but not always the right number, if it is too large for Pillow; 0 if
      Pillow cannot read the header.
    """
    if encoded.startswith(_PNG_START):
        # Pillow takes 50 times as long to open an image, and refuses some because of their texts.
        width, height = struct.unpack_from(">II", encoded.ljust(_PNG_DEPTH, b"\0"), len(_PNG_START))
        return width * height
    try:
        with _named_errors(), Image.open(io.BytesIO(encoded)) as image:
            return image.width * image.height
    except TooLargeError:
        return MAX_PIXELS + 1
    except ImageError:
        return 0


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turns whatever Pillow raises into an ImageError, and its warnings off."""
    with warnings.catch_warnings():
        # Pillow warns of damaged metadata, which is not used, and of images from half of MAX_PIXELS on.
        warnings.simplefilter("ignore")
        try:
            yield
        except Image.UnidentifiedImageError:
            raise ImageError("not an image in a format that is read here") from None
        except Image.DecompressionBombError:
            raise TooLargeError(f"more than {MAX_PIXELS:,} pixels") from None
        except MemoryError:
            raise ImageError("does not fit into memory") from None
        except Exception as error:  # Pillow does not document what damaged or hostile files make it raise
            raise ImageError(str(error) or type(error).__name__) from None


def orientation(encoded: bytes) -> int:
    """Returns the orientation in the EXIF of a JPEG, from 1 (upright) to 8; 1 if it is missing or invalid.

    Unlike Pillow, this finds the orientation also if other entries are damaged, and ignores one outside EXIF,
    as `models.image_files.orientation` does.

    Args:
      encoded: bytes of any file; only a JPEG has an orientation.
    """
    tiff = _exif(encoded) if encoded.startswith(_JPEG_SIGNATURE) else b""
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return UPRIGHT
    padded = tiff + bytes(8)
    directory = min(struct.unpack_from(f"{order}I", padded, 4)[0], len(tiff))
    (count,) = struct.unpack_from(f"{order}H", padded, directory)
    first, entry_bytes = directory + 2, 12
    for position in range(first, first + count * entry_bytes, entry_bytes):
        if position + entry_bytes > len(tiff):
            break
        tag, kind, values = struct.unpack_from(f"{order}HHI", tiff, position)
        if tag == _ORIENTATION and kind in _INTEGERS and values == 1:
            (value,) = struct.unpack_from(order + _INTEGERS[kind], tiff, position + 8)
            if value == UPRIGHT or value in _TURNS:
                return value
    return UPRIGHT


def _exif(jpeg: bytes) -> bytes:
    """Returns the TIFF structure in the EXIF segment of a JPEG; empty if there is none."""
    position = 2
    for _ in range(_MOST_SEGMENTS + 1):
        marker = jpeg[position : position + 2]
        length = int.from_bytes(jpeg[position + 2 : position + 4].ljust(2, b"\0"), "big")
        if marker == _EXIF_SEGMENT and jpeg.startswith(_EXIF_HEADER, position + 4):
            return jpeg[position + 4 + len(_EXIF_HEADER) : position + 2 + length]
        if not marker.startswith(b"\xff") or marker == _START_OF_SCAN:
            break
        # The first byte of a segment may be repeated.
        position += 1 if marker == b"\xff\xff" else 2 + length
    return b""


def _to_8_bits(image: Image.Image, depth: int) -> Image.Image:
    """Reduces a PNG's pixels and its transparent colour to 8 bits per channel, as the PNG library does.

    Args:
      image: an opened PNG.
      depth: bits per channel in the file.
    """
    transparent = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit values at 255.
        values = np.asarray(image)
        image = Image.fromarray((values >> 8).astype(np.uint8))
        if transparent is not None:
            image.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    elif transparent is not None and image.mode in ("L", "RGB"):
        # Pillow scales the pixels to 8 bits, but not the colour that is transparent.
        scaled = (
            np.asarray(transparent) >> 8 if depth == 16 else np.asarray(transparent) * 255 // (2**depth - 1)
        )
        image.info["transparency"] = scaled.item() if scaled.ndim == 0 else tuple(scaled.tolist())
    return image


def _compose(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Composes an RGBA image on a background, with the rounding of `models.decoding`."""
    pixels = np.asarray(image).astype(np.int32)
    colors, alpha = pixels[..., :3], pixels[..., 3:]
    mixed = colors * alpha + np.array(background) * (255 - alpha)
    return Image.fromarray(((mixed + 127) // 255).astype(np.uint8))
