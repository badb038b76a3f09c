"""Back ends, containers and machines of a compiled pipeline's steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from settings.base import ConfigError, Flag, PositiveFloat, PositiveInt, Section, matching
from settings.kubernetes import MountPath, ObjectName, PodConfig, SecretConfig
from settings.places import bucket_of, check_uri, is_in_store, is_s3
from settings.steps import STEPS, WITHOUT_CONTAINER

# The services that run a compiled pipeline: Vertex AI Pipelines and open-source Kubeflow Pipelines.
BackEnd = Literal["vertex", "kfp"]
# A back end, or this machine (`local`).
Target = Literal["local", "vertex", "kfp"]
# Addresses of the object store of a default installation of Kubeflow, as its pods reach it: of newer
# versions, whose store is SeaweedFS, and of older ones. Some versions have both names for one store.
STORE_ENDPOINTS = ("http://seaweedfs.kubeflow:9000", "http://minio-service.kubeflow:9000")
# Secret with the credentials of that store.
STORE_SECRET = "mlpipeline-minio-artifact"


class StepConfig(Section):
    """Container image, resources and machines of one step; null leaves the choice to the cluster."""

    image: str | None = Field(
        None, min_length=1, description="container image of this step; null: `kubeflow.image`"
    )
    cpu: PositiveFloat | None = Field(None, description="limit of CPU cores, above 0; null: no limit is set")
    memory_gb: PositiveFloat | None = Field(
        None, description="limit of memory in GB, above 0; null: no limit is set"
    )
    accelerator: str | None = Field(
        None,
        min_length=1,
        description="accelerator type, such as `NVIDIA_TESLA_T4` on Vertex or `nvidia.com/gpu` on Kubeflow; "
        "null: none",
    )
    accelerator_count: PositiveInt = Field(1, description="number of accelerators, 1 or more")
    machine_type: str | None = Field(
        None,
        min_length=1,
        description="machine type of the Trainer's custom job on Vertex, such as `n1-standard-8`; null: the "
        "Trainer runs in a container of the pipeline",
    )
    workers: PositiveInt = Field(
        1, description="number of machines that the Trainer's custom job trains on, 1 or more"
    )

    @pydantic.model_validator(mode="after")
    def _accelerator_count_has_accelerator(self) -> StepConfig:
        if self.accelerator is None and "accelerator_count" in self.model_fields_set:
            raise ValueError("accelerator_count needs an accelerator: set one, or leave out the count")
        return self

    @pydantic.model_validator(mode="after")
    def _machine_settings_are_consistent(self) -> StepConfig:
        if self.workers > 1 and self.machine_type is None:
            raise ValueError("workers need a machine_type, such as n1-standard-8")
        if self.machine_type is not None and (self.cpu is not None or self.memory_gb is not None):
            raise ValueError("a machine_type determines CPUs and memory: leave out cpu and memory_gb")
        return self


def _check_names(steps: dict[str, Any]) -> dict[str, Any]:
    known = [name for name in STEPS if name not in WITHOUT_CONTAINER]
    for name in steps:
        if name not in known:
            raise ValueError(f"there is no step {name}; expected some of {', '.join(known)}")
    return steps


def _check_steps(steps: dict[str, StepConfig]) -> dict[str, StepConfig]:
    for name, step in _check_names(steps).items():
        if step.machine_type and name != "Trainer":
            raise ValueError(f"only the Trainer can have a machine_type and workers, not {name}")
    return steps


class VertexConfig(Section):
    """Project, region and identity of runs on Vertex AI Pipelines.

    They are read when a compiled pipeline is submitted. A custom job of the Trainer needs them earlier, when
    the pipeline is compiled.
    """

    project: (
        Annotated[str, matching(r"[a-z][-a-z0-9:.]*", "the id of a project, such as `my-project`")] | None
    ) = Field(None, description="id of the Google Cloud project; null: the credentials' project")
    region: str | None = Field(
        None, min_length=1, description="region of the runs, such as `europe-west4`; required for Vertex"
    )
    service_account: str | None = Field(
        None,
        min_length=1,
        description="service account that the steps run as; null: the project's default account",
    )
    network: str | None = Field(
        None,
        min_length=1,
        description="VPC network to peer the steps with, such as `projects/NUMBER/global/networks/NAME`; "
        "null: none",
    )
    encryption_key: str | None = Field(
        None,
        min_length=1,
        description="Cloud KMS key that encrypts the run, in the region of the run, such as "
        "`projects/P/locations/REGION/keyRings/R/cryptoKeys/K`; null: a key that Google manages",
    )
    labels: dict[str, str] = Field({}, description="labels of each run, such as `{team: vision}`")


class StoreConfig(Section):
    """The object store that the Pusher writes to on open-source Kubeflow, at a URI with s3:// or minio://.

    The other steps need neither address nor credentials, because Kubeflow copies their artifacts.
    """

    endpoint: (
        Annotated[str, matching(r"https?://[^/]+", "an address such as `http://seaweedfs.kubeflow:9000`")]
        | None
    ) = Field(
        None,
        description="address of the store, as the steps reach it; null: for minio:// the one of a default "
        f"installation, the first of {' and '.join(f'`{each}`' for each in STORE_ENDPOINTS)} that answers; "
        "for s3:// Amazon S3",
    )
    secret: ObjectName | None = Field(
        None,
        description=f"Secret with the store's credentials; null: for minio:// `{STORE_SECRET}`, which every "
        "installation has, and for s3:// none, since the step's service account has access",
    )
    access_key: str = Field(
        "accesskey", min_length=1, description="key of the Secret that holds the name of the account"
    )
    secret_key: str = Field(
        "secretkey", min_length=1, description="key of the Secret that holds the account's password"
    )

    def endpoints_of(self, uri: str) -> tuple[str, ...]:
        """Returns the possible addresses of the store that holds a place; none for Amazon S3 and others."""
        if self.endpoint is not None:
            return (self.endpoint,)
        return STORE_ENDPOINTS if uri.startswith("minio://") else ()

    def secret_of(self, uri: str) -> SecretConfig | None:
        """Returns the secret of a pod that writes to a place; None if it needs none."""
        # The keys of the installation's own store are not sent to any other one.
        name = self.secret or (STORE_SECRET if uri.startswith("minio://") else None)
        if name is None or not is_s3(uri):
            return None
        env = {self.access_key: "AWS_ACCESS_KEY_ID", self.secret_key: "AWS_SECRET_ACCESS_KEY"}
        return SecretConfig(name=name, env=env)


class KfpConfig(PodConfig):
    """Open-source Kubeflow Pipelines: its address and the credentials for it, and the pods of the steps.

    Address, namespace, experiment, account and credentials are read when a compiled pipeline is submitted.
    The settings of pods are compiled in.
    """

    host: str | None = Field(
        None,
        min_length=1,
        description="URL of Kubeflow Pipelines, such as `http://localhost:8080`; required to submit a run",
    )
    namespace: str | None = Field(
        None,
        min_length=1,
        description="user's namespace, on installations with several users; null: none is sent",
    )
    experiment: str = Field(
        "Default", min_length=1, description="experiment of the runs; it is created if it does not exist"
    )
    service_account: str | None = Field(
        None,
        min_length=1,
        description="Kubernetes service account that the steps run as; null: the installation's default",
    )
    token_file: str | None = Field(
        None,
        min_length=1,
        description="file with a bearer token, as printed by `kubectl create token`; null: no token is sent",
    )
    cookie_file: str | None = Field(
        None,
        min_length=1,
        description="file with a session cookie, such as `authservice_session=...`; null: no cookie is sent",
    )
    ca_file: str | None = Field(
        None,
        min_length=1,
        description="PEM file with the certificates of the authorities that sign the host's certificate; "
        "null: the public authorities",
    )
    store: StoreConfig = StoreConfig()
    checkpoints: MountPath | None = Field(
        None,
        description="folder on one of the Trainer's volumes for checkpoints, from which a retry of the "
        "Trainer, and of a Tuner with the same volume, resumes; null: a retry begins anew",
    )
    steps: Annotated[dict[str, PodConfig], pydantic.AfterValidator(_check_names)] = Field(
        {},
        description="settings of the pod of one step, such as `{Trainer: {retries: {count: 2}}}`, with the "
        "same keys as for all steps: lists are appended, labels added, other values replaced",
    )

    @pydantic.model_validator(mode="after")
    def _pods_have_no_conflicts(self) -> KfpConfig:
        for step in self.steps:
            try:
                self.pod(step).check_conflicts()
            except ValueError as error:
                raise ValueError(
                    f"{error}. These are the settings of all steps with those of {step}"
                ) from None
        return self

    def pod(self, step: str) -> PodConfig:
        """Returns the settings of the pod of a step."""
        return self.merged_with(self.steps.get(step, PodConfig()))

    def is_on_volume(self, folder: str, step: str) -> bool:
        """Returns whether a folder, given by its absolute path, is on one of a step's volumes."""
        return any(Path(folder).is_relative_to(volume.path) for volume in self.pod(step).volumes)

    def check_on_volume(self, key: str, folder: str, step: str) -> None:
        """Checks that a folder outlives the pod of a step.

        Args:
          key: key of the setting, for the message.
          folder: absolute path of the folder.
          step: the step that writes it.

        Raises:
          ConfigError: the folder is on no volume of the step.
        """
        if not self.is_on_volume(folder, step):
            mounts = [volume.path for volume in self.pod(step).volumes]
            raise ConfigError(
                f"{key}: expected a folder on one of the {step}'s volumes, found {folder}; volumes are "
                f"mounted at {', '.join(mounts) or 'no place'}. Set kubeflow.kfp.volumes or "
                f"kubeflow.kfp.steps.{step}.volumes"
            )


class KubeflowConfig(Section):
    """Containers, data and back ends of compiled pipelines; local runs do not use these settings."""

    image: str | None = Field(
        None, min_length=1, description="container image of all steps, with this project's code"
    )
    data_uri: str | None = Field(
        None,
        min_length=1,
        description="URI or path at which the steps find the dataset directory; null: its path on this "
        "machine",
    )
    serving: str | None = Field(
        None,
        min_length=1,
        description="place below which models are pushed: a URI, or on Kubeflow an absolute path on a volume "
        "of the Pusher; null: `serving` below the root",
    )
    baseline_model: str | None = Field(
        None,
        min_length=1,
        description="URI of a Trainer's output `model` that new models are compared with; null: the last "
        "blessed model on Vertex, no comparison on Kubeflow, which cannot look up earlier models",
    )
    cache: Flag = Field(True, description="reuse the outputs of unchanged steps from the back end's cache")
    vertex: VertexConfig = VertexConfig()
    kfp: KfpConfig = KfpConfig()
    steps: Annotated[dict[str, StepConfig], pydantic.AfterValidator(_check_steps)] = Field(
        {},
        description="resources of each step by its name, such as `{Trainer: {cpu: 4}}`. Keys of every step: "
        "`cpu` (cores), `memory_gb`, `accelerator` (such as `NVIDIA_TESLA_T4` on Vertex or `nvidia.com/gpu` "
        "on Kubeflow), `accelerator_count` and `image`. The Trainer on Vertex also has `workers` (number of "
        "machines) and `machine_type`",
    )

    @property
    def trains_in_custom_job(self) -> bool:
        """Whether the Trainer runs on machines of its own, one or several, in a Vertex custom job."""
        return "Trainer" in self.steps and self.steps["Trainer"].machine_type is not None

    def check_folders(self, target: BackEnd) -> None:
        """Checks that the checkpoints and the pushed models outlive the pods that write them.

        Args:
          target: back end on which the pipeline will run.

        Raises:
          ConfigError: a folder is on no volume of its step, or not at a place that the back end can write.
        """
        if target == "kfp" and self.kfp.checkpoints is not None:
            self.kfp.check_on_volume("kubeflow.kfp.checkpoints", self.kfp.checkpoints, "Trainer")
        place = self.serving
        if place is None:
            return
        if is_in_store(place):
            check_uri("kubeflow.serving", place, is_artifact=False)
        if bucket_of(place) is not None:
            return
        if target == "vertex":
            raise ConfigError(f"kubeflow.serving: expected gs://BUCKET/..., found {place}")
        if not is_s3(place):
            self.kfp.check_on_volume("kubeflow.serving", place, "Pusher")

    def check_custom_job(self, target: Target) -> None:
        """Checks that the target can provide the machines that are set for the Trainer.

        Args:
          target: `local`, `vertex` or `kfp`.

        Raises:
          ConfigError: the Trainer has a machine type, but the target is not Vertex, or Vertex's project or
            region is not set.
        """
        if not self.trains_in_custom_job:
            return
        key = "kubeflow.steps.Trainer"
        if target != "vertex":
            where = "a local run" if target == "local" else "open-source Kubeflow Pipelines"
            raise ConfigError(
                f"{key} has machine_type {self.steps['Trainer'].machine_type} and workers "
                f"{self.steps['Trainer'].workers}, but {where} trains in one process and cannot provide "
                f"machines. Leave both out, or set {key}.machine_type=null and {key}.workers=1"
            )
        missing = [name for name in ("project", "region") if getattr(self.vertex, name) is None]
        if missing:
            raise ConfigError(
                f"{key}.machine_type trains in a custom job, which needs "
                f"{' and '.join(f'kubeflow.vertex.{name}' for name in missing)} when the pipeline is compiled"
            )
