"""Estimates the memory and disk space that a run needs, from its settings alone.

Most of a run's memory is that of training: the outputs of the network's layers, which the backward pass
needs, for all images of a batch. The estimate adds up the sizes of these outputs. Its constants were fitted
to the peaks of trainings on a CPU; docs/training.md says how far it is off.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from settings import search
from settings.model import WHITENED_SIDE, CnnConfig, NetworkConfig, PretrainedConfig
from settings.pipeline import PipelineConfig
from settings.training import AugmentationConfig

MEBIBYTE = 2**20

_CHANNELS = 3
_FLOAT32, _BFLOAT16, _FLOAT16 = 4, 2, 2
# Bytes of the process without the images and the networks that a run works on: TensorFlow, TFX, Beam, and the
# compiled graphs of the Trainer, the Evaluator and the report.
_BASE = 1_500 * MEBIBYTE
# Bytes for each pixel of a batch that is being augmented (the images before and after, and the source of each
# pixel), and of one that waits for its turn.
_AUGMENTED, _WAITING = 51, 12
_BATCHES_AHEAD, _MAX_LOADERS = 2, 8  # as in models.data.batches
# Bytes for each pixel of an image file that is being decoded and resized; each core decodes one at a time.
_DECODED = 20
# Images that are classified at a time, as in models.data.images and components.serving_check: at most 64, of
# about 2 million pixels, but at least 8.
_FORWARD_IMAGES, _FORWARD_PIXELS, _FORWARD_LEAST = 64, 2**21, 8
# Bytes of a process of `tuner.parallel` without its training step: TensorFlow and the compiled graphs.
_TRIAL_PROCESS = 400 * MEBIBYTE
# Share of the memory for classifying images after the training that is not taken from what the training has
# left: TensorFlow does not give all of it back.
_NOT_REUSED = 0.5
# Tensors of the size of a layer's output that exist while the layer is computed, forwards or backwards: its
# output or its gradient, its input, and a copy in the order in which the convolution wants its values.
_PASSING = 3
# Share of a backbone's layer outputs that is kept for the backward pass. Batch normalisation that is trained
# keeps several tensors in float32, frozen one keeps none.
_KEPT, _KEPT_WITH_NORMALIZATION = 0.5, 1.3
# Weights, their gradients, the optimizer's two values for each, the best weights, and those of the export.
_COPIES_OF_WEIGHTS = 6
_FEATURES = 1280  # channels of the last layer of the pretrained networks
_COPIES_OF_FEATURES = 2


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run needs at the same time, in bytes.

    Attributes:
      size: (height, width) of the network's input, in pixels.
      batch_size: images in a training step.
      base: memory of the process without images and networks.
      images: memory of the decoded images.
      work: memory of a training step with the weights and the batches that are prepared for it, or that of
        decoding or classifying images, or that of all processes of `tuner.parallel`, whichever is largest.
      evaluation: memory of classifying images after the training, beyond what the training leaves.
      disk: size of the decoded images that are larger than `trainer.cache_mebibytes`, in files in TMPDIR.
    """

    size: tuple[int, int]
    batch_size: int
    base: int
    images: int
    work: int
    evaluation: int
    disk: int

    @property
    def memory(self) -> int:
        """All memory together."""
        return self.base + self.images + self.work + self.evaluation


def estimate(
    config: PipelineConfig, dataset_size: tuple[int, int], counts: Mapping[str, int], cores: int
) -> Estimate:
    """Estimates what a run on one machine without GPU needs.

    Args:
      config: the settings.
      dataset_size: (height, width) of the dataset's images, in pixels.
      counts: number of images of each split.
      cores: number of CPU cores.

    Returns:
      The estimate; where the Tuner chooses settings, for the values that need the most memory.
    """
    if not config.has_tuner:
        return _estimate(config, dataset_size, counts, cores)
    largest = config
    for dimension in search.resolve(config.searched(), config):
        candidates = dimension.values or (dimension.at(0.0), dimension.at(1.0))
        largest = max(
            (largest.with_setting(dimension.key, value) for value in candidates),
            key=lambda changed: _estimate(changed, dataset_size, counts, cores).memory,
        )
    alone = _estimate(largest, dataset_size, counts, cores)
    parallel = config.tuner.parallel
    if parallel == 1:
        return alone
    trial = _estimate(largest, dataset_size, counts, max(1, cores // parallel))
    return dataclasses.replace(alone, work=max(alone.work, parallel * (_TRIAL_PROCESS + trial.work)))


def _estimate(
    config: PipelineConfig, dataset_size: tuple[int, int], counts: Mapping[str, int], cores: int
) -> Estimate:
    size = config.model.input_size(dataset_size)
    pixels, network = math.prod(size), config.model.network
    batch_size = min(config.trainer.batch_size, counts["train"])
    # `auto` is float32 on machines that lack bfloat16.
    bytes_per_value = _BFLOAT16 if config.trainer.precision == "mixed_bfloat16" else _FLOAT32
    loading = min(cores, _MAX_LOADERS) * _AUGMENTED + (_BATCHES_AHEAD + 1) * _WAITING  # for each pixel
    at_a_time = min(_FORWARD_IMAGES, max(_FORWARD_LEAST, _FORWARD_PIXELS // pixels), max(counts.values()))
    trained, weights = _training_step(network, size, bytes_per_value), _weights(network)
    features = 0
    if isinstance(network, PretrainedConfig) and network.is_pretrained:
        features = _features(config, network, counts["train"])
    classified = at_a_time * (_classification(network, size) + loading * pixels)
    work = (
        cores * _DECODED * math.prod(dataset_size),
        classified + features,
        batch_size * (trained + loading * pixels) + weights if trained else 0,
    )
    splits = [counts[split] * pixels * _CHANNELS for split in ("train", "val")]
    limit = config.trainer.cache_mebibytes * MEBIBYTE
    return Estimate(
        size=size,
        batch_size=batch_size,
        base=_BASE,
        images=sum(split for split in splits if split <= limit),
        work=round(max(work)),
        evaluation=round(_NOT_REUSED * classified),
        disk=sum(split for split in splits if split > limit),
    )


def _training_step(network: NetworkConfig, size: tuple[int, int], bytes_per_value: int) -> float:
    """Returns the bytes of a training step for each image; 0 if only the head of the network is trained."""
    if isinstance(network, CnnConfig):
        return _cnn_step(network, size, bytes_per_value)
    assert isinstance(network, PretrainedConfig)
    if not network.is_pretrained:
        values = _KEPT_WITH_NORMALIZATION * network.backbone.values_from(network.backbone.layers[0])
    elif network.fine_tune_epochs:
        values = _KEPT * network.backbone.values_from(network.fine_tune_from)
        values = max(values, _PASSING * network.backbone.widest)
    else:
        return 0
    return math.prod(size) * network.width * values * bytes_per_value


def _cnn_step(config: CnnConfig, size: tuple[int, int], bytes_per_value: int) -> float:
    """Returns the bytes of a training step for each image; see `models.networks.cnn.build` for the layers."""
    height, width = size
    kept = float(_CHANNELS * _FLOAT32 * height * width)  # the scaled image
    if config.whitening:
        height, width = height - WHITENED_SIDE + 1, width - WHITENED_SIDE + 1
        filters = 2 * WHITENED_SIDE**2 * _CHANNELS
        kept += 2 * filters * _FLOAT32 * height * width  # the input and the output of the activation
    highest = 0.0
    # A gradient of ReLU needs only its output.
    kept_per_convolution = 1 + config.batch_normalization + (config.activation == "gelu")
    for filters in config.filters:
        for index in range(config.convolutions_per_block):
            output = filters * bytes_per_value * height * width
            kept += output
            highest = max(highest, kept + _PASSING * output)
            if index == 0:  # pooling follows
                height, width = height // 2, width // 2
                output = filters * bytes_per_value * height * width
                kept += kept_per_convolution * output
            else:
                kept += (kept_per_convolution - 1) * output
    return max(highest, kept)


def _classification(network: NetworkConfig, size: tuple[int, int]) -> float:
    """Returns the bytes for each image that the network classifies, in float32."""
    if isinstance(network, CnnConfig):
        widest: float = max(network.filters[0], 2 * WHITENED_SIDE**2 * _CHANNELS * network.whitening)
    else:
        assert isinstance(network, PretrainedConfig)
        widest = network.backbone.widest * network.width
    return _PASSING * widest * _FLOAT32 * math.prod(size)


def _weights(network: NetworkConfig) -> int:
    """Returns the bytes of the weights and of everything that has their size."""
    if isinstance(network, PretrainedConfig):
        return _COPIES_OF_WEIGHTS * _FLOAT32 * network.backbone.parameters[network.width]
    assert isinstance(network, CnnConfig)
    parameters = sum(
        9 * filters * (before + (network.convolutions_per_block - 1) * filters)
        for before, filters in zip((_CHANNELS, *network.filters[:-1]), network.filters, strict=True)
    )
    return _COPIES_OF_WEIGHTS * _FLOAT32 * parameters


def _features(config: PipelineConfig, network: PretrainedConfig, count: int) -> int:
    """Returns the bytes of the features of `count` training images."""
    views = 1 if config.augmentation == AugmentationConfig.none() else network.feature_views
    return _COPIES_OF_FEATURES * _FLOAT16 * _FEATURES * len(network.feature_layers) * views * count
