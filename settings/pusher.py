"""Where blessed models go, and whether they answer at once."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from settings.base import ConfigError, PositiveInt, Section, matching
from settings.kubeflow import Target, VertexConfig

# Images of Vertex itself load a SavedModel without more. They have no tag but `latest`.
_IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"


class VertexEndpointConfig(Section):
    """The endpoint on Vertex AI that models are deployed to with `pusher.target=vertex_endpoint`.

    Its project and region are `kubeflow.vertex.project` and `kubeflow.vertex.region`, and its service account
    is `kubeflow.vertex.service_account`.
    """

    # TFX writes it into a filter in quotes.
    name: Annotated[str, matching(r'[^"\\]+', "a name without quotes and backslashes")] | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="display name of the endpoint, which is created if there is none; null: the name of the "
        "pipeline",
    )
    image: str = Field(
        _IMAGE, min_length=1, description="container image that serves the model, such as one of Vertex's own"
    )
    machine_type: str = Field(
        "n1-standard-2", min_length=1, description="machine type of each replica, such as `n1-standard-2`"
    )
    min_replicas: PositiveInt = Field(1, description="number of replicas without traffic, 1 or more")
    max_replicas: PositiveInt = Field(1, description="largest number of replicas, `min_replicas` or more")

    @pydantic.model_validator(mode="after")
    def _replicas_are_a_range(self) -> VertexEndpointConfig:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas: expected {self.min_replicas} (min_replicas) or more; found "
                f"{self.max_replicas}"
            )
        return self


class PusherConfig(Section):
    """What the Pusher does with a blessed model."""

    target: Literal["folder", "vertex_endpoint"] = Field(
        "folder",
        description="where models are pushed: `folder`, which servers read, is `ROOT/serving/NAME` or below "
        "`kubeflow.serving`; `vertex_endpoint` deploys them to an endpoint of Vertex AI, and needs a "
        "pipeline that was compiled for Vertex",
    )
    promote: Literal["auto", "manual"] = Field(
        "auto",
        description="`auto`: a pushed model answers at once, unless `python -m serving.versions` has "
        "promoted another one for good; `manual`: the one that answered goes on until `python -m "
        "serving.versions promote VERSION`, or on a Vertex endpoint until the traffic is moved",
    )
    vertex_endpoint: VertexEndpointConfig = VertexEndpointConfig()

    def check_target(self, target: Target, vertex: VertexConfig) -> None:
        """Checks that models can be deployed to an endpoint from where the pipeline runs.

        Args:
          target: `local`, `vertex` or `kfp`.
          vertex: the project and region of Vertex.

        Raises:
          ConfigError: `vertex_endpoint` is set and the pipeline does not run on Vertex, its project or its
            region is not set, or a key is set with which TFX would not encrypt.
        """
        if self.target != "vertex_endpoint":
            return
        if target != "vertex":
            where = "a local run" if target == "local" else "a pipeline on open-source Kubeflow"
            raise ConfigError(
                f"pusher.target=vertex_endpoint: {where} cannot deploy to Vertex, which reads models from "
                "gs:// only. Compile the pipeline with --target vertex, or set pusher.target=folder"
            )
        if vertex.encryption_key:
            raise ConfigError(
                "pusher.target=vertex_endpoint: TFX's Pusher encrypts neither models nor endpoints with "
                "kubeflow.vertex.encryption_key; leave the key out, or push to a folder and deploy from there"
            )
        missing = [name for name in ("project", "region") if getattr(vertex, name) is None]
        if missing:
            raise ConfigError(
                "pusher.target=vertex_endpoint needs "
                f"{' and '.join(f'kubeflow.vertex.{name}' for name in missing)} when the pipeline is compiled"
            )

    def check_promotion(self, place: str) -> None:
        """Checks that a model that was pushed to a place can wait for its promotion there.

        Args:
          place: path or URI below which models are pushed.

        Raises:
          ConfigError: models have to wait, but the place is an object store, from which servers take the
            newest version.
        """
        if self.promote == "manual" and self.target == "folder" and "://" in place:
            raise ConfigError(
                f"pusher.promote=manual: models are pushed to {place}, but only `serving.server` knows "
                "versions that wait, and it reads folders. Set pusher.promote=auto, and name the version "
                "that answers in the server's configuration, as deploy/README.md shows; or push to a "
                "folder: on Kubeflow, set kubeflow.serving to a path on a volume"
            )
