"""The optimizers that can be configured, and which weights each of them decays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from models.training import muon
from settings.training import TrainerConfig

_SGD_MOMENTUM = 0.9
_MUON_MOMENTUM = 0.6
_WEIGHT_DECAY = 0.02


def create(config: TrainerConfig, model: keras.Model, learning_rate: Any) -> keras.optimizers.Optimizer:
    """Creates the configured optimizer.

    Weight decay is decoupled (arXiv:1711.05101) and applies to kernels only: each step multiplies them by
    `1 - learning_rate * weight_decay`; biases and batch normalisation are not decayed.

    Args:
      config: the name of the optimizer, its momentum and its weight decay.
      model: the network, with its trainable layers marked.
      learning_rate: a number or a schedule.
    """
    return _OPTIMIZERS[config.optimizer](config, model, learning_rate)


def _adam(config: TrainerConfig, model: keras.Model, learning_rate: Any) -> keras.optimizers.Optimizer:
    del config, model
    return keras.optimizers.Adam(learning_rate)


def _adamw(config: TrainerConfig, model: keras.Model, learning_rate: Any) -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=_or(config.weight_decay, _WEIGHT_DECAY))
    return _decaying_kernels_only(optimizer, model)


def _sgd(config: TrainerConfig, model: keras.Model, learning_rate: Any) -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.SGD(
        learning_rate,
        momentum=_or(config.momentum, _SGD_MOMENTUM),
        nesterov=True,
        weight_decay=_or(config.weight_decay, _WEIGHT_DECAY),
    )
    return _decaying_kernels_only(optimizer, model)


def _muon(config: TrainerConfig, model: keras.Model, learning_rate: Any) -> keras.optimizers.Optimizer:
    return muon.Muon(learning_rate, muon.hidden_layers(model), _or(config.momentum, _MUON_MOMENTUM))


_OPTIMIZERS: Mapping[str, Callable[[TrainerConfig, keras.Model, Any], keras.optimizers.Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "sgd": _sgd,
    "muon": _muon,
}


def _or(configured: float | None, default: float) -> float:
    return default if configured is None else configured


def _decaying_kernels_only(
    optimizer: keras.optimizers.Optimizer, model: keras.Model
) -> keras.optimizers.Optimizer:
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) < 2])
    return optimizer
