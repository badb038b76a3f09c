"""Types of the settings that say how images become the network's input."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import PIL.ImageColor
import pydantic

ResizeMethod = Literal["stretch", "pad", "crop"]
Color = tuple[int, int, int]  # red, green and blue, each from 0 to 255

WHITE: Color = (255, 255, 255)


def _parse_color(value: Any) -> Any:
    """Turns a colour's name or hexadecimal notation into its values; leaves anything else as it is."""
    color = value
    if isinstance(value, str):
        try:
            color = PIL.ImageColor.getrgb(value)
        except ValueError:
            color = None
    if not isinstance(color, (list, tuple)) or len(color) != len(WHITE):
        raise ValueError("expected a name such as white, a value such as '#ffffff', or [red, green, blue]")
    return color


_Channel = Annotated[int, pydantic.Field(strict=True, ge=0, le=255)]
ColorSetting = Annotated[tuple[_Channel, _Channel, _Channel], pydantic.BeforeValidator(_parse_color)]
