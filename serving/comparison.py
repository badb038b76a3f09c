"""Compares a shadow version with the version that answers, on the same requests."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

# Requests whose durations are kept.
_KEPT = 10_000
# Outputs that are compared.
COMPARED = frozenset({"class_name", "probabilities"})


class Comparison:
    """The comparison of two versions.

    Attributes:
      versions: (version that answers, shadow).
    """

    def __init__(self, versions: tuple[int, int]) -> None:
        self.versions = versions
        self._images = 0
        self._agreeing = 0
        self._confidence = [0.0, 0.0]
        self._seconds: tuple[deque[float], deque[float]] = (deque(maxlen=_KEPT), deque(maxlen=_KEPT))

    def add(
        self,
        answered: Mapping[str, np.ndarray],
        shadowed: Mapping[str, np.ndarray],
        seconds: tuple[float, float],
    ) -> int:
        """Adds the answers of both versions to one request.

        Args:
          answered: outputs of the version that answered, at least those of `COMPARED`.
          shadowed: outputs of the shadow.
          seconds: duration of each.

        Returns:
          The number of images for which both found a class of the same name.
        """
        agreeing = int(np.sum(answered["class_name"] == shadowed["class_name"]))
        self._images += len(answered["class_name"])
        self._agreeing += agreeing
        for index, outputs in enumerate((answered, shadowed)):
            self._confidence[index] += float(outputs["probabilities"].max(axis=1).sum())
            self._seconds[index].append(seconds[index])
        return agreeing

    def to_json(self) -> dict[str, Any]:
        """Returns the agreement, and mean confidence and median milliseconds of each version."""
        return {
            "images": self._images,
            "agreement": self._agreeing / self._images if self._images else None,
            "versions": [
                {
                    "version": version,
                    "mean_confidence": confidence / self._images if self._images else None,
                    "median_ms": 1000 * statistics.median(seconds) if seconds else None,
                }
                for version, confidence, seconds in zip(
                    self.versions, self._confidence, self._seconds, strict=True
                )
            ],
        }
