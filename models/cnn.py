"""The convolutional network for small images."""

from __future__ import annotations

import keras

from pipeline.config import CnnConfig


def build(config: CnnConfig, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds the network, untrained.

    One block per entry of `config.filters`: a 3x3 convolution, 2x2 max pooling, batch normalisation
    and ReLU, then the block's other convolutions, each with batch normalisation and ReLU. The pooling
    follows the first convolution and not the last, as in airbench (arXiv:2404.00498), so that most of
    the arithmetic is done on a quarter of the pixels. Global average pooling, an optional dense layer
    and dropout follow.

    Args:
      config: widths and depths.
      image_shape: (height, width, channels) of the images.
      num_classes: number of logits.

    Returns:
      A functional model from float32 [batch, height, width, channels] in [0, 1] to float32 logits
      [batch, num_classes].

    Raises:
      ValueError: the images are too small to be halved by every block.
    """
    blocks = len(config.filters)
    smallest = 2**blocks
    if min(image_shape[:2]) < smallest:
        raise ValueError(
            f"images of {image_shape[0]}x{image_shape[1]} pixels are too small for {blocks} blocks, "
            f"each of which halves the sides: at least {smallest}x{smallest} are needed. "
            "Set fewer model.cnn.filters or a larger model.image_size"
        )
    inputs = keras.Input(image_shape, name="image")
    x = keras.layers.Rescaling(2.0, offset=-1.0, name="rescale")(inputs)  # to [-1, 1]
    for block, filters in enumerate(config.filters, start=1):
        for index in range(1, config.convolutions_per_block + 1):
            name = f"block{block}_conv{index}"
            x = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                use_bias=not config.batch_normalization,
                kernel_initializer="he_normal",
                name=name,
            )(x)
            if index == 1:
                x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
            if config.batch_normalization:
                # The default momentum of 0.99 is still far from the data after a few hundred steps.
                x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    if config.dense_units:
        x = keras.layers.Dense(
            config.dense_units, activation="relu", kernel_initializer="he_normal", name="dense"
        )(x)
    x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    # float32 whatever the precision of the rest: the softmax of a bfloat16 has three digits.
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="cnn")
