"""Words the part of a report on the other formats that the model is written in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {"saved_model": "SavedModel", "saved_model_one_view": "SavedModel, one view"}
_UNKNOWN = "no data"
_BYTES = 1e6  # of a megabyte


def describe_formats(formats: Mapping[str, Any]) -> str:
    """Returns sentences on how the formats were compared, and which are left out.

    Args:
      formats: the description that ServingCheck wrote, see `components.serving_check.formats.writing`.
    """
    compared = f"{formats['images']:,}"
    if formats["images"] < formats["available"]:
        compared += f" of {formats['available']:,}"
    return " ".join(
        [
            f"Compared on {compared} test images. Agreement is the share for which a format answers the same "
            "class as the SavedModel with one view. The milliseconds are those of one image, decoded and of "
            "the network's size, on one core of the machine that compared them.",
            *(f"{sentence}." for sentence in formats["left_out"]),
        ]
    )


def format_rows(formats: Mapping[str, Any]) -> list[dict[str, str]]:
    """Formats the figures of each format.

    Args:
      formats: the description that ServingCheck wrote.

    Returns:
      Rows of text: `name`, `accuracy`, `agreement`, `size`, `milliseconds`, and `written`, the path of the
      file, or `left out`, or nothing for the SavedModel.
    """
    return [
        {
            "name": _NAMES.get(model["name"], model["name"]),
            "accuracy": _format(model["accuracy"], "{:.2%}"),
            "agreement": _format(model["agreement"], "{:.2%}"),
            "size": _format(model["bytes"] and model["bytes"] / _BYTES, "{:.2f} MB"),
            "milliseconds": _format(model["milliseconds"], "{:.2f}"),
            "written": "left out" if model["problem"] else model["file"] or "",
        }
        for model in formats["models"]
    ]


def _format(value: float | None, text: str) -> str:
    return _UNKNOWN if value is None else text.format(value)
