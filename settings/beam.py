"""Where Beam runs the steps that read all of the data."""

from __future__ import annotations

import json
import re
from typing import Literal

import pydantic
from pydantic import Field

from settings.base import Flag, PositiveInt, Section

# Google's own pattern of project ids, with those of organizations.
_PROJECT_ID = r"^[a-z][-a-z0-9:.]+[a-z0-9]$"
_HOST_AND_PORT = r"^[^\s:/]+:\d+$"


class DirectConfig(Section):
    """Beam in the process of each step; or in several on its machine, which are slow to start."""

    processes: PositiveInt = Field(
        1,
        description="worker processes of each step that uses Beam; each one loads TFX first, and with "
        "several the order of the examples, and so the training, is another in each run",
    )


class DataflowConfig(Section):
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


class SparkConfig(Section):
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


class BeamConfig(Section):
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
            if getattr(self.options, key) is None
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def options(self) -> DirectConfig | DataflowConfig | FlinkConfig | SparkConfig:
        """The section of the configured runner."""
        return getattr(self, self.runner)
