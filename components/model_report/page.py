"""The page of a report: one self-contained HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def png(figure: Figure) -> bytes:
    """Draws a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def render(report: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """Fills the template; everything that comes from data is escaped.

    Args:
      report: what `metrics.json` holds.
      images: name -> PNG, embedded in the page.
    """
    embedded = {
        name: "data:image/png;base64," + base64.b64encode(content).decode()
        for name, content in images.items()
    }
    return _TEMPLATES.get_template("index.html.j2").render(report=report, images=embedded)
