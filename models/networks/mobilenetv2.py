"""MobileNetV2 (arXiv:1801.04381) without its classifier."""

from __future__ import annotations

import keras

from settings.model import MobileNetV2Config


def backbone(config: MobileNetV2Config, image_shape: tuple[int, int, int]) -> keras.Model:
    """Builds the network with random weights.

    Args:
      config: the settings of the network, of which `alpha` sets the width.
      image_shape: (height, width, 3); both sides at least 32.

    Returns:
      A model from float32 [batch, height, width, 3] in [-1, 1] to the last feature map.
    """
    return keras.applications.MobileNetV2(
        input_shape=image_shape, alpha=config.alpha, include_top=False, weights=None
    )


def scaling() -> keras.Layer:
    """Returns the layer that scales images in [0, 1] to [-1, 1], as the published weights expect them."""
    return keras.layers.Rescaling(2.0, offset=-1.0, name="rescale")
