"""What Kubernetes gives the pods of a pipeline's steps: volumes, secrets, nodes, retries and deadlines."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from settings.base import Flag, PositiveInt, Section

# Names of objects, paths in a container and quantities, as Kubernetes defines them.
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
MountPath = Annotated[str, Field(pattern=r"^/[^:]+$")]
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


class VolumeConfig(Section):
    """A persistent volume claim that is mounted in a pod."""

    claim: ObjectName = Field(description="name of the PersistentVolumeClaim")
    path: MountPath = Field(description="absolute path at which it is mounted")
    sub_path: str = Field("", description="folder of the volume that is mounted; empty: its root")


class SecretConfig(Section):
    """A secret whose keys become environment variables, or files of a folder."""

    name: ObjectName = Field(description="name of the Secret")
    env: dict[str, Annotated[str, Field(pattern=_VARIABLE)]] = Field(
        {}, description="key of the Secret -> environment variable"
    )
    path: MountPath | None = Field(
        None, description="absolute path of a folder with one file for each key; null: no files"
    )
    optional: Flag = Field(False, description="start the pod even if there is no such Secret")

    @pydantic.model_validator(mode="after")
    def _is_used(self) -> SecretConfig:
        if not self.env and self.path is None:
            raise ValueError(f"the secret {self.name} needs env, such as {{key: VARIABLE}}, or a path")
        return self


class TolerationConfig(Section):
    """A taint of nodes that a pod tolerates."""

    key: str | None = Field(None, description="key of the taint; null: every taint, with operator Exists")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="how the value is compared")
    value: str | None = Field(None, description="value of the taint, for the operator Equal")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="effect of the taint; null: every effect"
    )
    seconds: PositiveInt | None = Field(
        None, description="how long a NoExecute taint is tolerated, in seconds; null: for ever"
    )

    @pydantic.model_validator(mode="after")
    def _is_valid_in_kubernetes(self) -> TolerationConfig:
        if self.key is None and self.operator != "Exists":
            raise ValueError("a toleration without a key needs the operator Exists")
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("a toleration with the operator Exists takes no value")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError("seconds of a toleration need the effect NoExecute")
        return self


class RetryConfig(Section):
    """How often a failed step is tried again, and how long Kubeflow waits before each try."""

    count: PositiveInt = Field(description="number of further tries, 1 or more")
    wait_seconds: PositiveInt = Field(60, description="seconds before the first further try, 1 or more")
    factor: Annotated[float, Field(strict=True, ge=1)] = Field(
        2.0, description="factor by which the wait grows with each try, 1 or more"
    )
    longest_wait_seconds: PositiveInt = Field(3600, description="longest wait in seconds, 1 or more")


class PodConfig(Section):
    """Settings of pods on open-source Kubeflow."""

    volumes: tuple[VolumeConfig, ...] = Field(
        (),
        description="persistent volume claims to mount, such as `[{claim: data, path: /data}]`; each may "
        "have a `sub_path`",
    )
    secrets: tuple[SecretConfig, ...] = Field(
        (),
        description="secrets as environment variables or files, such as `[{name: s, env: {key: VARIABLE}}]` "
        "or `[{name: s, path: /secrets}]`; each may be `optional`",
    )
    node_selector: dict[str, str] = Field(
        {}, description="labels that the node of a pod has to have, such as `{pool: gpu}`"
    )
    tolerations: tuple[TolerationConfig, ...] = Field(
        (),
        description="taints of nodes that pods tolerate, such as `[{key: gpu, operator: Exists, effect: "
        "NoSchedule}]`; also `value` and `seconds`",
    )
    shared_memory: Annotated[str, Field(pattern=_QUANTITY)] | None = Field(
        None, description="size of /dev/shm, such as `2Gi`; null: the cluster's default, often 64 MB"
    )
    pull_secrets: tuple[ObjectName, ...] = Field(
        (), description="secrets with the credentials of the image's registry"
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="when the image is pulled: `Always`, `IfNotPresent`, `Never`; null: the default"
    )
    retries: RetryConfig | None = Field(
        None,
        description="tries after a failure, such as `{count: 2}`; also `wait_seconds`, `factor` and "
        "`longest_wait_seconds`; null: none",
    )
    deadline_seconds: PositiveInt | None = Field(
        None, description="seconds after which a pod is stopped and its step fails, 1 or more; null: never"
    )

    def merged_with(self, step: PodConfig) -> PodConfig:
        """Returns these settings with those of one step.

        Args:
          step: settings of one step. Its lists are appended to these, its labels added, and its other values
            replace these.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in PodConfig.model_fields}
        for name in step.model_fields_set & PodConfig.model_fields.keys():
            value = getattr(step, name)
            if isinstance(value, tuple):
                value = (*getattr(self, name), *value)
            elif isinstance(value, dict):
                value = {**getattr(self, name), **value}
            values[name] = value
        return PodConfig.model_construct(**values)
