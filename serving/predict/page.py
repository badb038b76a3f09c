"""Renders answers as a page that shows the images, in one file that needs no network."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import PIL.Image
import PIL.ImageOps

_SIDE = 192  # pixels, of the longer side of a picture on the page
# Longest side, in pixels, of the pictures that become PNG, which is lossless; larger ones become JPEG.
_LARGEST_PNG = 64
_JPEG_QUALITY = 85


def render(
    model: str, answers: Sequence[Mapping[str, Any]], pictures: Sequence[str], images: int, failed: int
) -> str:
    """Renders the page. All values are escaped, and the page loads nothing from elsewhere.

    Args:
      model: which model answered.
      answers: rows of the answers to show.
      pictures: the picture of each, a data URI; empty if there is none.
      images: number of all images, which may be more than are shown.
      failed: how many of them have no answer.

    Returns:
      An HTML document.
    """
    rows = [
        {**answer, "name": name(answer), "picture": picture}
        for answer, picture in zip(answers, pictures, strict=True)
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "count": lambda value: f"{value:,}", "zip": zip}
    template = environment.get_template("page.html.j2")
    return template.render(model=model, rows=rows, images=images, failed=failed)


def name(answer: Mapping[str, Any]) -> str:
    """Returns the name of an image for people: its file, and its record and id if it has them."""
    text = answer["path"]
    if answer["record"] is not None:
        text += f", record {answer['record']}"
    return text + (f" ({answer['id']})" if answer["id"] else "")


def percent(probability: float) -> str:
    """Formats a probability; one that is not 1 does not become 100 %."""
    text = f"{100 * probability:.1f}"
    return "> 99.9 %" if text == "100.0" and probability < 1 else f"{text} %"


def thumbnail(encoded: bytes) -> str:
    """Shrinks an image for the page.

    Args:
      encoded: the image.

    Returns:
      A data URI that holds a PNG or JPEG, upright and on white; empty if Pillow cannot decode the image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: PIL.Image.Image = PIL.Image.open(io.BytesIO(encoded))
            # Decodes JPEG images at a fraction of their size.
            image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
            image.thumbnail((_SIDE, _SIDE))
            image = PIL.ImageOps.exif_transpose(image).convert("RGBA")
    except Exception:  # Pillow does not document what damaged images make it raise
        return ""
    white = PIL.Image.new("RGBA", image.size, "white")
    kind = "png" if max(image.size) <= _LARGEST_PNG else "jpeg"
    buffer = io.BytesIO()
    PIL.Image.alpha_composite(white, image).convert("RGB").save(buffer, kind, quality=_JPEG_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
