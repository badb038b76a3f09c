"""Encoded images of many kinds, for tests of decoders."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Encodes pixels or a Pillow image with Pillow."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def png(
    samples: np.ndarray, color_type: int, depth: int, before_pixels: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """Encodes a PNG of any kind, also of those that Pillow does not write.

    Args:
      samples: integers below 2^depth, [height, width, channels].
      color_type: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
      depth: bits per channel: 1, 2, 4, 8 or 16.
      before_pixels: (type, content) of further chunks.
    """
    height, width, channels = samples.shape
    bits = (samples[..., np.newaxis] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(height, width * channels * depth).astype(np.uint8), axis=1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    chunks = ((b"IHDR", header), *before_pixels, (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, chunks))


def chunk(chunk: tuple[bytes, bytes]) -> bytes:
    """Returns a chunk of a PNG from its type and content."""
    kind, content = chunk
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_exif(jpeg: bytes, tiff: bytes, before: bytes = b"") -> bytes:
    """Inserts EXIF into a JPEG.

    Args:
      jpeg: the file.
      tiff: the content of EXIF, a TIFF structure.
      before: further segments, before that of EXIF.
    """
    return jpeg[:2] + before + segment(0xE1, b"Exif\0\0" + tiff) + jpeg[2:]


def segment(marker: int, content: bytes) -> bytes:
    """Returns a segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def orientation_tiff(value: int, order: str = "<", kind: int = 3, more_entries: int = 0) -> bytes:
    """Returns the content of EXIF with an orientation.

    Args:
      value: the orientation.
      order: byte order as `struct` writes it, `<` or `>`.
      kind: type of the value: 3 for 2 bytes, 4 for 4 bytes.
      more_entries: number of other entries before that of the orientation.
    """
    packed = struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value).ljust(4, b"\0")
    entries = [struct.pack(f"{order}HHI", 0x0100 + i, 3, 1) + b"\0\0\0\0" for i in range(more_entries)]
    entries.append(struct.pack(f"{order}HHI", 0x0112, kind, 1) + packed)
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return header + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + b"\0\0\0\0"


def with_large_text(png: bytes) -> bytes:
    """Inserts a compressed text of 3 MB into a PNG, which Pillow refuses and TensorFlow ignores."""
    text = b"comment\0\0" + zlib.compress(bytes(3_000_000))
    return png[:33] + chunk((b"zTXt", text)) + png[33:]
