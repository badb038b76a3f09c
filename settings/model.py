"""Architecture, hyperparameters and image size of the network."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import Field

from settings.backbones import EFFICIENTNETV2B0, MOBILENETV2, Backbone
from settings.base import ConfigError, Flag, Fraction, NonNegativeInt, PositiveInt, Section, all_different
from settings.images import WHITE, ColorSetting, ResizeMethod

RANDOM_WEIGHTS = "random"
IMAGENET_WEIGHTS = "imagenet"
WHITENED_SIDE = 2  # side, in pixels, of the patches that the CNN's first convolution decorrelates


class NetworkConfig(Section):
    """Settings of one architecture, and the properties that other settings are checked against.

    Attributes:
      architecture: name of the architecture, which is also the key of this section within `model`.
      preset: name of the file in `configs/` that a run of this architecture starts from.
      takes_any_size: whether the weights fit images of any size, so that training images may be cropped.
    """

    architecture: ClassVar[str]
    preset: ClassVar[str]
    takes_any_size: ClassVar[bool] = False

    @property
    def is_pretrained(self) -> bool:
        """Whether training starts from weights in a file."""
        return False

    @property
    def suits_muon(self) -> bool:
        """Whether batch normalisation follows the convolutions, which the optimizer Muon requires."""
        return False

    @property
    def ignores_mirroring(self) -> bool:
        """Whether the answers for an image and its mirror image are the same."""
        return False

    @property
    def weights_license(self) -> str | None:
        """Statement about the license of pretrained weights for the report; None without such weights."""
        return None

    def check_image_size(self, size: tuple[int, int], crop_scales: Sequence[float] = (1.0,)) -> None:
        """Checks that images are large enough for the network.

        Args:
          size: (height, width) of the network's input, in pixels.
          crop_scales: sides of the training crops, as fractions of the images' sides.

        Raises:
          ConfigError: images or crops are too small.
        """
        raise NotImplementedError


class CnnConfig(NetworkConfig):
    """A convolutional network with one block per entry of `filters`; each block halves height and width."""

    architecture: ClassVar[str] = "cnn"
    preset: ClassVar[str] = "quick.yaml"
    takes_any_size: ClassVar[bool] = True

    whitening: Flag = Field(
        True, description="begin with a convolution that decorrelates patches of the training images"
    )
    filters: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        (32, 64, 128, 256), description="number of filters in each block, 1 or more"
    )
    mirrored_filters: Flag = Field(
        False,
        description="make half of the filters mirror images of the other half; unsuitable for classes that "
        "differ in left and right, such as letters. All `filters` have to be even",
    )
    convolutions_per_block: PositiveInt = Field(
        1,
        description="convolutions in each block, 1 or more; with three or more, a residual connection skips "
        "all but the first",
    )
    pooling: Literal["max", "average"] = Field(
        "max",
        description="pooling of 2x2 pixels in each block and of all pixels before the logits: `max` or "
        "`average`",
    )
    batch_normalization: Flag = Field(
        True, description="normalise the output of each convolution except the whitening over the batch"
    )
    activation: Literal["relu", "gelu"] = Field("gelu", description="activation function: `relu` or `gelu`")
    dense_units: NonNegativeInt = Field(
        0, description="units of a hidden dense layer before the logits; 0 leaves the layer out"
    )
    dropout: Fraction = Field(0.1, description="dropout rate before the logits, from 0 to below 1")
    standardization: Flag = Field(
        False,
        description="subtract each image's mean and divide by its standard deviation, so that neither its "
        "brightness nor its contrast changes the answer",
    )

    @pydantic.model_validator(mode="after")
    def _filters_can_be_halved(self) -> CnnConfig:
        if self.mirrored_filters and any(filters % 2 for filters in self.filters):
            raise ValueError(
                f"mirrored_filters needs an even number of filters in each block, found {list(self.filters)}"
            )
        return self

    @property
    def suits_muon(self) -> bool:
        return self.batch_normalization

    @property
    def ignores_mirroring(self) -> bool:
        return self.mirrored_filters

    @property
    def smallest_side(self) -> int:
        """The smallest side, in pixels, of images that every block can halve."""
        return 2 ** len(self.filters) + self.whitening * (WHITENED_SIDE - 1)

    def check_image_size(self, size: tuple[int, int], crop_scales: Sequence[float] = (1.0,)) -> None:
        height, width = size
        blocks, needed = len(self.filters), self.smallest_side
        if min(size) < needed:
            raise ConfigError(
                f"images of {width}x{height} pixels are too small for {blocks} blocks, each of which halves "
                f"the sides: at least {needed}x{needed} pixels are needed. Set fewer model.cnn.filters or a "
                "larger model.image_size"
            )
        for scale in crop_scales:
            scaled = round(min(size) * scale)
            if scaled < needed:
                raise ConfigError(
                    f"trainer.crop_scales: scale {scale:g} crops images of {min(size)} pixels to {scaled}, "
                    f"too few for {blocks} blocks, each of which halves the sides: at least {needed} pixels "
                    "are needed. Set larger scales or fewer model.cnn.filters"
                )


FeatureLayers = Annotated[
    tuple[str, ...],
    Field(
        min_length=1,
        description="layers whose outputs, averaged over height and width, are the input of the head; layers "
        "after the last of them are left out",
    ),
    pydantic.AfterValidator(all_different),
]
FirstFineTunedLayer = Annotated[str, Field(description="the first layer that fine-tuning changes")]


class PretrainedConfig(NetworkConfig):
    """A network of keras.applications, whose head is trained before its last layers are fine-tuned.

    Attributes:
      backbone: layers, sizes and weight files of the network.
    """

    backbone: ClassVar[Backbone]

    weights: str = Field(
        IMAGENET_WEIGHTS,
        description="initial weights: `imagenet`, `random`, or the path of an .h5 file without the top",
    )
    dropout: Fraction = Field(0.2, description="dropout rate before the logits, from 0 to below 1")
    feature_layers: FeatureLayers
    feature_views: PositiveInt = Field(
        4,
        description="number of augmented views of each image that the head learns from, 1 or more. The "
        "features of each view are computed once; without augmentation there is only one view",
    )
    fine_tune_epochs: NonNegativeInt = Field(
        10, description="largest number of epochs of fine-tuning; 0 switches fine-tuning off"
    )
    fine_tune_from: FirstFineTunedLayer
    fine_tune_rate: Annotated[float, Field(strict=True, gt=0, lt=1)] = Field(
        0.1,
        description="learning rate of fine-tuning as a fraction of the head's learning rate, above 0 and "
        "below 1",
    )

    @pydantic.field_validator("feature_layers", "fine_tune_from")
    @classmethod
    def _layers_exist(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        layers = cls.backbone.layers
        for name in (value,) if isinstance(value, str) else value:
            if name not in layers:
                similar = difflib.get_close_matches(name, layers, n=3) or layers[-1:]
                raise ValueError(
                    f"{name} is not a layer of {cls.backbone.title}; similar ones are {', '.join(similar)}"
                )
        return value

    @pydantic.model_validator(mode="after")
    def _fine_tuned_layers_exist(self) -> PretrainedConfig:
        position = self.backbone.layers.index
        last = max(self.feature_layers, key=position)
        if self.fine_tune_epochs and position(self.fine_tune_from) > position(last):
            raise ValueError(
                f"fine_tune_from={self.fine_tune_from} comes after {last}, the last of feature_layers, and "
                "is therefore not part of the network. Set an earlier layer, or fine_tune_epochs=0"
            )
        return self

    @property
    def width(self) -> float:
        """Width multiplier of all layers."""
        return 1.0

    @property
    def is_pretrained(self) -> bool:
        return self.weights != RANDOM_WEIGHTS

    @property
    def weights_license(self) -> str | None:
        if not self.is_pretrained:
            return None
        if self.weights == IMAGENET_WEIGHTS:
            return self.backbone.weights_license
        return f"that of {Path(self.weights).name}"

    def check_image_size(self, size: tuple[int, int], crop_scales: Sequence[float] = (1.0,)) -> None:
        needed, (height, width) = self.backbone.smallest_side, size
        if min(size) < needed:
            raise ConfigError(
                f"{self.backbone.title} needs images of at least {needed}x{needed} pixels, found "
                f"{width}x{height}. Set a larger model.image_size; 96 or more is recommended"
            )


class MobileNetV2Config(PretrainedConfig):
    """MobileNetV2 (arXiv:1801.04381)."""

    architecture: ClassVar[str] = "mobilenetv2"
    preset: ClassVar[str] = "mobilenetv2.yaml"
    backbone: ClassVar[Backbone] = MOBILENETV2

    alpha: Annotated[float, Field(strict=True)] = Field(
        1.0, description=f"width multiplier, one of {', '.join(map(str, MOBILENETV2.parameters))}"
    )
    feature_layers: FeatureLayers = ("out_relu",)
    fine_tune_from: FirstFineTunedLayer = "block_13_expand"

    @pydantic.field_validator("alpha")
    @classmethod
    def _weights_are_published(cls, value: float) -> float:
        if value not in cls.backbone.parameters:
            raise ValueError(f"expected one of {', '.join(map(str, cls.backbone.parameters))}")
        return value

    @property
    def width(self) -> float:
        return self.alpha


class EfficientNetV2B0Config(PretrainedConfig):
    """EfficientNetV2-B0 (arXiv:2104.00298)."""

    architecture: ClassVar[str] = "efficientnetv2b0"
    preset: ClassVar[str] = "efficientnetv2b0.yaml"
    backbone: ClassVar[Backbone] = EFFICIENTNETV2B0

    feature_layers: FeatureLayers = ("top_activation",)
    fine_tune_from: FirstFineTunedLayer = "block6a_expand_conv"


class ModelConfig(Section):
    """The architecture of the network, the settings of each architecture, and the image size."""

    architecture: str = Field(
        "cnn", description="network to train: `cnn`, `mobilenetv2` or `efficientnetv2b0`"
    )
    image_size: PositiveInt | None = Field(
        None, description="side in pixels that images are resized to, 1 or more; null: the dataset's size"
    )
    resize: ResizeMethod = Field(
        "pad",
        description="what becomes of images that have other proportions than the network's input: `pad` adds "
        "margins, `crop` keeps the middle, `stretch` changes their proportions",
    )
    background: ColorSetting = Field(
        WHITE,
        description="colour behind transparent pixels and of the margins of `pad`: a name such as white, a "
        "value such as '#ffffff', or [red, green, blue]",
    )
    cnn: CnnConfig = CnnConfig()
    mobilenetv2: MobileNetV2Config = MobileNetV2Config()
    efficientnetv2b0: EfficientNetV2B0Config = EfficientNetV2B0Config()

    @pydantic.field_validator("architecture")
    @classmethod
    def _architecture_exists(cls, value: str) -> str:
        if value not in cls.architectures():
            raise ValueError(f"expected one of {', '.join(cls.architectures())}")
        return value

    @classmethod
    def architectures(cls) -> dict[str, type[NetworkConfig]]:
        """Maps the name of each architecture to the class of its section."""
        sections = {name: field.annotation for name, field in cls.model_fields.items()}
        return {
            name: section
            for name, section in sections.items()
            if isinstance(section, type) and issubclass(section, NetworkConfig)
        }

    @property
    def network(self) -> NetworkConfig:
        """Settings of the configured architecture."""
        return getattr(self, self.architecture)

    def input_size(self, dataset_size: tuple[int, int]) -> tuple[int, int]:
        """Returns the size of the network's input.

        Args:
          dataset_size: (height, width) of the dataset's images, in pixels.

        Returns:
          (height, width) in pixels: `image_size` on both sides if it is set, else `dataset_size`.
        """
        return (self.image_size, self.image_size) if self.image_size else dataset_size
