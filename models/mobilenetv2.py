"""MobileNetV2 with a new head, and which of its layers are trained."""

from __future__ import annotations

import difflib
import logging
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

from models import input, weights
from pipeline.config import AugmentationConfig, ConfigError, MobileNetV2Config

_LOG = logging.getLogger(__name__)

BACKBONE = "mobilenetv2"
_POOLED = "average"  # the layer whose output the head takes
_HEAD = ("dropout", "logits")
_BATCH = 64  # images whose features are computed at a time
_SECONDS_BETWEEN_MESSAGES = 5.0
_MOMENTUM = 0.9  # of batch normalisation, with random weights


def build(config: MobileNetV2Config, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Builds the network with the weights that the configuration names.

    With pretrained weights, batch normalisation uses its stored statistics in training too, and is not
    trained, so that fine-tuning does not destroy them (https://keras.io/guides/transfer_learning).

    Args:
      config: width, weights and dropout.
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
                # Keras' 0.999 is for ImageNet's hundred thousands of steps.
                layer.momentum = _MOMENTUM
    if path is not None:
        _load(backbone, path, config.alpha)
    inputs = keras.Input(image_shape, name="image")
    x = keras.layers.Rescaling(2.0, offset=-1.0, name="rescale")(inputs)
    x = backbone(x)
    x = keras.layers.GlobalAveragePooling2D(name=_POOLED)(x)
    x = keras.layers.Dropout(config.dropout, name=_HEAD[0])(x)
    logits = keras.layers.Dense(num_classes, dtype="float32", name=_HEAD[1])(x)
    return keras.Model(inputs, logits, name="mobilenetv2_classifier")


def freeze(model: keras.Model) -> None:
    """Leaves only the head of `model` trainable; call it before compiling."""
    model.get_layer(BACKBONE).trainable = False


def features(
    model: keras.Model,
    images: input.Images,
    config: AugmentationConfig = input.UNCHANGED,
    seed: int = 0,
    views: int = 1,
) -> input.Features:
    """Computes what the head of a frozen network gets: once, instead of in every epoch.

    Args:
      model: what `build` returned.
      images: of the size that it takes.
      config: how each view is augmented.
      seed: of the augmentation; the same one gives the same views.
      views: of each image. One is enough where nothing is augmented.
    """
    if config == input.UNCHANGED:
        views = 1
    body = keras.Model(model.inputs, model.get_layer(_POOLED).output)
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
                done = view * len(images) + end
                _LOG.info(
                    "features: view %d/%d, image %d/%d, %.0f images/s",
                    view + 1,
                    views,
                    end,
                    len(images),
                    done / (now - started),
                )
    return input.Features(values, images.labels)


def head(model: keras.Model) -> keras.Model:
    """Returns the head of `model` alone, from float32 [batch, features] to logits; it shares the weights."""
    inputs = keras.Input(model.get_layer(_POOLED).output.shape[1:], name="features")
    x = inputs
    for name in _HEAD:
        x = model.get_layer(name)(x)
    return keras.Model(inputs, x, name="head")


def check_layer(model: keras.Model, layer_name: str) -> None:
    """Raises a ConfigError if the backbone has no such layer."""
    names = [layer.name for layer in model.get_layer(BACKBONE).layers]
    if layer_name not in names:
        close = difflib.get_close_matches(layer_name, names, n=5, cutoff=0.4)
        raise ConfigError(
            f"model.mobilenetv2.fine_tune_from: MobileNetV2 has no layer {layer_name!r}. "
            f"Similar ones: {', '.join(close or names[1:6])}"
        )


def unfreeze_from(model: keras.Model, layer_name: str) -> None:
    """Makes the backbone trainable from one layer on, batch normalisation excepted; then compile again.

    Args:
      model: what `build` returned.
      layer_name: the first layer to be trained, such as `block_13_expand`.

    Raises:
      ConfigError: there is no such layer.
    """
    check_layer(model, layer_name)
    backbone = model.get_layer(BACKBONE)
    first = [layer.name for layer in backbone.layers].index(layer_name)
    backbone.trainable = True
    for index, layer in enumerate(backbone.layers):
        layer.trainable = index >= first and not isinstance(layer, keras.layers.BatchNormalization)


def _load(backbone: keras.Model, path: Path, alpha: float) -> None:
    expected = backbone.count_params()
    try:
        with h5py.File(path, "r") as file:
            found = _count_values(file)
    except OSError as error:
        raise ConfigError(
            f"the MobileNetV2 weights {path} ({path.stat().st_size:,} bytes) are truncated or not an "
            f"HDF5 file: {error}. Download them again, or delete the file"
        ) from error
    if found == expected:
        try:
            backbone.load_weights(path)
            return
        except (ValueError, KeyError) as error:
            raise ConfigError(f"the MobileNetV2 weights {path} do not fit: {error}") from error
    raise ConfigError(
        f"the MobileNetV2 weights {path} do not fit model.mobilenetv2.alpha={alpha}: expected {expected:,} "
        f"parameters (without top), found {found:,}"
    )


def _count_values(group: h5py.Group) -> int:
    """Counts the numbers in all datasets below an HDF5 group."""
    sizes: list[int] = []
    group.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    return sum(sizes)
