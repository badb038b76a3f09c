"""Scales pixels of more than 8 bits to 8 bits, by the range of values that the whole dataset uses.

Cameras, microscopes and scanners often store 10, 12 or 14 bits in 16, or floats. The upper 8 of 16 bits of
such images would be almost black, and a scale of each image's own would hide how bright it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["integer", "float"]


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The values of images of more than 8 bits.

    Attributes:
      kind: `integer` for 16-bit and 32-bit integers, `float` for floating-point numbers.
      low: the smallest value.
      high: the largest value.
    """

    kind: Kind
    low: float
    high: float

    def union(self, other: ValueRange | None) -> ValueRange:
        """Returns the range of both; `other` has the same kind or is None."""
        if other is None:
            return self
        return ValueRange(self.kind, min(self.low, other.low), max(self.high, other.high))

    def to_uint8(self, values: np.ndarray) -> np.ndarray:
        """Scales values within the range to 8 bits.

        Integers lose the bits that do not fit, so that 12-bit values are divided by 16, and values of up to
        8 bits are kept. Floats between 0 and 1 are multiplied by 255. Floats of any other range and negative
        integers are scaled from the range to 0 to 255.

        Args:
          values: pixels of any shape.

        Returns:
          uint8 pixels of the same shape.
        """
        if self.kind == "integer" and self.low >= 0:
            return (values >> self._shift).astype(np.uint8)
        low, high = (0.0, 1.0) if self._is_fraction else (self.low, self.high)
        scaled = (values.astype(np.float64) - low) * (255 / ((high - low) or 1))
        return np.rint(scaled).clip(0, 255).astype(np.uint8)

    def describe(self) -> str:
        """Returns how the values are scaled, as `values from 0 to 4095 (12 bits) divided by 16`."""
        values = f"values from {self.low:g} to {self.high:g}"
        if self.kind == "integer" and self.low >= 0:
            bits = int(self.high).bit_length()
            scaling = f"divided by {2**self._shift}" if self._shift else "kept"
            return f"{values} ({bits} {'bit' if bits == 1 else 'bits'}) {scaling}"
        if self._is_fraction:
            return f"{values} multiplied by 255"
        return f"{values} scaled to 0 to 255"

    @property
    def _shift(self) -> int:
        return max(0, int(self.high).bit_length() - 8)

    @property
    def _is_fraction(self) -> bool:
        return self.kind == "float" and self.low >= 0 and self.high <= 1


# The range of each kind over a whole dataset.
Ranges = Mapping[Kind, ValueRange]


def measure(values: np.ndarray) -> ValueRange:
    """Returns the range of the values of one image.

    Args:
      values: integer or floating-point pixels of any shape, with at least one value.

    Raises:
      ValueError: a value is infinite or not a number.
    """
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("has values that are infinite or not a number")
    return ValueRange("float" if values.dtype.kind == "f" else "integer", low, high)
