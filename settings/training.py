"""How a network is trained: augmentation, optimizer, schedule, and the search for hyperparameters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from settings.base import (
    Flag,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Seed,
)
from settings.model import ModelConfig

# The settings of the Trainer that the Tuner searches.
LEARNING_RATE = "learning_rate"
BATCH_SIZE = "batch_size"
TUNED = (LEARNING_RATE, BATCH_SIZE)

_OPTIMIZERS_WITH_MOMENTUM = ("sgd", "muon")
_OPTIMIZERS_WITH_WEIGHT_DECAY = ("adamw", "sgd")


class AugmentationConfig(Section):
    """Strengths of the random changes to training images; 0 or false switches one off."""

    rotation_degrees: Annotated[float, Field(strict=True, ge=0, le=180)] = Field(
        10.0, description="rotated by up to this angle either way"
    )
    shift_fraction: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(
        0.1, description="shifted by up to this fraction of each side"
    )
    cutout_fraction: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(
        0.0, description="a rectangle with this fraction of each side is made grey"
    )
    flip: Flag = Field(
        True, description="mirror each image left to right in every other epoch; false never does"
    )

    @classmethod
    def none(cls) -> AugmentationConfig:
        """Returns the configuration that changes nothing, whatever the defaults are."""
        return cls(**{name: type(field.default)(0) for name, field in cls.model_fields.items()})


def _ends_with_one(values: tuple[float, ...]) -> tuple[float, ...]:
    if values[-1:] != (1.0,):
        raise ValueError("the last scale has to be 1.0: the network is used on images of full size")
    return values


class TrainerConfig(Section):
    """How the network is trained. A Tuner's learning rate and batch size replace the ones here."""

    epochs: PositiveInt = Field(
        20, description="most epochs; of a pretrained network, most epochs of training its head"
    )
    batch_size: PositiveInt = Field(128, description="images in a step")
    learning_rate: PositiveFloat = Field(4e-3, description="peak learning rate")
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = Field(
        "adamw",
        description="`adam`, `adamw`, `sgd` with Nesterov momentum, or `muon`, for a cnn with batch "
        "normalization",
    )
    momentum: Fraction | None = Field(
        None, description="of `sgd` and `muon`; null is 0.9 for `sgd`, 0.6 for `muon`"
    )
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "cosine", description="`constant`, or down to 0 by the last of `epochs`: `cosine` or `linear`"
    )
    warmup_fraction: Fraction = Field(0.05, description="part of all steps with a linearly rising rate")
    weight_decay: NonNegativeFloat | None = Field(
        None,
        description="decoupled weight decay of `adamw` and `sgd`, times the learning rate in each step; "
        "null is 0.02",
    )
    label_smoothing: Fraction = Field(
        0.0, description="share of the label that is spread evenly over all classes, in validation too"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="`none`, or `balanced`: every class has the same weight in the loss"
    )
    crop_scales: Annotated[
        tuple[Annotated[float, Field(strict=True, gt=0, le=1)], ...], pydantic.AfterValidator(_ends_with_one)
    ] = Field(
        (1.0,),
        description="progressive cropping of a cnn's training images: fractions of their sides, each used "
        "for an equal share of the epochs; the last is 1",
    )
    early_stopping_patience: PositiveInt = Field(
        5,
        description="epochs without a lower validation loss before training stops; under `cosine` and "
        "`linear` they count once the rate has fallen to half of its peak. A value of `epochs` or more "
        "switches early stopping off",
    )
    precision: Literal["float32", "mixed_bfloat16", "auto"] = Field(
        "float32",
        description="precision of training: `float32`, `mixed_bfloat16`, or `auto`, which is the latter "
        "where the CPU or GPU multiplies bfloat16 in hardware; the exported model computes in float32",
    )
    deterministic: Flag = Field(
        False, description="the same seed on the same machine gives the same weights to the last bit"
    )
    cache_mebibytes: NonNegativeInt = Field(
        2048,
        description="decoded images of a split up to this size stay in memory; more go to a file in TMPDIR",
    )

    @pydantic.model_validator(mode="after")
    def _optimizer_uses_what_is_set(self) -> TrainerConfig:
        for name, optimizers in (
            ("momentum", _OPTIMIZERS_WITH_MOMENTUM),
            ("weight_decay", _OPTIMIZERS_WITH_WEIGHT_DECAY),
        ):
            if getattr(self, name) is not None and self.optimizer not in optimizers:
                raise ValueError(
                    f"{name} is for trainer.optimizer={' and '.join(optimizers)}, found {self.optimizer}; "
                    f"leave it out, or set trainer.{name}=null where a preset sets it"
                )
        return self


class LearningRateRange(Section):
    """The searched range, sampled logarithmically."""

    min: PositiveFloat = 1e-3
    max: PositiveFloat = 1e-2

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> LearningRateRange:
        if self.min > self.max:
            raise ValueError(f"min ({self.min:g}) must not be larger than max ({self.max:g})")
        return self


class TunerConfig(Section):
    """The search for learning rate and batch size, by validation accuracy."""

    enabled: Flag = Field(True, description="whether there is a search")
    trials: PositiveInt = Field(4, description="trainings that the search compares")
    epochs: PositiveInt = Field(2, description="epochs of each trial")
    max_train_images: PositiveInt | None = Field(
        10_000, description="images that a trial trains on; null takes all"
    )
    learning_rate: LearningRateRange = LearningRateRange()
    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        (64, 128), description="the batch sizes that are compared"
    )


class TrainingSettings(Section):
    """The settings that the Tuner or the Trainer depends on; a change of another one does not train again."""

    seed: Seed
    model: ModelConfig
    augmentation: AugmentationConfig
    trainer: TrainerConfig
    tuner: TunerConfig = TunerConfig()

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as values that JSON can hold, without those of other architectures."""
        unused = set(self.model.architectures()) - {self.model.architecture}
        return self.model_dump(mode="json", exclude={"model": unused})
