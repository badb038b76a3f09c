"""MobileNetV2 with a new head, and which of its layers are trained."""

from __future__ import annotations

import difflib
from pathlib import Path

import h5py
import keras

from models import weights
from pipeline.config import ConfigError, MobileNetV2Config

MIN_SIDE = 32  # keras.applications.MobileNetV2 accepts nothing smaller
BACKBONE = "mobilenetv2"
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
      ValueError: the images are too small.
      ConfigError: the weights cannot be found, or do not fit.
    """
    height, width, _ = image_shape
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"MobileNetV2 needs images of at least {MIN_SIDE}x{MIN_SIDE} pixels, found {height}x{width}. "
            "Set model.image_size (96 or more is better still)"
        )
    path = weights.locate(config, (height, width))
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
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="mobilenetv2_classifier")


def freeze(model: keras.Model) -> None:
    """Leaves only the head of `model` trainable; call it before compiling."""
    model.get_layer(BACKBONE).trainable = False


def unfreeze_from(model: keras.Model, layer_name: str) -> None:
    """Makes the backbone trainable from one layer on, batch normalisation excepted; then compile again.

    Args:
      model: what `build` returned.
      layer_name: the first layer to be trained, such as `block_13_expand`.

    Raises:
      ConfigError: there is no such layer.
    """
    backbone = model.get_layer(BACKBONE)
    names = [layer.name for layer in backbone.layers]
    if layer_name not in names:
        close = difflib.get_close_matches(layer_name, names, n=5, cutoff=0.4)
        raise ConfigError(
            f"model.mobilenetv2.fine_tune_from: MobileNetV2 has no layer {layer_name!r}. "
            f"Similar ones: {', '.join(close or names[1:6])}"
        )
    first = names.index(layer_name)
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
