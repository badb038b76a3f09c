"""Settings of training: augmentation, optimizer, learning rate schedule and hyperparameter search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from settings import search
from settings.base import (
    ConfigError,
    Flag,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Proportion,
    Section,
    Seed,
)
from settings.export import ExportConfig
from settings.model import ModelConfig

_OPTIMIZERS_WITH_MOMENTUM = ("sgd", "muon")
_OPTIMIZERS_WITH_WEIGHT_DECAY = ("adamw", "sgd")


class AugmentationConfig(Section):
    """Random changes to training images; 0 or false switches a change off."""

    rotation_degrees: Annotated[float, Field(strict=True, ge=0, le=180)] = Field(
        10.0, description="rotate by up to this angle in either direction, in degrees from 0 to 180"
    )
    shift_fraction: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(
        0.1, description="shift by up to this fraction of each side, from 0 to below 1"
    )
    cutout_fraction: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(
        0.0, description="cover a rectangle with this fraction of each side in grey, from 0 to below 1"
    )
    brightness: Proportion = Field(
        0.0, description="multiply the brightness by a factor between 1 - x and 1 + x, x from 0 to 1"
    )
    contrast: Proportion = Field(
        0.0, description="multiply the contrast by a factor between 1 - x and 1 + x, x from 0 to 1"
    )
    saturation: Proportion = Field(
        0.0, description="multiply the saturation by a factor between 1 - x and 1 + x, x from 0 to 1"
    )
    blur_fraction: Proportion = Field(
        0.0,
        description="blur some images by a Gaussian with a standard deviation of up to this fraction of the "
        "shorter side, from 0 to 1",
    )
    noise: Proportion = Field(
        0.0,
        description="add Gaussian noise to some images, with a standard deviation of up to this fraction of "
        "the range of pixel values, from 0 to 1",
    )
    jpeg: Fraction = Field(
        0.0,
        description="compress some images like JPEG files of a quality between 100 (1 - x) and 100, x from 0 "
        "to below 1",
    )
    flip: Flag = Field(True, description="mirror each image left to right in every other epoch")

    @classmethod
    def none(cls) -> AugmentationConfig:
        """Returns a configuration in which every change is switched off."""
        return cls(**{name: type(field.default)(0) for name, field in cls.model_fields.items()})


def _ends_with_one(values: tuple[float, ...]) -> tuple[float, ...]:
    if values[-1:] != (1.0,):
        raise ValueError("the last scale has to be 1.0, because the network is used on images of full size")
    return values


class TrainerConfig(Section):
    """Settings of the Trainer. If a Tuner runs, the values that it has found replace the ones here."""

    epochs: PositiveInt = Field(
        20,
        description="largest number of epochs, 1 or more; for a pretrained network, of training its head",
    )
    batch_size: PositiveInt = Field(128, description="images per training step, 1 or more")
    learning_rate: PositiveFloat = Field(4e-3, description="peak learning rate, above 0")
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = Field(
        "adamw",
        description="`adam`, `adamw`, `sgd` with Nesterov momentum, or `muon`, which needs a cnn with batch "
        "normalization",
    )
    momentum: Fraction | None = Field(
        None,
        description="momentum of `sgd` and `muon`, from 0 to below 1; null: 0.9 for `sgd`, 0.6 for `muon`",
    )
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "cosine",
        description="learning rate after the warm-up: `constant`, or decreasing to 0 at the end of `epochs` "
        "along a `cosine` or a straight line (`linear`)",
    )
    warmup_fraction: Fraction = Field(
        0.05,
        description="fraction of all steps during which the learning rate rises linearly, from 0 to below 1",
    )
    weight_decay: NonNegativeFloat | None = Field(
        None,
        description="decoupled weight decay of `adamw` and `sgd`, 0 or more; it is multiplied by the "
        "learning rate in each step. null: 0.02",
    )
    label_smoothing: Fraction = Field(
        0.0,
        description="fraction of each label that is spread evenly over all classes, in training and "
        "validation, from 0 to below 1",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="weights of the classes in the loss: `none`, or `balanced`, which gives every class the "
        "same total weight",
    )
    crop_scales: Annotated[
        tuple[Annotated[float, Field(strict=True, gt=0, le=1)], ...], pydantic.AfterValidator(_ends_with_one)
    ] = Field(
        (1.0,),
        description="sides of progressive crops of a cnn's training images, as fractions of the images' "
        "sides above 0. Each scale is used for an equal share of the epochs; the last one has to be 1",
    )
    early_stopping_patience: PositiveInt = Field(
        5,
        description="number of epochs without a lower validation loss after which training stops, 1 or more. "
        "With `cosine` and `linear`, counting starts when the learning rate has fallen to half of its peak. "
        "A value of `epochs` or more switches early stopping off",
    )
    precision: Literal["float32", "mixed_bfloat16", "auto"] = Field(
        "float32",
        description="precision of training: `float32`, `mixed_bfloat16`, or `auto`, which selects "
        "`mixed_bfloat16` where the CPU or GPU multiplies bfloat16 in hardware. The exported model computes "
        "in float32",
    )
    deterministic: Flag = Field(
        False, description="give bit-identical weights for the same seed on the same machine"
    )
    cache_mebibytes: NonNegativeInt = Field(
        2048,
        description="largest size of a split's decoded images that is cached in memory, in MiB, 0 or more; "
        "larger splits are cached in a file in TMPDIR",
    )

    @pydantic.model_validator(mode="after")
    def _optimizer_uses_its_options(self) -> TrainerConfig:
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


class BudgetConfig(Section):
    """Limits of a search besides the number of its trials; the one that is reached first ends it."""

    epochs: PositiveInt | None = Field(
        None, description="largest number of epochs of all trials together, 1 or more; null: no limit"
    )
    images: PositiveInt | None = Field(
        None,
        description="largest number of training images that all trials together see, 1 or more; each epoch "
        "counts them again. null: no limit",
    )
    minutes: PositiveFloat | None = Field(
        None,
        description="largest duration of the search in minutes, above 0: no trial begins that would "
        "end later. null: no limit",
    )


class TunerConfig(Section):
    """The search for the settings with the highest validation accuracy."""

    enabled: Flag = Field(True, description="search for the settings in `space` before training")
    space: Annotated[
        dict[str, search.Range | search.Choices | None], pydantic.BeforeValidator(search.parse)
    ] = Field(
        search.DEFAULT,
        description="settings to search, by their dotted keys below `trainer`, `augmentation` and "
        "`model.<architecture>`: a range {min, max, log, step}, where log and step may be left out, or a "
        "list of values. null leaves a setting out",
    )
    algorithm: Literal["space_filling", "random", "bayesian", "hyperband"] = Field(
        "space_filling",
        description="how the values of a trial are chosen: `space_filling` spreads all trials evenly, "
        "`random` draws each independently, `bayesian` learns from the trials before it, `hyperband` trains "
        "many for a few epochs and the best of them for longer, up to `epochs`",
    )
    prune: Flag = Field(
        False,
        description="stop a trial whose validation accuracy after an epoch is below the median of the "
        "earlier trials after the same epoch",
    )
    trials: PositiveInt = Field(4, description="number of trainings that the search compares, 1 or more")
    parallel: PositiveInt = Field(
        1,
        description="number of trials that run at the same time, each in a process with its share of the "
        "machine's cores; 1 up to the number of cores",
    )
    epochs: PositiveInt = Field(
        2, description="epochs of each trial, 1 or more; of `hyperband` the most, 3 or more"
    )
    max_train_images: PositiveInt | None = Field(
        10_000, description="largest number of images that a trial trains on, 1 or more; null: all"
    )
    budget: BudgetConfig = BudgetConfig()

    @pydantic.model_validator(mode="after")
    def _hyperband_has_rounds(self) -> TunerConfig:
        if self.algorithm == "hyperband" and self.epochs < search.HYPERBAND_FACTOR:
            raise ValueError(
                f"algorithm=hyperband compares trials of different lengths: set tuner.epochs to "
                f"{search.HYPERBAND_FACTOR} or more, found {self.epochs}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _pruning_is_reproducible(self) -> TunerConfig:
        if self.prune and self.parallel > 1:
            raise ValueError(
                "prune compares a trial with those that ended before it, which with parallel="
                f"{self.parallel} depends on which process is faster: set tuner.parallel=1 or "
                "tuner.prune=false"
            )
        return self

    def limiting_points(
        self, dimensions: Sequence[search.Dimension], trials: int
    ) -> list[dict[str, Any]] | None:
        """Returns the points of a space that limit the number of trials; None if there are enough for all.

        Args:
          dimensions: the space.
          trials: number of trials that are wanted.
        """
        # Hyperband trains the same point several times.
        return None if self.algorithm == "hyperband" else search.list_points(dimensions, trials)

    def check_parallel(self, cores: int, has_gpu: bool) -> None:
        """Checks that a machine can run as many trials at the same time.

        Args:
          cores: number of its CPU cores.
          has_gpu: whether networks are trained on a GPU.

        Raises:
          ConfigError: there are fewer cores, or a GPU, whose memory TensorFlow takes for a single process.
        """
        if self.parallel == 1:
            return
        if has_gpu:
            raise ConfigError(
                f"tuner.parallel={self.parallel}: trials at the same time share the cores of a machine; this "
                "one has a GPU, whose memory TensorFlow takes for a single process. Set tuner.parallel=1, or "
                "CUDA_VISIBLE_DEVICES=-1 in the environment to train without the GPU"
            )
        if self.parallel > cores:
            raise ConfigError(
                f"tuner.parallel={self.parallel}: each trial needs a core of its own, and "
                f"{cores} can be used here. Set tuner.parallel={cores}{' or less' * (cores > 1)}"
            )


def check_together(
    model: ModelConfig, augmentation: AugmentationConfig, trainer: TrainerConfig, views: int
) -> None:
    """Checks settings of training that do not suit each other.

    Args:
      model: the network.
      augmentation: the changes to training images.
      trainer: the training.
      views: views of each image that the exported model averages.

    Raises:
      ValueError: two settings exclude each other; the message names them.
    """
    if trainer.optimizer == "muon" and not model.network.suits_muon:
        raise ValueError(
            "trainer.optimizer=muon needs convolutions that are followed by batch normalization: set "
            "model.architecture=cnn with model.cnn.batch_normalization=true, or "
            "trainer.optimizer=adamw, which trains any network"
        )
    if len(trainer.crop_scales) > 1 and not model.network.takes_any_size:
        raise ValueError(
            "trainer.crop_scales other than [1.0] need model.architecture=cnn, because the features of a "
            "pretrained network depend on the size of the images. Set model.image_size instead"
        )
    if views == 2 and model.network.ignores_mirroring:
        raise ValueError(
            "export.views=2 averages the answers for an image and its mirror image, which are the same with "
            "model.cnn.mirrored_filters=true: set export.views to 1 or 6"
        )
    if views > 1 and not augmentation.flip:
        raise ValueError(
            f"export.views={views} shows the network mirror images, which it has not learned "
            "with augmentation.flip=false: set export.views=1, or augmentation.flip=true if a mirror "
            "image is of the same class"
        )


class TrainingSettings(Section):
    """The settings that the Tuner or the Trainer depends on; changes of other settings do not train again."""

    seed: Seed
    model: ModelConfig
    augmentation: AugmentationConfig
    trainer: TrainerConfig
    tuner: TunerConfig = TunerConfig()
    export: ExportConfig = ExportConfig()

    @pydantic.model_validator(mode="after")
    def _sections_suit_each_other(self) -> TrainingSettings:
        check_together(self.model, self.augmentation, self.trainer, self.export.views)
        return self

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON-compatible values, without those of other architectures."""
        unused = set(self.model.architectures()) - {self.model.architecture}
        return self.model_dump(mode="json", exclude={"model": unused})
