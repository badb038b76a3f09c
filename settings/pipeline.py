"""The configuration of a run: all sections in one typed, frozen and validated object.

`settings.loading` builds it from YAML presets and `key=value` overrides. Nothing here imports TensorFlow or
TFX, so that a wrong value is reported in a fraction of a second.
"""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import Field

from settings import search
from settings.base import ConfigError, Section, Seed, leaves, list_keys, matching
from settings.beam import BeamConfig
from settings.data_gate import DataGateConfig
from settings.evaluation import EvaluationConfig, ModelCardConfig
from settings.export import ExportConfig
from settings.kubeflow import BackEnd, KubeflowConfig
from settings.model import ModelConfig, NetworkConfig
from settings.places import DATA_URI, bucket_of, check_literal, check_reachable, is_s3, scheme_and_bucket
from settings.pusher import PusherConfig
from settings.serving_check import ServingCheckConfig
from settings.steps import STEPS
from settings.training import (
    AugmentationConfig,
    TrainerConfig,
    TrainingSettings,
    TunerConfig,
    check_together,
)

# Origins of a value that comes from neither a preset nor the default.
SET, FLAG = "--set", "flag"


_Name = Annotated[
    str,
    matching(
        r"[a-z0-9][a-z0-9-]{0,127}", "a name of at most 128 characters from a-z, 0-9 and -, such as `cats`"
    ),
]


class PipelineConfig(Section):
    """Everything that a run depends on, except the dataset itself."""

    name: _Name | None = Field(
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
    def _sections_suit_each_other(self) -> PipelineConfig:
        check_together(self.model, self.augmentation, self.trainer, self.export.views)
        return self

    @pydantic.model_validator(mode="after")
    def _space_can_be_searched(self) -> PipelineConfig:
        dimensions = search.resolve(self.tuner.space, self)
        if self.tuner.enabled:
            self._reference_point(dimensions)
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
            for leaf, below in leaves({key: value}):
                rows.append({"key": leaf, "value": below, "origin": self._origins.get(leaf, "default")})
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
        for key, uri in self._places().items():
            check_reachable(
                key, uri, target, is_artifact=key != "root", copied=copied, runner=self.beam.runner
            )

    def other_buckets(self) -> dict[str, str]:
        """Lists the artifacts that are not in the bucket of the root, where one of both is not on gs://.

        Kubeflow has credentials of its own for the bucket of the root only.

        Returns:
          Key of the setting -> URI.
        """
        places = {key: uri for key, uri in self._places().items() if uri is not None}
        root = scheme_and_bucket(self.root)
        return {
            key: uri
            for key, uri in places.items()
            if scheme_and_bucket(uri) != root and (is_s3(uri) or is_s3(self.root))
        }

    def _places(self) -> dict[str, str | None]:
        places = {"root": self.root, DATA_URI: self.kubeflow.data_uri}
        if self.kubeflow.baseline_model is not None:
            places["kubeflow.baseline_model"] = self.kubeflow.baseline_model
        return places

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

        Settings that a trial replaces have values that do not depend on those in presets, so that changing
        them does not repeat the search. A setting that the command line sets is not in the space.
        """
        replaced = {"epochs", "early_stopping_patience"}
        space = self.searched()
        base = self.trainer_settings().model_copy(
            update={
                "trainer": TrainerConfig(**self.trainer.model_dump(exclude=replaced)),
                "tuner": self.tuner.model_copy(update={"space": space}),
            }
        )
        if "augmentation.flip" not in space:
            base = base.model_copy(update={"export": ExportConfig()})
        return search.apply(base, self._reference_point(search.resolve(space, self)))

    def _reference_point(self, dimensions: list[search.Dimension]) -> dict[str, Any]:
        """Returns a point of the space that the settings accept; raises a ValueError if there is none."""
        settings = self.trainer_settings()
        return search.find_accepted(dimensions, lambda point: search.apply(settings, point))

    def with_setting(self, key: str, value: Any) -> PipelineConfig:
        """Returns the configuration with another value of one setting, which is not checked.

        Args:
          key: dotted key.
          value: value of the setting's type.
        """
        first, *below = key.split(".")
        sections: list[Section] = [self]
        for name in (first, *below[:-1]) if below else ():
            sections.append(getattr(sections[-1], name))
        changed: Any = value
        for section, name in zip(reversed(sections), reversed((first, *below)), strict=True):
            changed = section.model_copy(update={name: changed})
        return changed

    def searched(self) -> dict[str, search.Range | search.Choices]:
        """Returns the space of the search, without the settings that the command line sets."""
        set_there = self.keys_of_command_line()
        return {
            key: entry
            for key, entry in self.tuner.space.items()
            if entry is not None and key not in set_there
        }

    def networks(self) -> list[NetworkConfig]:
        """Lists the configured network, and those with other weights that the Tuner tries."""
        dimensions = search.resolve(self.searched(), self) if self.has_tuner else []
        searched = [
            self.with_setting(dimension.key, value).model.network
            for dimension in dimensions
            if dimension.key.endswith((".weights", ".alpha"))
            for value in dimension.values or ()
        ]
        return [self.model.network, *searched]

    @property
    def has_tuner(self) -> bool:
        """Whether a Tuner runs: it is enabled, and the command line does not set all that it would search."""
        return self.tuner.enabled and bool(self.searched())

    def steps(self) -> list[str]:
        """Lists the ids of the pipeline's components in execution order."""
        return [step for step in STEPS if step != "Tuner" or self.has_tuner]
