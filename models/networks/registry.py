"""The registry of architectures: the only place that maps their names to networks.

A new architecture is a module beside this one, a section in `settings/model.py` and a row of `ARCHITECTURES`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from models.data.images import Images
from models.networks import cnn, efficientnetv2b0, mobilenetv2, pretrained
from settings.model import ModelConfig, NetworkConfig, PretrainedConfig

ImageShape = tuple[int, int, int]  # (height, width, channels)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a training.

    Attributes:
      name: shown in logs and in the history.
      mark_trainable: marks the layers of a model that this stage trains.
      on_features: whether only the head is trained, on features that the frozen network computes once.
      epochs: maximum number of epochs; None stands for `trainer.epochs`.
      rate: the peak learning rate, as a fraction of `trainer.learning_rate`.
    """

    name: str
    mark_trainable: Callable[[keras.Model], None] = lambda model: None
    on_features: bool = False
    epochs: int | None = None
    rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How the networks of one architecture are built and trained.

    Attributes:
      build: builds the network from its settings, the shape of its images and the number of classes: a model
        from float32 [batch, height, width, channels] in [0, 1] to float32 logits [batch, classes].
      stages: returns the stages of training, in order, for the architecture's settings.
      prepare: sets weights that are computed from the training images instead of learned. Its last argument
        averages an array over all workers, weighted by each worker's image count.
    """

    build: Callable[[Any, ImageShape, int], keras.Model]
    stages: Callable[[Any], Sequence[Stage]]
    prepare: Callable[[keras.Model, Any, Images, Callable[[np.ndarray], np.ndarray]], None] = (
        lambda model, config, images, average: None
    )


TRAINING = "training"
FINE_TUNING = "fine-tuning"


def _one_stage(config: NetworkConfig) -> Sequence[Stage]:
    del config
    return [Stage(TRAINING)]


def _frozen_then_fine_tuned(config: PretrainedConfig) -> Sequence[Stage]:
    if not config.is_pretrained:
        # Random features are not worth freezing: all weights are trained from the start.
        return [Stage(TRAINING)]
    stages = [Stage(TRAINING, pretrained.freeze, on_features=True)]
    if config.fine_tune_epochs:
        unfreeze = functools.partial(pretrained.unfreeze_from, layer_name=config.fine_tune_from)
        stages.append(
            Stage(FINE_TUNING, unfreeze, epochs=config.fine_tune_epochs, rate=config.fine_tune_rate)
        )
    return stages


ARCHITECTURES: Mapping[str, Architecture] = {
    "cnn": Architecture(cnn.build, _one_stage, cnn.prepare),
    "mobilenetv2": Architecture(
        functools.partial(pretrained.build, mobilenetv2.backbone, mobilenetv2.scaling),
        _frozen_then_fine_tuned,
    ),
    "efficientnetv2b0": Architecture(
        functools.partial(pretrained.build, efficientnetv2b0.backbone, efficientnetv2b0.scaling),
        _frozen_then_fine_tuned,
    ),
}


def find(config: ModelConfig) -> Architecture:
    """Returns the architecture that the configuration names."""
    return ARCHITECTURES[config.architecture]
