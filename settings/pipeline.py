"""The configuration of a run: all sections in one typed, frozen and validated object.

`settings.loading` builds it from YAML presets and `key=value` overrides. Nothing here imports TensorFlow or
TFX, so that a wrong value is reported in a fraction of a second.
"""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import Field

from settings.base import ConfigError, Section, Seed, list_keys
from settings.beam import BeamConfig
from settings.data_gate import DataGateConfig
from settings.evaluation import EvaluationConfig, ModelCardConfig
from settings.export import ExportConfig
from settings.kubeflow import BackEnd, KubeflowConfig
from settings.model import ModelConfig
from settings.places import bucket_of, check_literal, is_s3
from settings.pusher import PusherConfig
from settings.serving_check import ServingCheckConfig
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

# Origins of a value that comes from neither a preset nor the default.
SET, FLAG = "--set", "flag"


class PipelineConfig(Section):
    """Everything that a run depends on, except the dataset itself."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,127}$")] | None = Field(
        None,
        description="name of the pipeline and of the served model, at most 128 characters from a-z, 0-9 and "
        "`-`; null: derived from the dataset's name",
    )
    data: str | None = Field(
        None,
        min_length=1,
        description="`cifar10`, `shapes`, or the path of a dataset directory or TFDS folder; null: CIFAR-10 "
        "if it is prepared or can be downloaded, otherwise `shapes`",
    )
    root: Annotated[str, pydantic.AfterValidator(check_literal)] = Field(
        "runs",
        min_length=1,
        description="directory of all artifacts, models and metadata; of a compiled pipeline a gs:// URI or, "
        "on Kubeflow, a minio:// or s3:// URI",
    )
    seed: Seed = Field(0, description="seed of all random numbers, from 0 to 2^32 - 1")
    data_gate: DataGateConfig = DataGateConfig()
    model: ModelConfig = ModelConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    trainer: TrainerConfig = TrainerConfig()
    tuner: TunerConfig = TunerConfig()
    export: ExportConfig = ExportConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    model_card: ModelCardConfig = ModelCardConfig()
    serving_check: ServingCheckConfig = ServingCheckConfig()
    pusher: PusherConfig = PusherConfig()
    kubeflow: KubeflowConfig = KubeflowConfig()
    beam: BeamConfig = BeamConfig()

    # Dotted key -> origin of its value; keys that are missing here have their defaults.
    _origins: dict[str, str] = pydantic.PrivateAttr(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _network_supports_training_options(self) -> PipelineConfig:
        network = self.model.network
        if self.trainer.optimizer == "muon" and not network.suits_muon:
            raise ValueError(
                "trainer.optimizer=muon needs convolutions that are followed by batch normalization: set "
                "model.architecture=cnn with model.cnn.batch_normalization=true, or "
                "trainer.optimizer=adamw, which trains any network"
            )
        if len(self.trainer.crop_scales) > 1 and not network.takes_any_size:
            raise ValueError(
                "trainer.crop_scales other than [1.0] need model.architecture=cnn, because the features of a "
                "pretrained network depend on the size of the images. Set model.image_size instead"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _network_knows_mirror_images(self) -> PipelineConfig:
        if self.export.views > 1 and not self.augmentation.flip:
            raise ValueError(
                f"export.views={self.export.views} shows the network mirror images, which it has not learned "
                "with augmentation.flip=false: set export.views=1, or augmentation.flip=true if a mirror "
                "image is of the same class"
            )
        return self

    def describe(self) -> list[dict[str, Any]]:
        """Lists the settings that the trained model depends on.

        Settings of where the pipeline runs and of other architectures are left out.

        Returns:
          For each setting `key` (dotted), `value` (as in JSON) and `origin`: `default`, the file name of a
          preset, `--set`, or `flag`.
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
        left_out = ("root", "serving_check.", "pusher.", "kubeflow.", "beam.", *other_networks)
        return [row for row in rows if not row["key"].startswith(left_out)]

    def keys_of_command_line(self) -> list[str]:
        """Lists the dotted keys that `--set` or a flag has set."""
        return [key for key, origin in self._origins.items() if origin in (SET, FLAG)]

    def describe_model(self) -> dict[str, str | None]:
        """Returns the texts of the model card.

        Returns:
          `intended_use`, `limits`, and `weights_license`, which is None without pretrained weights.
        """
        return {**self.model_card.model_dump(), "weights_license": self.model.network.weights_license}

    def check_workers(self) -> None:
        """Checks that Beam's workers have a container image and can reach the data.

        Raises:
          ConfigError: the workers have no image, or the root or the data is not where they can read it.
        """
        beam, image = self.beam, self.kubeflow.image
        if beam.runner == "dataflow":
            for key, uri in (("root", self.root), ("kubeflow.data_uri", self.kubeflow.data_uri)):
                if bucket_of(uri) is None:
                    raise ConfigError(
                        f"{key}: expected a gs:// URI, which Dataflow can read and write; found {uri!r}. "
                        "Local runs keep their root on this machine and cannot use Dataflow: set another "
                        "beam.runner, or compile the pipeline with kubeflow_runner.py"
                    )
            image = beam.dataflow.sdk_container_image or image
            if image is None:
                raise ConfigError(
                    "Dataflow needs a container image: set beam.dataflow.sdk_container_image or "
                    "kubeflow.image"
                )
        elif beam.runner in ("flink", "spark"):
            options = beam.flink if beam.runner == "flink" else beam.spark
            if options.environment_type == "DOCKER" and not (options.environment_config or image):
                raise ConfigError(
                    f"beam.{beam.runner}.environment_type=DOCKER needs a container image: set "
                    f"beam.{beam.runner}.environment_config or kubeflow.image"
                )

    def check_places(self, target: BackEnd) -> None:
        """Checks that the steps of a compiled pipeline can reach their root and their data.

        Args:
          target: back end on which the pipeline will run.

        Raises:
          ConfigError: the root or the data is at a place that the steps cannot reach.
        """
        copied = self.uses_local_copies(target)
        for key, uri in (("root", self.root), ("kubeflow.data_uri", self.kubeflow.data_uri)):
            if bucket_of(uri) is not None or (copied and is_s3(uri or "")):
                continue
            found = uri or "nothing"
            if copied:
                hint = ". `kubeflow_runner.py upload` puts a dataset directory there" if key != "root" else ""
                raise ConfigError(
                    f"{key}: expected minio://BUCKET/..., s3://BUCKET/... or gs://BUCKET/..., the stores "
                    f"that Kubeflow copies artifacts from and to; found {found}{hint}"
                )
            if target == "kfp":
                raise ConfigError(
                    f"{key}: expected gs://BUCKET/..., which the workers of beam.runner={self.beam.runner} "
                    f"read and write themselves; found {found}. Use beam.runner=direct for other stores"
                )
            raise ConfigError(f"{key}: expected gs://BUCKET/...; found {found}")

    def uses_local_copies(self, target: BackEnd) -> bool:
        """Returns whether steps find their artifacts at local paths, whatever the store.

        Kubeflow copies artifacts between its store and the steps. Workers of Beam on other machines, and all
        steps on Vertex, read and write the places themselves.
        """
        return target == "kfp" and not self.beam.has_workers

    def trainer_settings(self) -> TrainingSettings:
        """Returns the settings that the Trainer depends on: those of training, not those of the search."""
        return TrainingSettings(
            seed=self.seed,
            model=self.model,
            augmentation=self.augmentation,
            trainer=self.trainer,
            export=self.export.of_model(),
        )

    def tuner_settings(self) -> TrainingSettings:
        """Returns the settings that the Tuner depends on.

        The number of epochs of the final training is left out, so that changing it does not repeat the
        search. For a hyperparameter that the command line sets, the search tries only that value.
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
        return self.trainer_settings().model_copy(
            update={"trainer": trainer, "tuner": search, "export": ExportConfig()}
        )

    def pinned(self) -> list[str]:
        """Lists the hyperparameters that the command line sets, which the Tuner therefore does not search."""
        return [name for name in TUNED if f"trainer.{name}" in self.keys_of_command_line()]

    @property
    def has_tuner(self) -> bool:
        """Whether a Tuner runs: it is enabled, and the command line does not set all hyperparameters."""
        return self.tuner.enabled and len(self.pinned()) < len(TUNED)

    def steps(self) -> list[str]:
        """Lists the ids of the pipeline's components in execution order."""
        return [step for step in STEPS if step != "Tuner" or self.has_tuner]
