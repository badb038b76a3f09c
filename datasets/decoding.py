"""Decodes images to pixels with Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def decode(encoded: bytes) -> Image.Image:
    """Decodes a PNG or JPEG to RGB in the same way as the network's input is decoded: without transparency.

    Args:
      encoded: bytes of a PNG or JPEG file.

    Returns:
      An image in mode RGB.

    Raises:
      OSError: Pillow cannot decode the image.
    """
    image: Image.Image = Image.open(io.BytesIO(encoded))
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit values at 255. TensorFlow uses the high byte, and so does this line.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    # A palette with a transparent colour is converted to an alpha channel first; otherwise Pillow warns.
    return image.convert("RGBA").convert("RGB") if "transparency" in image.info else image.convert("RGB")
