"""Parts of a split that are measured by themselves: by features of the examples, or of the images.

Named by dotted path as the Evaluator's module: TFX calls `custom_extractors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from datasets import features
from datasets.decoding import decode
from settings.evaluation import BRIGHTNESS, CONTRAST

# Of the bands, as shares of the range of the luma (ITU-R BT.601): of its mean, and of its standard
# deviation, which cannot be more than a half.
_EDGES = {BRIGHTNESS: (0, 0.25, 0.5, 0.75, 1), CONTRAST: (0, 0.1, 0.2, 0.3, 0.5)}


def bands(image_bytes: bytes) -> dict[str, str]:
    """Says into which bands of brightness and contrast an image falls.

    Args:
      image_bytes: encoded PNG or JPEG.

    Returns:
      For brightness and contrast a band, such as "0.25 to 0.5": the former is the mean and the latter the
      standard deviation of the pixels' luma, from 0 (black) to 1 (white).
    """
    luma = np.asarray(decode(image_bytes).convert("L"), np.float32) / 255
    measured = {BRIGHTNESS: luma.mean(), CONTRAST: luma.std()}
    return {name: _band(value, _EDGES[name]) for name, value in measured.items()}


def _band(value: float, edges: Sequence[float]) -> str:
    # What lies on an edge belongs to the band above it, but for the last edge.
    index = int(np.searchsorted(edges[1:-1], value, side="right"))
    return f"{edges[index]:g} to {edges[index + 1]:g}"


def custom_extractors(
    eval_shared_model: Any, eval_config: tfma.EvalConfig, tensor_adapter_config: Any
) -> list[Any]:
    """Returns TFMA's extractors, and one that adds the bands to the features; called by the Evaluator."""
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model,
        eval_config=eval_config,
        tensor_adapter_config=tensor_adapter_config,
    )
    sliced_by = {key for spec in eval_config.slicing_specs for key in spec.feature_keys}
    if sliced_by.intersection(_EDGES):
        # After the features, before the slices are made of them.
        add_bands = tfma.extractors.Extractor(stage_name="AddBands", ptransform=beam.Map(_add_bands))
        extractors.insert(1, add_bands)
    return extractors


def _add_bands(extracts: dict[str, Any]) -> dict[str, Any]:
    values = dict(extracts[tfma.FEATURES_KEY])
    found = [bands(image) for image in np.ravel(values[features.IMAGE])]
    for name in _EDGES:
        values[name] = np.array([band[name] for band in found])[:, np.newaxis]
    return {**extracts, tfma.FEATURES_KEY: values}
