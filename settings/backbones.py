"""Layer names, sizes and weight files of the pretrained networks of keras.applications.

Settings that name a layer, a width or a weights file are checked against these tables before TensorFlow is
loaded. Tests compare the tables with the networks that Keras builds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

_KERAS_APPLICATIONS = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A pretrained network without its top, which classifies ImageNet's classes.

    Attributes:
      title: name of the network in messages and reports.
      layers: names of all layers except the input, in order.
      parameters: number of weights for each width multiplier that Keras publishes weights of.
      smallest_side: smallest height and width, in pixels, for which Keras builds the network.
      weights_address: URL of the folder with the published weights.
      weights_files: function of a width multiplier and an image size (height, width) that returns the names
        of the usable weight files, best first.
      weights_hashes: name of a weights file -> its published checksum, as `algorithm:hexadecimal digits`.
      values: for the first layer of each part of the network, the number of values for each pixel of an image
        that this layer and all layers after it compute together, at a width of 1.
      widest: the same number for the output of the layer that computes the most values.
    """

    title: str
    layers: tuple[str, ...]
    parameters: Mapping[float, int]
    smallest_side: int
    weights_address: str
    weights_files: Callable[[float, tuple[int, int]], list[str]]
    weights_hashes: Mapping[str, str]
    values: Mapping[str, float]
    widest: float

    def values_from(self, layer: str) -> float:
        """Returns the number of values for each pixel that the layers from `layer` on compute, or more."""
        position = self.layers.index
        return min(count for first, count in self.values.items() if position(first) <= position(layer))

    @property
    def weights_license(self) -> str:
        """Statement about the license of the published weights, for the model report."""
        return (
            f"{self.title}'s weights as Keras publishes them (Apache License 2.0), trained on ImageNet's "
            "images, whose terms allow non-commercial research and education only; whether that binds the "
            "weights is yours to judge"
        )


def _mobilenetv2_layers() -> tuple[str, ...]:
    names = ["Conv1", "bn_Conv1", "Conv1_relu"]
    for number in range(17):
        parts = ["expand", "expand_BN", "expand_relu"] if number else []
        if number in (1, 3, 6, 13):  # blocks that halve height and width
            parts.append("pad")
        parts += ["depthwise", "depthwise_BN", "depthwise_relu", "project", "project_BN"]
        if number in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15):  # blocks with a residual connection
            parts.append("add")
        names += [f"block_{number}_{part}" if number else f"expanded_conv_{part}" for part in parts]
    return (*names, "Conv_1", "Conv_1_bn", "out_relu")


def _mobilenetv2_files(alpha: float, image_size: tuple[int, int]) -> list[str]:
    # For image sizes without weights of their own, those trained at 224 pixels are the best choice. Keras
    # publishes weights for other sizes only up to width 1.0.
    sizes = [224]
    height, width = image_size
    if alpha <= 1.0 and height == width and height in (96, 128, 160, 192):
        sizes.insert(0, height)
    return [f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}_no_top.h5" for size in sizes]


MOBILENETV2 = Backbone(
    title="MobileNetV2",
    layers=_mobilenetv2_layers(),
    parameters={
        0.35: 410_208,
        0.5: 706_224,
        0.75: 1_382_064,
        1.0: 2_257_984,
        1.3: 3_766_048,
        1.4: 4_363_712,
    },
    smallest_side=32,
    weights_address=f"{_KERAS_APPLICATIONS}/mobilenet_v2/",
    weights_files=_mobilenetv2_files,
    # Neither Keras nor Google publishes checksums of these files.
    weights_hashes={},
    values={
        "Conv1": 432,
        "block_1_expand": 376,
        "block_3_expand": 200,
        "block_6_expand": 117,
        "block_10_expand": 73,
        "block_13_expand": 34,
    },
    widest=24.4,  # block_1_pad
)


def _efficientnetv2b0_layers() -> tuple[str, ...]:
    names = ["stem_conv", "stem_bn", "stem_activation"]
    for stage, repeats in enumerate((1, 2, 2, 3, 5, 8), start=1):
        for repeat in range(repeats):
            if stage == 1:
                parts = ["project_conv", "project_bn", "project_activation"]
            else:
                parts = ["expand_conv", "expand_bn", "expand_activation"]
                if stage > 3:  # stages with depthwise convolutions and squeeze-and-excitation
                    parts += ["dwconv2", "bn", "activation"]
                    parts += [f"se_{part}" for part in ("squeeze", "reshape", "reduce", "expand", "excite")]
                parts += ["project_conv", "project_bn"]
            if repeat:  # blocks with a residual connection
                parts += ["drop", "add"]
            names += [f"block{stage}{'abcdefgh'[repeat]}_{part}" for part in parts]
    return (*names, "top_conv", "top_bn", "top_activation")


EFFICIENTNETV2B0 = Backbone(
    title="EfficientNetV2B0",
    layers=_efficientnetv2b0_layers(),
    parameters={1.0: 5_919_312},
    smallest_side=32,
    weights_address=f"{_KERAS_APPLICATIONS}/efficientnet_v2/",
    weights_files=lambda _, __: ["efficientnetv2-b0_notop.h5"],
    # The second of `WEIGHTS_HASHES["b0"]` in keras/src/applications/efficientnet_v2.py.
    weights_hashes={"efficientnetv2-b0_notop.h5": "md5:893217f2bb855e2983157299931e43ff"},
    values={
        "stem_conv": 313,
        "block2a_expand_conv": 277,
        "block3a_expand_conv": 229,
        "block4a_expand_conv": 210,
        "block5a_expand_conv": 173,
        "block6a_expand_conv": 76,
    },
    widest=8,  # stem_conv
)
