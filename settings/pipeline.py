"""The one configuration object: typed, frozen, checked; read from YAML presets and `key=value` overrides.

Nothing here imports TensorFlow or TFX, so that a wrong value is refused in a fraction of a second.
"""

from __future__ import annotations

import posixpath
from typing import Annotated, Any

import pydantic
from pydantic import Field

from settings.base import ConfigError, Section, Seed, list_keys
from settings.beam import BeamConfig
from settings.evaluation import EvaluationConfig, ModelCardConfig
from settings.kubeflow import BackEnd, KubeflowConfig
from settings.model import ModelConfig
from settings.places import bucket_of
from settings.steps import STEPS
from settings.training import (
    BATCH_SIZE,
    LEARNING_RATE,
    TUNED,
    AugmentationConfig,
    LearningRateRange,
    TrainerConfig,
    TrainingSettings,
    TunerConfig,
)

# What a value can come from, besides a preset and the default.
SET, FLAG = "--set", "flag"


class PipelineConfig(Section):
    """All that a run depends on, apart from the dataset itself."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,127}$")] | None = Field(
        None, description="pipeline and served model; by default after the dataset"
    )
    data: str | None = Field(
        None,
        min_length=1,
        description="`cifar10`, `shapes`, or a directory; null takes CIFAR-10 if it can be had",
    )
    root: str = Field("runs", min_length=1, description="where everything that is made is kept")
    seed: Seed = 0
    model: ModelConfig = ModelConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    trainer: TrainerConfig = TrainerConfig()
    tuner: TunerConfig = TunerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    model_card: ModelCardConfig = ModelCardConfig()
    kubeflow: KubeflowConfig = KubeflowConfig()
    beam: BeamConfig = BeamConfig()

    # Dotted key -> where its value comes from; what is not in it is a default.
    _origins: dict[str, str] = pydantic.PrivateAttr(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _network_suits_the_training(self) -> PipelineConfig:
        network = self.model.network
        if self.trainer.optimizer == "muon" and not network.suits_muon:
            raise ValueError(
                "trainer.optimizer=muon trains convolutions that batch normalization follows: it needs "
                "model.architecture=cnn with model.cnn.batch_normalization=true; adamw suits any network"
            )
        if len(self.trainer.crop_scales) > 1 and not network.takes_any_size:
            raise ValueError(
                "trainer.crop_scales are for model.architecture=cnn; the features of a pretrained network "
                "depend on the size of the images. Set model.image_size instead"
            )
        return self

    def describe(self) -> list[dict[str, Any]]:
        """Lists the settings that the model depends on: `key`, `value` as JSON has it, and `origin`.

        Left out are where the pipeline runs and the settings of other architectures. The origin is
        `default`, the name of the preset, `--set`, or `flag`.
        """
        values = self.model_dump(mode="json")
        rows: list[dict[str, Any]] = []
        for key, _, _ in list_keys(PipelineConfig):
            value = values
            for part in key.split("."):
                value = value[part]
            rows.append({"key": key, "value": value, "origin": self._origins.get(key, "default")})
        other_networks = [
            f"model.{name}." for name in self.model.architectures() if name != self.model.architecture
        ]
        left_out = ("root", "kubeflow.", "beam.", *other_networks)
        return [row for row in rows if not row["key"].startswith(left_out)]

    def keys_of_command_line(self) -> list[str]:
        """Lists the keys that `--set` or a flag has set, in their order."""
        return [key for key, origin in self._origins.items() if origin in (SET, FLAG)]

    def describe_model(self) -> dict[str, str | None]:
        """Returns the model card: `intended_use`, `limits`, and `weights_license`, None without weights."""
        return {**self.model_card.model_dump(), "weights_license": self.model.network.weights_license}

    def check_workers(self) -> None:
        """Raises a ConfigError if Beam's workers would have no image, or could not reach the data."""
        beam, image = self.beam, self.kubeflow.image
        if beam.runner == "dataflow":
            for key, uri in (("root", self.root), ("kubeflow.data_uri", self.kubeflow.data_uri)):
                if bucket_of(uri) is None:
                    raise ConfigError(
                        f"{key}: expected a gs:// URI, where Dataflow reads and writes; found {uri!r}. "
                        "A run on this machine has its root here, and cannot use Dataflow; a compiled one can"
                    )
            image = beam.dataflow.sdk_container_image or image
            if image is None:
                raise ConfigError(
                    "beam.dataflow.sdk_container_image or kubeflow.image: Dataflow needs one of them"
                )
        elif beam.runner in ("flink", "spark"):
            options = beam.flink if beam.runner == "flink" else beam.spark
            if options.environment_type == "DOCKER" and not (options.environment_config or image):
                raise ConfigError(
                    f"beam.{beam.runner}.environment_config or kubeflow.image: DOCKER needs one of them"
                )

    def check_places(self, target: BackEnd) -> None:
        """Raises a ConfigError if the steps of a compiled pipeline could not reach their root or their data.

        Args:
          target: where the pipeline is to run.
        """
        vertex = target == "vertex"
        for key, uri in (("root", self.root), ("kubeflow.data_uri", self.kubeflow.data_uri)):
            mounted = not vertex and (uri is None or posixpath.isabs(uri))
            if not mounted and bucket_of(uri) is None:
                volume = "" if vertex else ", or the absolute path of a volume that every step has mounted"
                raise ConfigError(f"{key}: expected gs://BUCKET/...{volume}; found {uri or 'nothing'}")

    def trainer_settings(self) -> TrainingSettings:
        """Returns the settings that the Trainer depends on: all of training, nothing of the search."""
        return TrainingSettings(
            seed=self.seed, model=self.model, augmentation=self.augmentation, trainer=self.trainer
        )

    def tuner_settings(self) -> TrainingSettings:
        """Returns the settings that the Tuner depends on.

        The length of the final training is not among them, and a value that the command line sets is the only
        one that is tried.
        """
        search = self.tuner
        pinned = self.pinned()
        if LEARNING_RATE in pinned:
            rate = self.trainer.learning_rate
            search = search.model_copy(update={"learning_rate": LearningRateRange(min=rate, max=rate)})
        if BATCH_SIZE in pinned:
            search = search.model_copy(update={"batch_sizes": (self.trainer.batch_size,)})
        replaced_or_unused = {*TUNED, "epochs", "early_stopping_patience"}
        trainer = TrainerConfig(**self.trainer.model_dump(exclude=replaced_or_unused))
        return self.trainer_settings().model_copy(update={"trainer": trainer, "tuner": search})

    def pinned(self) -> list[str]:
        """Lists the hyperparameters that the command line sets, so that the Tuner leaves them alone."""
        return [name for name in TUNED if f"trainer.{name}" in self.keys_of_command_line()]

    @property
    def has_tuner(self) -> bool:
        """Whether a Tuner runs: it is enabled, and the command line leaves it something to search."""
        return self.tuner.enabled and len(self.pinned()) < len(TUNED)

    def steps(self) -> list[str]:
        """Lists the ids of the pipeline's components, in the order in which they run."""
        return [step for step in STEPS if step != "Tuner" or self.has_tuner]
