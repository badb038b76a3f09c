"""The Apache Beam runner of the steps that process the whole dataset, and its options."""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from settings.base import Flag, PositiveInt, Section, matching

# Google's pattern for project ids, including ids that are scoped to an organization's domain.
_ProjectId = Annotated[
    str, matching(r"[a-z][-a-z0-9:.]+[a-z0-9]", "the id of a Google Cloud project, such as `my-project-1`")
]
_HOST_AND_PORT = r"[^\s:/]+:\d+"
_HostAndPort = Annotated[str, matching(_HOST_AND_PORT, "host:port, such as `localhost:8099`")]


class DirectConfig(Section):
    """Beam's direct runner: inside the step's own process, or in several processes on the same machine."""

    processes: PositiveInt = Field(
        1,
        description="worker processes of each step that uses Beam, 1 or more. Each process has to load TFX "
        "first. With more than one, the order of the examples, and so the trained weights, differ from run "
        "to run",
    )


class DataflowConfig(Section):
    """Google Cloud Dataflow. The options are named as in Beam."""

    project: _ProjectId | None = Field(
        None, description="id of the Google Cloud project; required for Dataflow"
    )
    region: str | None = Field(
        None,
        min_length=1,
        description="region of the Dataflow job, such as `europe-west1`; required for Dataflow",
    )
    temp_location: Annotated[str, matching("gs://.+", "a place such as `gs://BUCKET/beam`")] | None = Field(
        None, description="gs:// folder for temporary files; null: `beam` below `root`"
    )
    sdk_container_image: str | None = Field(
        None,
        min_length=1,
        description="container image of the workers; null: `kubeflow.image`, which can also start a worker",
    )
    num_workers: PositiveInt | None = Field(
        None, description="number of workers at the start, 1 or more; null: Dataflow decides"
    )
    max_num_workers: PositiveInt | None = Field(
        None, description="largest number of workers, 1 or more; null: Dataflow decides"
    )
    machine_type: str | None = Field(
        None,
        min_length=1,
        description="machine type of the workers, such as `n1-standard-4`; null: Dataflow decides",
    )
    worker_zone: str | None = Field(
        None,
        min_length=1,
        description="zone of the workers, such as `europe-west1-b`; null: Dataflow chooses one in the region",
    )
    disk_size_gb: PositiveInt | None = Field(
        None, description="disk size of each worker in GB, 1 or more; null: Dataflow decides"
    )
    service_account_email: str | None = Field(
        None,
        min_length=1,
        description="email address of the service account that the workers run as; null: Dataflow's default",
    )
    network: str | None = Field(
        None, min_length=1, description="VPC network of the workers; null: Dataflow decides"
    )
    subnetwork: str | None = Field(
        None,
        min_length=1,
        description="subnetwork of the workers, such as `regions/REGION/subnetworks/NAME`; null: Dataflow "
        "decides",
    )
    no_use_public_ips: Flag = Field(False, description="give the workers private IP addresses only")
    dataflow_kms_key: str | None = Field(
        None,
        min_length=1,
        description="Cloud KMS key that encrypts the job's state; null: a key that Google manages",
    )
    labels: tuple[str, ...] = Field((), description="labels of the job, each as `key=value`")
    dataflow_service_options: tuple[str, ...] = Field(
        (), description="further options of the Dataflow service, each as `option` or `option=value`"
    )
    experiments: tuple[str, ...] = Field((), description="names of experimental Beam features to enable")

    @pydantic.model_validator(mode="after")
    def _starts_within_bounds(self) -> DataflowConfig:
        if self.num_workers and self.max_num_workers and self.num_workers > self.max_num_workers:
            raise ValueError(
                f"num_workers ({self.num_workers}) must not be more than max_num_workers "
                f"({self.max_num_workers})"
            )
        return self


class SparkConfig(Section):
    """A Spark cluster, reached through Beam's job server. The options are named as in Beam."""

    job_endpoint: _HostAndPort | None = Field(
        None,
        description="host:port of Beam's job server for the cluster; required for this runner",
    )
    artifact_endpoint: _HostAndPort | None = Field(
        None,
        description="host:port of the job server's artifact service; null: the one that it reports",
    )
    environment_type: Literal["DOCKER", "EXTERNAL", "PROCESS", "LOOPBACK"] = Field(
        "DOCKER",
        description="how the cluster starts workers: `DOCKER` from a container image, `EXTERNAL` through a "
        "worker pool such as a sidecar, `PROCESS` with a command, `LOOPBACK` in the process of the step",
    )
    environment_config: str | None = Field(
        None,
        min_length=1,
        description="for DOCKER the container image (null: `kubeflow.image`), for EXTERNAL host:port of the "
        "worker pool, for PROCESS a JSON object with the key `command`; not allowed for LOOPBACK",
    )
    sdk_worker_parallelism: PositiveInt | None = Field(
        None, description="worker processes on each node of the cluster, 1 or more; null: Beam's default, 1"
    )

    @pydantic.model_validator(mode="after")
    def _environment_is_complete(self) -> SparkConfig:
        kind, found = self.environment_type, self.environment_config
        if kind == "EXTERNAL" and not re.fullmatch(_HOST_AND_PORT, found or ""):
            raise ValueError(
                "environment_type EXTERNAL needs host:port of a worker pool as environment_config"
            )
        if kind == "PROCESS" and not _has_command(found or ""):
            raise ValueError(
                'environment_type PROCESS needs a JSON object with the key "command" as environment_config'
            )
        if kind == "LOOPBACK" and found:
            raise ValueError("environment_type LOOPBACK takes no environment_config: leave it out")
        return self


def _has_command(text: str) -> bool:
    try:
        return bool(json.loads(text)["command"])
    except (ValueError, TypeError, KeyError):
        return False


class FlinkConfig(SparkConfig):
    """A Flink cluster, reached through Beam's job server. The options are named as in Beam."""

    parallelism: PositiveInt | None = Field(
        None, description="parallel instances of each operation, 1 or more; null: the cluster's default"
    )
    max_parallelism: PositiveInt | None = Field(
        None, description="upper limit for `parallelism` when the job is rescaled; null: Flink's default"
    )


# Options of each runner that have no usable default.
_REQUIRED_OPTIONS = {
    "direct": (),
    "dataflow": ("project", "region"),
    "flink": ("job_endpoint",),
    "spark": ("job_endpoint",),
}


class BeamConfig(Section):
    """The Beam runner of ExampleGen, StatisticsGen, Transform and the Evaluator, and the runner's options."""

    runner: Literal["direct", "dataflow", "flink", "spark"] = Field(
        "direct", description="runner of Beam: `direct` (on the step's machine), `dataflow`, `flink`, `spark`"
    )
    direct: DirectConfig = DirectConfig()
    dataflow: DataflowConfig = DataflowConfig()
    flink: FlinkConfig = FlinkConfig()
    spark: SparkConfig = SparkConfig()

    @pydantic.model_validator(mode="after")
    def _options_are_of_the_runner(self) -> BeamConfig:
        problems = [
            f"beam.{other}.{key} has no effect with beam.runner={self.runner}: leave it out"
            for other in _REQUIRED_OPTIONS
            for key in sorted(getattr(self, other).model_fields_set)
            if other != self.runner
        ]
        problems += [
            f"beam.runner={self.runner} needs beam.{self.runner}.{key}"
            for key in _REQUIRED_OPTIONS[self.runner]
            if getattr(self.options, key) is None
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def has_workers(self) -> bool:
        """Whether workers on other machines read and write the data of a step."""
        return self.runner != "direct"

    @property
    def options(self) -> DirectConfig | DataflowConfig | FlinkConfig | SparkConfig:
        """Options of the configured runner."""
        return getattr(self, self.runner)
