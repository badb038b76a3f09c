"""EfficientNetV2-B0 (arXiv:2104.00298) without its classifier."""

from __future__ import annotations

import keras

from settings.model import EfficientNetV2B0Config

# Mean and standard deviation of ImageNet's red, green and blue, for images in [0, 1]. Keras' network begins
# with the same normalisation after dividing by 255. Both are switched off here, because Transform has already
# scaled the images to [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


def backbone(config: EfficientNetV2B0Config, image_shape: tuple[int, int, int]) -> keras.Model:
    """Builds the network with random weights.

    Args:
      config: the settings of the network, none of which changes its layers.
      image_shape: (height, width, 3); both sides at least 32.

    Returns:
      A model from normalised float32 [batch, height, width, 3] to the last feature map.
    """
    del config
    return keras.applications.EfficientNetV2B0(
        input_shape=image_shape, include_top=False, weights=None, include_preprocessing=False
    )


def scaling() -> keras.Layer:
    """Returns the layer that normalises images in [0, 1] as for the training of the published weights."""
    return keras.layers.Rescaling(
        [1 / deviation for deviation in _DEVIATION],
        offset=[-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)],
        name="rescale",
    )
