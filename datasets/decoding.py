"""Decodes images to pixels with Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def decode(encoded: bytes) -> Image.Image:
    """Decodes PNG or JPEG to RGB, as the network's input is decoded: without transparency.

    Raises:
      OSError: Pillow cannot decode the image.
    """
    image: Image.Image = Image.open(io.BytesIO(encoded))
    if image.mode.startswith("I;16"):
        # Pillow would cut off at 255; TensorFlow takes the high byte, as here.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    # Pillow warns of a palette with a transparent colour, unless it is made a channel first.
    return image.convert("RGBA").convert("RGB") if "transparency" in image.info else image.convert("RGB")
