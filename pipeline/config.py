"""The one configuration object: typed, frozen, checked; read from YAML presets and `key=value` overrides.

Nothing here imports TensorFlow or TFX, so that a wrong value is refused in a fraction of a second.
"""

from __future__ import annotations

import difflib
import json
import posixpath
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

# Strict, because a YAML `true` would pass for the integer 1 otherwise.
PositiveInt = Annotated[int, Field(strict=True, ge=1)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # as NumPy takes it
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1)]
Proportion = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]


# ML Metadata of all runs, in the root.
METADATA_FILE = "metadata.sqlite"

# What a value can come from, besides a preset and the default.
SET, FLAG = "--set", "flag"

# Slices that are computed from the image.
BRIGHTNESS, CONTRAST = "brightness", "contrast"

# In the order in which they run.
_COMPONENTS = (
    "ImportExampleGen",
    "StatisticsGen",
    "ImportSchemaGen",
    "ExampleValidator",
    "DataGate",
    "Transform",
    "Tuner",
    "Trainer",
    "Baseline",
    "Evaluator",
    "ModelReport",
    "ServingCheck",
    "Pusher",
)


WHITENED_SIDE = 2  # in pixels, of the patches that the CNN's first convolution decorrelates
_MOBILENETV2_SIDE = 32  # keras.applications.MobileNetV2 takes nothing smaller


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says what was found and what is allowed."""


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# The widths that Keras publishes ImageNet weights for, and the number of weights without top.
MOBILENETV2_PARAMETERS = {
    0.35: 410_208,
    0.5: 706_224,
    0.75: 1_382_064,
    1.0: 2_257_984,
    1.3: 3_766_048,
    1.4: 4_363_712,
}
_ALPHAS = ", ".join(map(str, MOBILENETV2_PARAMETERS))


def _one_of_alphas(value: float) -> float:
    if value not in MOBILENETV2_PARAMETERS:
        raise ValueError(f"expected one of {_ALPHAS}")
    return value


def _all_different(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError("expected each one once")
    return values


def _mobilenetv2_layers() -> tuple[str, ...]:
    """Lists the layers of keras.applications.MobileNetV2 in their order, its input left out."""
    names = ["Conv1", "bn_Conv1", "Conv1_relu"]
    for number in range(17):
        parts = ["expand", "expand_BN", "expand_relu"] if number else []
        if number in (1, 3, 6, 13):  # which halve height and width
            parts.append("pad")
        parts += ["depthwise", "depthwise_BN", "depthwise_relu", "project", "project_BN"]
        if number in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15):  # whose output is as wide as their input
            parts.append("add")
        names += [f"block_{number}_{part}" if number else f"expanded_conv_{part}" for part in parts]
    return (*names, "Conv_1", "Conv_1_bn", "out_relu")


MOBILENETV2_LAYERS = _mobilenetv2_layers()


def _layer_of_mobilenetv2(name: str) -> str:
    if name not in MOBILENETV2_LAYERS:
        similar = difflib.get_close_matches(name, MOBILENETV2_LAYERS, n=3) or ("out_relu",)
        raise ValueError(f"expected a layer of MobileNetV2, such as {', '.join(similar)}")
    return name


def _ends_with_one(values: tuple[float, ...]) -> tuple[float, ...]:
    if values[-1:] != (1.0,):
        raise ValueError("the last scale has to be 1.0: the network is used on images of full size")
    return values


MobileNetV2Layer = Annotated[str, pydantic.AfterValidator(_layer_of_mobilenetv2)]


class CnnConfig(_Section):
    """The convolutional network: one block per entry of `filters`, each halving height and width."""

    whitening: Flag = Field(
        True, description="begin with a convolution that decorrelates patches of the training images"
    )
    filters: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        (32, 64, 128, 256), description="width of each block"
    )
    mirrored_filters: Flag = Field(
        False,
        description="half of the filters are mirror images of the others; not for classes that differ in "
        "what is left and right. `filters` have to be even",
    )
    convolutions_per_block: PositiveInt = Field(
        1, description="from three on, a shortcut leads around all but the first"
    )
    pooling: Literal["max", "average"] = Field(
        "max", description="`max` or `average`: of 2x2 pixels in each block, and of all before the logits"
    )
    batch_normalization: Flag = Field(True, description="after each convolution but the whitening")
    activation: Literal["relu", "gelu"] = Field("gelu", description="`relu` or `gelu`")
    dense_units: NonNegativeInt = Field(0, description="width of a hidden dense layer; 0 leaves it out")
    dropout: Fraction = Field(0.1, description="before the logits")

    @pydantic.model_validator(mode="after")
    def _in_halves(self) -> CnnConfig:
        if self.mirrored_filters and any(filters % 2 for filters in self.filters):
            raise ValueError(f"mirrored_filters needs even numbers of filters, found {list(self.filters)}")
        return self

    @property
    def smallest_side(self) -> int:
        """The smallest side in pixels of images that every block can halve."""
        return 2 ** len(self.filters) + self.whitening * (WHITENED_SIDE - 1)


class MobileNetV2Config(_Section):
    """MobileNetV2: the head is trained on the frozen network first, then its top is fine-tuned."""

    alpha: Annotated[float, Field(strict=True), pydantic.AfterValidator(_one_of_alphas)] = Field(
        1.0, description=f"width multiplier, one of {_ALPHAS}"
    )
    weights: str = Field(
        "imagenet", description="`imagenet`, `random`, or the path of an .h5 file without top"
    )
    dropout: Fraction = Field(0.2, description="before the logits")
    feature_layers: Annotated[
        tuple[MobileNetV2Layer, ...], Field(min_length=1), pydantic.AfterValidator(_all_different)
    ] = Field(
        ("out_relu",),
        description="the head gets the outputs of these layers, averaged over height and width; layers after "
        "the last of them are left out",
    )
    feature_views: PositiveInt = Field(
        4,
        description="augmented views of each image that the head learns from, each computed once; one where "
        "nothing is augmented",
    )
    fine_tune_epochs: NonNegativeInt = Field(10, description="most epochs of fine-tuning; 0 leaves it out")
    fine_tune_from: MobileNetV2Layer = Field(
        "block_13_expand", description="the first layer that fine-tuning changes"
    )
    fine_tune_rate: Annotated[float, Field(strict=True, gt=0, lt=1)] = Field(
        0.1, description="learning rate of fine-tuning, as a fraction of the head's"
    )

    @pydantic.model_validator(mode="after")
    def _fine_tunes_what_is_there(self) -> MobileNetV2Config:
        last = max(self.feature_layers, key=MOBILENETV2_LAYERS.index)
        first = self.fine_tune_from
        if self.fine_tune_epochs and MOBILENETV2_LAYERS.index(first) > MOBILENETV2_LAYERS.index(last):
            raise ValueError(
                f"fine_tune_from={first} comes after {last}, the last of feature_layers, and is left out"
            )
        return self

    @property
    def published_parameters(self) -> int:
        """How many numbers a file of weights without top has."""
        return MOBILENETV2_PARAMETERS[self.alpha]


class ModelConfig(_Section):
    """Which network, at which input size."""

    architecture: Literal["cnn", "mobilenetv2"] = Field("cnn", description="`cnn` or `mobilenetv2`")
    image_size: PositiveInt | None = Field(
        None, description="side in pixels that images are resized to; null keeps the dataset's own size"
    )
    cnn: CnnConfig = CnnConfig()
    mobilenetv2: MobileNetV2Config = MobileNetV2Config()

    def input_size(self, dataset_size: tuple[int, int]) -> tuple[int, int]:
        """Returns the (height, width) that the network gets, of images that have `dataset_size`."""
        return (self.image_size, self.image_size) if self.image_size else dataset_size


class AugmentationConfig(_Section):
    """Strengths of the random changes to training images; 0 switches one off."""

    rotation_degrees: Annotated[float, Field(strict=True, ge=0, le=180)] = Field(
        10.0, description="rotated by up to this angle either way"
    )
    shift_fraction: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(
        0.1, description="shifted by up to this fraction of each side"
    )
    cutout_fraction: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(
        0.0, description="a rectangle with this fraction of each side is made grey"
    )
    flip: Flag = Field(True, description="every other epoch sees an image mirrored left to right; or false")


class TrainerConfig(_Section):
    """How the network is trained. With a Tuner, its learning rate and batch size replace these."""

    epochs: PositiveInt = Field(20, description="most epochs; for mobilenetv2, of the frozen phase")
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
    weight_decay: NonNegativeFloat = Field(
        0.02, description="decoupled weight decay of `adamw` and `sgd`, times the learning rate in each step"
    )
    label_smoothing: Fraction = Field(
        0.0, description="share of the label that is given to all classes alike, in validation too"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="`none`, or `balanced`: all classes count alike, however many images each has"
    )
    crop_scales: Annotated[
        tuple[Annotated[float, Field(strict=True, gt=0, le=1)], ...], pydantic.AfterValidator(_ends_with_one)
    ] = Field(
        (1.0,),
        description="progressive cropping of a cnn's training images: fractions of their sides, each for an "
        "equal share of the epochs; the last is 1",
    )
    early_stopping_patience: PositiveInt = Field(
        5,
        description="epochs without a lower validation loss; under `cosine` and `linear` none is counted "
        "before the rate has fallen to half of its peak. As many as `epochs` switch early stopping off",
    )
    precision: Literal["float32", "mixed_bfloat16", "auto"] = Field(
        "float32",
        description="what training computes in: `float32`, `mixed_bfloat16`, or `auto`, which is the latter "
        "where CPU or GPU multiply bfloat16 themselves; the exported model computes in float32",
    )
    deterministic: Flag = Field(
        False, description="the same seed on the same machine gives the same weights to the last bit"
    )
    cache_mebibytes: NonNegativeInt = Field(
        2048,
        description="decoded images of a split up to this size stay in memory; more go to a file in TMPDIR",
    )

    @pydantic.model_validator(mode="after")
    def _momentum_is_used(self) -> TrainerConfig:
        if self.momentum is not None and self.optimizer not in ("sgd", "muon"):
            raise ValueError(
                f"momentum is for trainer.optimizer=sgd and muon, found {self.optimizer}; leave it out"
            )
        return self


class LearningRateRange(_Section):
    """The searched range, sampled logarithmically."""

    min: PositiveFloat = 1e-3
    max: PositiveFloat = 1e-2

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> LearningRateRange:
        if self.min >= self.max:
            raise ValueError(f"min ({self.min:g}) must be smaller than max ({self.max:g})")
        return self


class TunerConfig(_Section):
    """The search for learning rate and batch size, by validation accuracy."""

    enabled: Flag = True
    trials: PositiveInt = Field(4, description="trainings that the search compares")
    epochs: PositiveInt = Field(2, description="epochs of each trial")
    max_train_images: PositiveInt | None = Field(
        10_000, description="images a trial trains on; null means all"
    )
    learning_rate: LearningRateRange = LearningRateRange()
    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128)


class EvaluationConfig(_Section):
    """The gates that a model passes before it is pushed, measured on the test split; null leaves one out."""

    min_accuracy: Proportion = Field(0.5, description="lowest accuracy that is blessed")
    min_f1_macro: Proportion | None = Field(None, description="lowest mean F1 over the classes")
    min_class_precision: Proportion | None = Field(None, description="lowest precision of any class")
    min_class_recall: Proportion | None = Field(None, description="lowest recall of any class")
    max_calibration_error: Proportion | None = Field(
        None, description="highest expected calibration error of the predicted class's probability"
    )
    max_accuracy_drop: Proportion | None = Field(
        0.0, description="how far under the last blessed model's accuracy a model may be"
    )
    # On 1,000 test images of a class, chance alone moves it by 3 or 4 points from training to training.
    max_class_precision_drop: Proportion | None = Field(
        0.08, description="how far any class's precision may be under the last blessed model's"
    )
    max_class_recall_drop: Proportion | None = Field(
        0.08, description="how far any class's recall may be under the last blessed model's"
    )
    slices: Annotated[tuple[str, ...], pydantic.AfterValidator(_all_different)] = Field(
        (BRIGHTNESS, CONTRAST),
        description="what the test split is also measured by, part for part: `brightness` and `contrast` "
        "of the image, or any feature of the examples that the schema has",
    )

    def check_slices(self, features: Iterable[str]) -> None:
        """Raises a ConfigError if a slice is neither of the image nor among the features of the examples."""
        known = (BRIGHTNESS, CONTRAST, *features)
        for name in self.slices:
            if name not in known:
                raise ConfigError(
                    f"evaluation.slices: expected some of {', '.join(known)}; found {name!r}. A feature of "
                    "the examples has to be in the dataset's schema.pbtxt, too"
                )


_IMAGENET_LICENSE = (
    "MobileNetV2's weights as Keras publishes them (Apache License 2.0), trained on ImageNet's images, whose "
    "terms allow non-commercial research and education only; whether that binds the weights is yours to judge"
)


class ModelCardConfig(_Section):
    """What the report says of the model's use, in the words of those who answer for it."""

    intended_use: str = Field(
        "Classifies single images of the kind that it was trained on into the classes listed above.",
        description="what the model is for",
    )
    limits: str = Field(
        "It names one of its classes for any image, also for one that shows none of them. How it does on "
        "images from other sources was not measured.",
        description="what it is not for, and what is not known of it",
    )


class StepConfig(_Section):
    """What a container gets; null leaves it to the cluster."""

    image: str | None = Field(None, min_length=1)
    cpu: PositiveFloat | None = None
    memory_gb: PositiveFloat | None = None
    accelerator: str | None = Field(None, min_length=1)
    accelerator_count: PositiveInt = 1
    machine_type: str | None = Field(None, min_length=1)
    workers: PositiveInt = 1

    @pydantic.model_validator(mode="after")
    def _counts_something(self) -> StepConfig:
        if self.accelerator is None and "accelerator_count" in self.model_fields_set:
            raise ValueError("accelerator_count needs an accelerator")
        return self

    @pydantic.model_validator(mode="after")
    def _names_its_machines(self) -> StepConfig:
        if self.workers > 1 and self.machine_type is None:
            raise ValueError("workers need a machine_type, such as n1-standard-8")
        if self.machine_type is not None and (self.cpu is not None or self.memory_gb is not None):
            raise ValueError("a machine_type has its own CPUs and memory: leave out cpu and memory_gb")
        return self


def _all_steps(steps: dict[str, StepConfig]) -> dict[str, StepConfig]:
    known = [name for name in _COMPONENTS if name != "Baseline"]  # which runs in no container
    for name, step in steps.items():
        if name not in known:
            raise ValueError(f"there is no step {name}; expected some of {', '.join(known)}")
        if step.machine_type and name != "Trainer":
            raise ValueError(f"only the Trainer can have a machine_type and workers, not {name}")
    return steps


class VertexConfig(_Section):
    """Whose runs on Vertex AI Pipelines they are; a custom job is told when the pipeline is compiled."""

    project: str | None = Field(
        None, min_length=1, description="Google Cloud project; null: that of the credentials"
    )
    region: str | None = Field(None, min_length=1, description="such as `europe-west4`")
    service_account: str | None = Field(
        None, min_length=1, description="account that the steps run as; null: the project's default one"
    )
    network: str | None = Field(
        None, min_length=1, description="such as `projects/NUMBER/global/networks/NAME`, to be peered with"
    )
    encryption_key: str | None = Field(
        None,
        min_length=1,
        description="such as `projects/P/locations/REGION/keyRings/R/cryptoKeys/K`, in the run's region",
    )
    labels: dict[str, str] = Field({}, description="of each run, such as `{team: vision}`")


class KfpConfig(_Section):
    """Where the runs on open-source Kubeflow Pipelines go; read when a compiled pipeline is submitted."""

    host: str | None = Field(
        None, min_length=1, description="URL of the user interface, such as `http://localhost:8080`"
    )
    namespace: str | None = Field(None, min_length=1, description="of the user, where there are several")
    experiment: str = Field("Default", min_length=1, description="is made where there is none of that name")
    service_account: str | None = Field(None, min_length=1, description="of Kubernetes, for the steps")
    token_file: str | None = Field(
        None, min_length=1, description="file with a bearer token, as `kubectl create token` prints it"
    )
    cookie_file: str | None = Field(
        None, min_length=1, description="file with the cookie of a session, such as `authservice_session=...`"
    )
    ca_file: str | None = Field(
        None, min_length=1, description="certificates in PEM that the host is trusted by; null: public ones"
    )


class KubeflowConfig(_Section):
    """Where and in what the steps run on Vertex and Kubeflow; runs on this machine know nothing of it."""

    image: str | None = Field(
        None, min_length=1, description="container image of all steps, with this project's code"
    )
    data_uri: str | None = Field(
        None, min_length=1, description="where the steps find the dataset directory; null: at its path here"
    )
    baseline_model: str | None = Field(
        None,
        min_length=1,
        description="the `model` that a Trainer made, to be compared with; null takes the last blessed one "
        "on Vertex, and none on Kubeflow, which cannot search",
    )
    cache: Flag = Field(True, description="whether steps may be taken from the back end's cache")
    vertex: VertexConfig = VertexConfig()
    kfp: KfpConfig = KfpConfig()
    steps: Annotated[dict[str, StepConfig], pydantic.AfterValidator(_all_steps)] = Field(
        {},
        description="of any component: `cpu`, `memory_gb`, `accelerator` (on Vertex such as "
        "`NVIDIA_TESLA_T4`, on Kubeflow such as `nvidia.com/gpu`), `accelerator_count`, `image`; of the "
        "Trainer on Vertex also `workers` and their `machine_type`",
    )

    @property
    def trains_in_custom_job(self) -> bool:
        """Whether the Trainer has machines of its own, one or several, in a custom job of Vertex."""
        return "Trainer" in self.steps and self.steps["Trainer"].machine_type is not None

    def check_custom_job(self, target: str) -> None:
        """Raises a ConfigError if the Trainer has machines of its own that the target cannot give it.

        Args:
          target: `local`, `vertex` or `kfp`.
        """
        if not self.trains_in_custom_job:
            return
        key = "kubeflow.steps.Trainer"
        if target != "vertex":
            where = "a run on this machine" if target == "local" else "open-source Kubeflow Pipelines"
            raise ConfigError(
                f"{key} has machine_type {self.steps['Trainer'].machine_type} and workers "
                f"{self.steps['Trainer'].workers}; {where} trains in one process and has no such machines. "
                f"Leave both out, or set {key}.machine_type=null and {key}.workers=1"
            )
        missing = [name for name in ("project", "region") if getattr(self.vertex, name) is None]
        if missing:
            raise ConfigError(
                f"{key}.machine_type makes a custom job, which needs "
                f"{' and '.join(f'kubeflow.vertex.{name}' for name in missing)} when it is compiled"
            )


# Google's own pattern of project ids, with those of organizations.
_PROJECT_ID = r"^[a-z][-a-z0-9:.]+[a-z0-9]$"
_HOST_AND_PORT = r"^[^\s:/]+:\d+$"


class DirectConfig(_Section):
    """Beam in the process of each step; or in several on its machine, which are slow to start."""

    processes: PositiveInt = Field(
        1,
        description="worker processes of each step that uses Beam; each one loads TFX first, and with "
        "several the order of the examples, and so the training, is another in each run",
    )


class DataflowConfig(_Section):
    """Google's Dataflow. The options have the names that Beam gives them."""

    project: str | None = Field(None, pattern=_PROJECT_ID, description="needed for Dataflow: id of a project")
    region: str | None = Field(
        None, min_length=1, description="needed for Dataflow, for example `europe-west1`"
    )
    temp_location: str | None = Field(
        None, pattern="^gs://", description="for temporary files; null: `beam` in the root"
    )
    sdk_container_image: str | None = Field(
        None, min_length=1, description="image of the workers; null: `kubeflow.image`, which is made for that"
    )
    num_workers: PositiveInt | None = Field(None, description="workers at the start")
    max_num_workers: PositiveInt | None = None
    machine_type: str | None = Field(None, min_length=1)
    worker_zone: str | None = Field(None, min_length=1)
    disk_size_gb: PositiveInt | None = None
    service_account_email: str | None = Field(None, min_length=1, description="that the workers run as")
    network: str | None = Field(None, min_length=1)
    subnetwork: str | None = Field(None, min_length=1)
    no_use_public_ips: Flag = False
    dataflow_kms_key: str | None = Field(None, min_length=1)
    labels: tuple[str, ...] = Field((), description="`key=value` each")
    dataflow_service_options: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _starts_within_bounds(self) -> DataflowConfig:
        if self.num_workers and self.max_num_workers and self.num_workers > self.max_num_workers:
            raise ValueError(
                f"num_workers ({self.num_workers}) must not be more than max_num_workers "
                f"({self.max_num_workers})"
            )
        return self


class SparkConfig(_Section):
    """A Spark cluster behind a job server of Beam. The options have the names that Beam gives them."""

    job_endpoint: str | None = Field(
        None, pattern=_HOST_AND_PORT, description="needed: host:port of Beam's job server for the cluster"
    )
    artifact_endpoint: str | None = Field(
        None,
        pattern=_HOST_AND_PORT,
        description="host:port of its artifact service; null asks the job server",
    )
    environment_type: Literal["DOCKER", "EXTERNAL", "PROCESS", "LOOPBACK"] = Field(
        "DOCKER",
        description="how the cluster starts workers: `DOCKER` from an image; `EXTERNAL` asks a worker pool, "
        "such as a side-car; `PROCESS` runs a command; `LOOPBACK` uses the process of the step",
    )
    environment_config: str | None = Field(
        None,
        min_length=1,
        description="for DOCKER the image, null: `kubeflow.image`; for EXTERNAL host:port of the worker "
        "pool; for PROCESS JSON with a `command`",
    )
    sdk_worker_parallelism: PositiveInt | None = Field(
        None, description="worker processes of each node of the cluster"
    )

    @pydantic.model_validator(mode="after")
    def _environment_is_complete(self) -> SparkConfig:
        kind, found = self.environment_type, self.environment_config
        if kind == "EXTERNAL" and not re.match(_HOST_AND_PORT, found or ""):
            raise ValueError(
                "environment_type EXTERNAL needs host:port of a worker pool as environment_config"
            )
        if kind == "PROCESS" and not _has_command(found or ""):
            raise ValueError('environment_type PROCESS needs JSON with a "command" as environment_config')
        if kind == "LOOPBACK" and found:
            raise ValueError("environment_type LOOPBACK has no environment_config")
        return self


def _has_command(text: str) -> bool:
    try:
        return bool(json.loads(text)["command"])
    except (ValueError, TypeError, KeyError):
        return False


class FlinkConfig(SparkConfig):
    """A Flink cluster behind a job server of Beam. The options have the names that Beam gives them."""

    parallelism: PositiveInt | None = Field(None, description="null: the cluster's own")
    max_parallelism: PositiveInt | None = None


# What there is no default for.
_NEEDED = {
    "direct": (),
    "dataflow": ("project", "region"),
    "flink": ("job_endpoint",),
    "spark": ("job_endpoint",),
}
# Given any argument of Beam, TFX packs itself for workers that do not have it, seconds in every step. Ours
# have it in their image, and TFX looks whether there is one; Beam has no use for it with workers that it does
# not start from an image.
_NOT_PACKED = "--sdk_container_image=none"


class BeamConfig(_Section):
    """Where Beam runs ExampleGen, StatisticsGen, Transform and the Evaluator, which read all of the data."""

    runner: Literal["direct", "dataflow", "flink", "spark"] = Field(
        "direct", description="`direct` (on the step's own machine), `dataflow`, `flink` or `spark`"
    )
    direct: DirectConfig = DirectConfig()
    dataflow: DataflowConfig = DataflowConfig()
    flink: FlinkConfig = FlinkConfig()
    spark: SparkConfig = SparkConfig()

    @pydantic.model_validator(mode="after")
    def _options_are_of_the_runner(self) -> BeamConfig:
        problems = [
            f"beam.{other}.{key} means nothing with beam.runner={self.runner}"
            for other in _NEEDED
            for key in sorted(getattr(self, other).model_fields_set)
            if other != self.runner
        ]
        problems += [
            f"beam.runner={self.runner} needs beam.{self.runner}.{key}"
            for key in _NEEDED[self.runner]
            if getattr(self._options, key) is None
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def _options(self) -> Any:
        return getattr(self, self.runner)

    def arguments(self, root: str, image: str | None) -> list[str]:
        """Returns the command line of Beam; empty for Beam in the process of each step.

        Args:
          root: of the pipeline.
          image: with this project's code, for workers that are started from one.
        """
        if isinstance(self._options, DirectConfig):
            processes = self._options.processes
            several = ["--direct_running_mode=multi_processing", f"--direct_num_workers={processes}"]
            return [*several, _NOT_PACKED] if processes > 1 else []
        defaults: dict[str, Any] = {"runner": f"{self.runner.capitalize()}Runner"}
        if isinstance(self._options, DataflowConfig):
            defaults |= {"temp_location": posixpath.join(root, "beam"), "sdk_container_image": image}
        elif self._options.environment_type == "DOCKER":
            defaults["environment_config"] = image
        given = {key: value for key, value in self._options if value not in (None, (), False)}
        values = defaults | given
        arguments = [
            f"--{key}" if each is True else f"--{key}={each}"
            for key, value in values.items()
            for each in (value if isinstance(value, tuple) else (value,))
        ]
        return arguments if "sdk_container_image" in values else [*arguments, _NOT_PACKED]


class TrainingSettings(_Section):
    """The part of the configuration that a training step gets; a change here trains again, others do not."""

    seed: Seed
    model: ModelConfig
    augmentation: AugmentationConfig
    trainer: TrainerConfig
    tuner: TunerConfig = TunerConfig()

    def check_image_size(self, size: tuple[int, int]) -> None:
        """Checks that images are large enough for the network, and their crops, too.

        Args:
          size: (height, width) of what the network gets, in pixels.

        Raises:
          ConfigError: they are too small.
        """
        height, width = size
        if self.model.architecture == "mobilenetv2":
            if min(size) < _MOBILENETV2_SIDE:
                raise ConfigError(
                    f"MobileNetV2 needs images of at least {_MOBILENETV2_SIDE}x{_MOBILENETV2_SIDE} pixels, "
                    f"found {height}x{width}. Set model.image_size (96 or more is better still)"
                )
            return
        blocks, needed = len(self.model.cnn.filters), self.model.cnn.smallest_side
        if min(size) < needed:
            raise ConfigError(
                f"images of {height}x{width} pixels are too small for {blocks} blocks, each of which halves "
                f"the sides: at least {needed}x{needed} are needed. Set fewer model.cnn.filters or a larger "
                "model.image_size"
            )
        for scale in self.trainer.crop_scales:
            scaled = round(min(size) * scale)
            if scaled < needed:
                raise ConfigError(
                    f"trainer.crop_scales: at scale {scale:g} images of {min(size)} pixels have {scaled}, "
                    f"too few for {blocks} blocks, each of which halves the sides: at least {needed} are "
                    "needed. Set larger scales or fewer model.cnn.filters"
                )


class PipelineConfig(_Section):
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
    def _muon_has_kernels(self) -> PipelineConfig:
        if self.trainer.optimizer == "muon" and not (
            self.model.architecture == "cnn" and self.model.cnn.batch_normalization
        ):
            raise ValueError(
                "trainer.optimizer=muon trains convolutions that batch normalization follows: it needs "
                "model.architecture=cnn with model.cnn.batch_normalization=true; adamw suits any network"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _crops_what_can_be(self) -> PipelineConfig:
        if len(self.trainer.crop_scales) > 1 and self.model.architecture != "cnn":
            raise ValueError(
                "trainer.crop_scales are for model.architecture=cnn; the features of a pretrained network "
                "depend on the size of the images. Set model.image_size instead"
            )
        return self

    def describe(self) -> list[dict[str, Any]]:
        """Lists every setting but where the pipeline runs: `key`, `value` as JSON has it, and `origin`.

        The origin is `default`, the name of the preset, `--set`, or `flag`.
        """
        values = self.model_dump(mode="json")
        rows: list[dict[str, Any]] = []
        for key, _, _ in list_keys():
            value = values
            for part in key.split("."):
                value = value[part]
            rows.append({"key": key, "value": value, "origin": self._origins.get(key, "default")})
        return [row for row in rows if not row["key"].startswith(("root", "kubeflow.", "beam."))]

    def keys_of_command_line(self) -> list[str]:
        """Lists the keys that `--set` or a flag has set, in their order."""
        return [key for key, origin in self._origins.items() if origin in (SET, FLAG)]

    def describe_model(self) -> dict[str, str | None]:
        """Returns the model card: `intended_use`, `limits`, and `weights_license`, None without weights."""
        licenses = {"imagenet": _IMAGENET_LICENSE, "random": None}
        weights = self.model.mobilenetv2.weights
        pretrained = self.model.architecture == "mobilenetv2"
        license_ = licenses.get(weights, f"that of {Path(weights).name}") if pretrained else None
        return {**self.model_card.model_dump(), "weights_license": license_}

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

    def check_places(self, target: str) -> None:
        """Raises a ConfigError if the steps of a compiled pipeline could not reach their root or their data.

        Args:
          target: `vertex` or `kfp`.
        """
        vertex = target == "vertex"
        for key, uri in (("root", self.root), ("kubeflow.data_uri", self.kubeflow.data_uri)):
            mounted = not vertex and (uri is None or posixpath.isabs(uri))
            if not mounted and bucket_of(uri) is None:
                volume = "" if vertex else ", or the absolute path of a volume that every step has mounted"
                raise ConfigError(f"{key}: expected gs://BUCKET/...{volume}; found {uri or 'nothing'}")

    def trainer_settings(self) -> TrainingSettings:
        """Returns what the Trainer depends on: all of training, nothing of the search."""
        # What the other architecture would be like must not make this one train again.
        unused = "mobilenetv2" if self.model.architecture == "cnn" else "cnn"
        fields = {name: value for name, value in self.model if name != unused}
        return TrainingSettings(
            seed=self.seed,
            model=ModelConfig(**fields),
            augmentation=self.augmentation,
            trainer=self.trainer,
        )

    def tuner_settings(self) -> TrainingSettings:
        """Returns what the Tuner depends on: the number of epochs of the final training is not part of it."""
        searched_or_unused = {"epochs", "learning_rate", "batch_size", "early_stopping_patience"}
        trainer = TrainerConfig(**self.trainer.model_dump(exclude=searched_or_unused))
        return self.trainer_settings().model_copy(update={"trainer": trainer, "tuner": self.tuner})


def load(
    paths: Sequence[Path] = (), overrides: Iterable[str] = (), values: Mapping[str, Any] | None = None
) -> PipelineConfig:
    """Reads presets and applies overrides.

    Args:
      paths: YAML files, of which later ones win; what none of them sets has its default.
      overrides: `section.key=value` strings, the value in YAML notation; they win over the files.
      values: dotted key -> value; they win over both.

    Returns:
      The checked configuration.

    Raises:
      ConfigError: an unreadable file, an unknown key, a wrong type or an impossible value; all of
        them are listed, each with what is allowed.
    """
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for path in paths:
        preset = _read_yaml(path)
        _merge(tree, preset)
        origins |= dict.fromkeys(_leaves(preset), path.name)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"expected key=value, found {override!r}; for example --set trainer.epochs=5")
        _set(tree, key.strip(), _parse_yaml(text, f"the value of {key}"))
        _note_origin(origins, tree, key.strip(), SET)
    for key, value in (values or {}).items():
        _set(tree, key, value)
        _note_origin(origins, tree, key, FLAG)
    try:
        config = PipelineConfig.model_validate(tree)
    except pydantic.ValidationError as error:
        files = " and ".join(map(str, paths))
        source = f", of {files} and what was set on top of it," if files else ""
        problems = "\n".join(f"  {line}" for line in dict.fromkeys(_explain(e) for e in error.errors()))
        raise ConfigError(f"the configuration{source} cannot be used:\n{problems}") from None
    config._origins.update(origins)
    return config


def components(config: PipelineConfig) -> list[str]:
    """Lists the ids of the components of a pipeline, known before TFX is imported."""
    return [c for c in _COMPONENTS if c != "Tuner" or config.tuner.enabled]


def bucket_of(uri: str | None) -> str | None:
    """Returns the bucket that a gs:// URI lies in; None for anything else."""
    found = re.match(r"gs://([^/]+)", uri or "")
    return found and found[1]


def pipeline_directory(root: str, name: str) -> str:
    """Returns where, in the root, the artifacts of a pipeline are kept."""
    return posixpath.join(root, "pipelines", name)


def serving_directory(root: str, name: str) -> str:
    """Returns where, in the root, blessed models are pushed to."""
    return posixpath.join(root, "serving", name)


def list_keys(
    section: type[pydantic.BaseModel] = PipelineConfig, prefix: str = ""
) -> list[tuple[str, Any, str]]:
    """Lists every settable key as (dotted key, default, description)."""
    rows: list[tuple[str, Any, str]] = []
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, pydantic.BaseModel):
            rows += list_keys(type(default), f"{prefix}{name}.")
        else:
            rows.append((prefix + name, default, field.description or ""))
    return rows


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"cannot read the configuration file {path}: {reason}") from None
    tree = _parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(tree).__name__}")
    return tree


def _parse_yaml(text: str, what: str) -> Any:
    try:
        # YAML 1.2, in which 1e-3 is a number (in YAML 1.1 it is a string).
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ConfigError(f"{what} is not valid YAML: {error}") from None


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, leaf = dotted.split(".")
    for section in sections:
        below = tree.setdefault(section, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{dotted}: `{section}` is a value, not a section")
        tree = below
    tree[leaf] = value


def _merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Sets in a tree what another one has; sections are merged, too."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of all values."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _note_origin(origins: dict[str, str], tree: Mapping[str, Any], key: str, origin: str) -> None:
    """Notes where a value that was just set comes from; a section takes the place of all that it had."""
    for known in [k for k in origins if k.startswith(f"{key}.")]:
        del origins[known]
    value: Any = tree
    for part in key.split("."):
        value = value[part]
    leaves = _leaves(value, f"{key}.") if isinstance(value, Mapping) else [key]
    origins.update(dict.fromkeys(leaves, origin))


def _explain(error: Any) -> str:
    """One line for one of pydantic's errors, with what is allowed there."""
    location = [part for part in error["loc"] if not isinstance(part, int)]
    key = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        section = _section_at(location[:-1])
        allowed = list(section.model_fields)
        name = str(location[-1])
        elsewhere = [key for key, _, _ in list_keys() if key.endswith(f".{name}")]
        close = difflib.get_close_matches(name, allowed, n=1) or elsewhere[:3]
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        return f"{key}: unknown key{hint} Allowed: {', '.join(allowed)}"
    if error["type"] in ("model_type", "model_attributes_type"):
        below = ", ".join(f"{key}.{name}" for name in _section_at(location).model_fields)
        return f"{key}: is a section; set {below}"
    if error["type"] == "tuple_type":
        return f"{key}: expected a list, such as [64, 128]; found {error['input']!r}"
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return message  # It names the settings that do not go together.
    return f"{key}: {message[0].lower()}{message[1:]}; found {error['input']!r}"


def _section_at(location: list[Any]) -> type[pydantic.BaseModel]:
    section: type[pydantic.BaseModel] = PipelineConfig
    for part in location:
        if part not in section.model_fields:
            continue  # A name that is given to a section, such as that of a step.
        annotation = section.model_fields[part].annotation
        # Of a union its members, of a mapping what it holds.
        candidates = typing.get_args(annotation) or (annotation,)
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, pydantic.BaseModel))
    return section
