"""MobileNetV2 with a new head, and which of its layers are trained."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from models import input, monitor, weights
from pipeline.config import AugmentationConfig, ConfigError, MobileNetV2Config

_LOG = logging.getLogger(__name__)

BACKBONE = "mobilenetv2"
_FEATURES = "features"  # the layer whose output the head takes
_BATCH = 64  # images whose features are computed at a time
_SECONDS_BETWEEN_MESSAGES = 5.0
# Of batch normalisation that is trained. Keras' 0.99 and 0.999 are for far longer trainings.
_MOMENTUM = 0.9


def build(config: MobileNetV2Config, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds the network with the weights that the configuration names.

    With pretrained weights, batch normalisation uses its stored statistics in training too, and is not
    trained, so that fine-tuning does not destroy them (https://keras.io/guides/transfer_learning).

    The head gets the averages over height and width of the outputs of one or several layers, side by side.
    With several, batch normalisation comes first, because they differ in scale.

    Args:
      config: width, weights, the head's layers and dropout.
      image_shape: (height, width, 3); both sides at least 32.
      num_classes: number of logits.

    Returns:
      A functional model from float32 [batch, height, width, 3] in [0, 1] to float32 logits
      [batch, num_classes]. With pretrained weights, see `freeze` and `unfreeze_from`.

    Raises:
      ConfigError: the weights cannot be found, or do not fit.
    """
    path = weights.locate(config, image_shape[:2])
    backbone = keras.applications.MobileNetV2(
        input_shape=image_shape, alpha=config.alpha, include_top=False, weights=None, name=BACKBONE
    )
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Not `backbone(x, training=False)`: Keras 3 overrides that with the outer model's mode.
            layer.trainable = path is None
            if path is None:
                layer.momentum = _MOMENTUM
    if path is not None:
        _load(backbone, path)
        _LOG.info("weights: %s", path)
    outputs = [backbone.get_layer(name).output for name in config.feature_layers]
    backbone = keras.Model(backbone.input, outputs, name=BACKBONE)
    inputs = keras.Input(image_shape, name="image")
    x = keras.layers.Rescaling(2.0, offset=-1.0, name="rescale")(inputs)
    # float32 whatever the precision of the rest: batch normalisation makes large what differs little from
    # image to image.
    float32 = {"dtype": "float32"}
    averages = [
        keras.layers.GlobalAveragePooling2D(name=f"{name}_average", **float32)(output)
        for name, output in zip(config.feature_layers, backbone(x), strict=True)
    ]
    x = keras.layers.Concatenate(name=_FEATURES, **float32)(averages)
    if len(averages) > 1:
        x = keras.layers.BatchNormalization(scale=False, momentum=_MOMENTUM, name="features_bn", **float32)(x)
    x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    logits = keras.layers.Dense(num_classes, name="logits", **float32)(x)
    return keras.Model(inputs, logits, name="mobilenetv2_classifier")


def freeze(model: keras.Model) -> None:
    """Leaves only the head of `model` trainable; call it before compiling."""
    model.get_layer(BACKBONE).trainable = False


def features(
    split: str,
    model: keras.Model,
    images: input.Images,
    config: AugmentationConfig = input.UNCHANGED,
    seed: int = 0,
    views: int = 1,
) -> input.Features:
    """Computes what the head of a frozen network gets: once, instead of in every epoch.

    Args:
      split: named in the log.
      model: what `build` returned.
      images: of the size that it takes.
      config: how each view is augmented.
      seed: of the augmentation; the same one gives the same views.
      views: of each image. One is enough where nothing is augmented.
    """
    if config == input.UNCHANGED:
        views = 1
    body = keras.Model(model.inputs, model.get_layer(_FEATURES).output)
    compute = tf.function(lambda batch: body(batch, training=False), autograph=False, reduce_retracing=True)
    values = np.empty((views, len(images), body.output_shape[-1]), np.float16)
    started = told = time.monotonic()
    for view in range(views):
        end = 0
        for batch, labels in input.augmented_view(images, _BATCH, config, seed, view):
            start, end = end, end + len(labels)
            values[view, start:end] = compute(batch).numpy()
            now = time.monotonic()
            if now - told >= _SECONDS_BETWEEN_MESSAGES:
                told = now
                done, total = view * len(images) + end, views * len(images)
                rate = done / (now - started)
                _LOG.info(
                    "features of the %s split: view %d/%d, image %d/%d, %.0f images/s, %s left",
                    split,
                    view + 1,
                    views,
                    end,
                    len(images),
                    rate,
                    monitor.duration((total - done) / rate),
                )
    return input.Features(values, images.labels)


def head(model: keras.Model) -> keras.Model:
    """Returns the head of `model` alone, from float32 [batch, features] to logits; it shares the weights."""
    first = model.get_layer(_FEATURES)
    inputs = keras.Input(first.output.shape[1:], name=_FEATURES)
    x = inputs
    for layer in model.layers[model.layers.index(first) + 1 :]:  # one after another, without a branch
        x = layer(x)
    return keras.Model(inputs, x, name="head")


def unfreeze_from(model: keras.Model, layer_name: str) -> None:
    """Makes the backbone trainable from one layer on, batch normalisation excepted; then compile again.

    Args:
      model: what `build` returned.
      layer_name: the first layer to be trained, such as `block_13_expand`.
    """
    backbone = model.get_layer(BACKBONE)
    first = [layer.name for layer in backbone.layers].index(layer_name)
    backbone.trainable = True
    for index, layer in enumerate(backbone.layers):
        layer.trainable = index >= first and not isinstance(layer, keras.layers.BatchNormalization)


def _load(backbone: keras.Model, path: Path) -> None:
    try:
        backbone.load_weights(path)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"the MobileNetV2 weights {path} do not fit: {error}") from error
