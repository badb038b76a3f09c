"""Where and in what the steps of a compiled pipeline run."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from settings.base import ConfigError, Flag, PositiveFloat, PositiveInt, Section
from settings.steps import STEPS

# Where a compiled pipeline runs: on Vertex AI Pipelines, or on open-source Kubeflow Pipelines.
BackEnd = Literal["vertex", "kfp"]
# Where any pipeline runs; `local` is this machine.
Target = Literal["local", "vertex", "kfp"]


class StepConfig(Section):
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
    known = [name for name in STEPS if name != "Baseline"]  # which runs in no container
    for name, step in steps.items():
        if name not in known:
            raise ValueError(f"there is no step {name}; expected some of {', '.join(known)}")
        if step.machine_type and name != "Trainer":
            raise ValueError(f"only the Trainer can have a machine_type and workers, not {name}")
    return steps


class VertexConfig(Section):
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


class KfpConfig(Section):
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


class KubeflowConfig(Section):
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

    def check_custom_job(self, target: Target) -> None:
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
