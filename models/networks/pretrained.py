"""A pretrained backbone with a new head, and which of its layers are trained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from models.networks import weights
from settings.base import ConfigError
from settings.model import PretrainedConfig

_LOG = logging.getLogger(__name__)

BACKBONE = "backbone"
FEATURES = "features"  # the layer whose output the head takes
# Momentum of trained batch normalisation. Keras' 0.99 and 0.999 are for much longer trainings.
_MOMENTUM = 0.9


def build(
    backbone: Callable[[Any, tuple[int, int, int]], keras.Model],
    scaling: Callable[[], keras.Layer],
    config: PretrainedConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> keras.Model:
    """Builds a network with the weights that the configuration names.

    With pretrained weights, batch normalisation uses its stored statistics in training too, and is not
    trained, so that fine-tuning does not destroy them (https://keras.io/guides/transfer_learning).

    The head gets the averages over height and width of the outputs of one or several layers, side by side.
    With several, batch normalisation comes first, because they differ in scale.

    Args:
      backbone: builds the backbone from its settings and an image shape.
      scaling: builds the layer from images in [0, 1] to the backbone's input.
      config: weights, the head's layers and dropout.
      image_shape: (height, width, 3).
      num_classes: number of logits.

    Returns:
      A functional model from float32 [batch, height, width, 3] in [0, 1] to float32 logits
      [batch, num_classes]. With pretrained weights, see `freeze` and `unfreeze_from`.

    Raises:
      ConfigError: the weights cannot be found, or do not fit the network.
    """
    path = weights.locate(config, image_shape[:2])
    body = backbone(config, image_shape)
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Not `body(x, training=False)`: Keras 3 overrides that with the outer model's mode.
            layer.trainable = path is None
            if path is None:
                layer.momentum = _MOMENTUM
    if path is not None:
        _load(body, path, config)
        _LOG.info("weights: %s", path)
    outputs = [body.get_layer(name).output for name in config.feature_layers]
    body = keras.Model(body.input, outputs, name=BACKBONE)
    inputs = keras.Input(image_shape, name="image")
    x = scaling()(inputs)
    # Float32 even in a bfloat16 network: batch normalisation amplifies small differences between images,
    # which bfloat16 would round away.
    float32 = {"dtype": "float32"}
    averages = [
        keras.layers.GlobalAveragePooling2D(name=f"{name}_average", **float32)(output)
        for name, output in zip(config.feature_layers, body(x), strict=True)
    ]
    x = keras.layers.Concatenate(name=FEATURES, **float32)(averages)
    if len(averages) > 1:
        x = keras.layers.BatchNormalization(scale=False, momentum=_MOMENTUM, name="features_bn", **float32)(x)
    x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    logits = keras.layers.Dense(num_classes, name="logits", **float32)(x)
    return keras.Model(inputs, logits, name=f"{config.architecture}_classifier")


def freeze(model: keras.Model) -> None:
    """Freezes the backbone, so that only the head of `model` is trained; call it before compiling."""
    model.get_layer(BACKBONE).trainable = False


def unfreeze_from(model: keras.Model, layer_name: str) -> None:
    """Makes the backbone trainable from one layer on, except its batch normalisation.

    Compile the model again afterwards.

    Args:
      model: the network that `build` returned.
      layer_name: the first layer to be trained, such as `block_13_expand`.
    """
    body = model.get_layer(BACKBONE)
    first = [layer.name for layer in body.layers].index(layer_name)
    body.trainable = True
    for index, layer in enumerate(body.layers):
        layer.trainable = index >= first and not isinstance(layer, keras.layers.BatchNormalization)


def head(model: keras.Model) -> keras.Model:
    """Returns the head of `model`, from float32 [batch, features] to logits; it shares the weights."""
    first = model.get_layer(FEATURES)
    inputs = keras.Input(first.output.shape[1:], name=FEATURES)
    x = inputs
    for layer in model.layers[model.layers.index(first) + 1 :]:  # the head is a chain without branches
        x = layer(x)
    return keras.Model(inputs, x, name="head")


def body(model: keras.Model) -> keras.Model:
    """Returns `model` without its head, from images to float32 [batch, features]; it shares the weights."""
    return keras.Model(model.inputs, model.get_layer(FEATURES).output)


def _load(backbone: keras.Model, path: Path, config: PretrainedConfig) -> None:
    try:
        backbone.load_weights(path)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"the {config.backbone.title} weights {path} do not fit: {error}") from error
