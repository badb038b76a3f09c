"""Slices of a split that are measured separately: by features of the examples, or properties of the images.

The Evaluator gets this module by its dotted path, and TFMA calls `custom_extractors`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from datasets import features
from datasets.decoding import decode
from models import durations
from settings.evaluation import BRIGHTNESS, CONTRAST

_LOG = logging.getLogger(__name__)

# Edges of the bands, as shares of the luma's range (ITU-R BT.601). Brightness is the mean of the luma;
# contrast is its standard deviation, which cannot exceed 0.5.
_EDGES = {BRIGHTNESS: (0, 0.25, 0.5, 0.75, 1), CONTRAST: (0, 0.1, 0.2, 0.3, 0.5)}


def bands(image_bytes: bytes) -> dict[str, str]:
    """Determines the bands of brightness and contrast that an image falls into.

    Args:
      image_bytes: encoded PNG or JPEG.

    Returns:
      The band of `brightness` and of `contrast`, such as "0.25 to 0.5". Brightness is the mean and contrast
      the standard deviation of the pixels' luma, which ranges from 0 (black) to 1 (white).
    """
    luma = np.asarray(decode(image_bytes).convert("L"), np.float32) / 255
    measured = {BRIGHTNESS: luma.mean(), CONTRAST: luma.std()}
    return {name: _band(value, _EDGES[name]) for name, value in measured.items()}


def _band(value: float, edges: Sequence[float]) -> str:
    # A value on an inner edge belongs to the band above the edge; a value on the last edge, to the last band.
    index = int(np.searchsorted(edges[1:-1], value, side="right"))
    return f"{edges[index]:g} to {edges[index + 1]:g}"


def custom_extractors(
    eval_shared_model: Any, eval_config: config_pb2.EvalConfig, tensor_adapter_config: Any
) -> list[Any]:
    """Builds the extractors of an evaluation. TFX's Evaluator calls this function by its name.

    Args:
      eval_shared_model: the model or models to be evaluated.
      eval_config: the configuration of the evaluation.
      tensor_adapter_config: the configuration of TFX's tensor adapter.

    Returns:
      TFMA's default extractors; one that logs the progress; and, if the configuration slices by brightness or
      contrast, one that adds the bands of both to the features.
    """
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model,
        eval_config=eval_config,
        tensor_adapter_config=tensor_adapter_config,
    )
    sliced_by = {key for spec in eval_config.slicing_specs for key in spec.feature_keys}
    if sliced_by.intersection(_EDGES):
        # Runs after the extraction of the features and before that of the slice keys, which needs the bands.
        add_bands = tfma.extractors.Extractor(stage_name="AddBands", ptransform=beam.Map(_add_bands))
        extractors.insert(1, add_bands)
    progress = tfma.extractors.Extractor(stage_name="Progress", ptransform=beam.ParDo(_LogProgress()))
    extractors.insert(1, progress)
    return extractors


class _LogProgress(beam.DoFn):
    """Passes batches of examples on, and logs every few seconds how many images this worker has seen."""

    def setup(self) -> None:
        self._images = 0
        self._pace = durations.Pace()

    def process(self, extracts: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield extracts
        self._images += np.size(extracts[tfma.FEATURES_KEY][features.IMAGE])
        if self._pace.is_due():
            rate = self._images / self._pace.elapsed
            _LOG.info("evaluated %s images, %.0f images/s", f"{self._images:,}", rate)


def _add_bands(extracts: dict[str, Any]) -> dict[str, Any]:
    values = dict(extracts[tfma.FEATURES_KEY])
    image_bands = [bands(image) for image in np.ravel(values[features.IMAGE])]
    for name in _EDGES:
        values[name] = np.array([band[name] for band in image_bands])[:, np.newaxis]
    return {**extracts, tfma.FEATURES_KEY: values}
