"""What Kubernetes gives the pods of a pipeline's steps: volumes, secrets, nodes, retries and deadlines."""

from __future__ import annotations

import collections
import posixpath
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from settings.base import Flag, PositiveInt, Section, matching

# The longest time in which a step may be tried again, in seconds. Kubernetes takes no deadline above 2^31 s.
LONGEST_SECONDS = 10 * 365 * 24 * 3600
# How long a pod may wait for a node and for its image before it starts, in seconds.
_START_SECONDS = 3600
# Folders at which Kubeflow's launcher puts artifacts, and the folder of shared memory.
_OF_ARTIFACTS, _SHARED_MEMORY = ("/gcs", "/minio", "/s3"), "/dev/shm"
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _check_path(path: str) -> str:
    inner = path.strip("/")
    if not inner or ":" in path or posixpath.normpath(path) != f"/{inner}":
        raise ValueError("expected an absolute path without `:` and `..`, such as `/data`")
    for folder in _OF_ARTIFACTS:
        if _is_in(path, folder):
            raise ValueError(f"expected a path outside of {folder}, where Kubeflow puts artifacts")
    return path


def _is_in(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")


def _check_sub_path(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError("expected a path within the volume, without `..`, such as `images`")
    return path


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        prefix, separator, name = key.rpartition("/")
        if not _LABEL_NAME.fullmatch(name) or (separator and not _LABEL_PREFIX.fullmatch(prefix)):
            raise ValueError(
                f"expected a label with a key such as `pool` or `example.com/pool`, found the key {key!r}"
            )
        if value and not _LABEL_NAME.fullmatch(value):
            raise ValueError(
                f"expected a value of at most 63 letters, digits, `-`, `_` and `.` for {key}, found {value!r}"
            )
    return labels


# Names of objects, paths in a container and quantities, as Kubernetes defines them.
ObjectName = Annotated[
    str,
    matching(
        r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?",
        "a name of at most 253 lower-case letters, digits, `-` and `.`, such as `my-data`",
    ),
]
# Kubeflow gives the volume in the pod the name of the claim or secret, and that name allows less.
_VOLUME_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_VOLUME_EXPECTED = (
    "a name of at most 63 lower-case letters, digits and `-`, such as `my-data`, since Kubeflow uses it as "
    "the name of a volume"
)
VolumeName = Annotated[str, matching(_VOLUME_NAME, _VOLUME_EXPECTED)]
MountPath = Annotated[str, pydantic.AfterValidator(_check_path)]
Variable = Annotated[
    str, matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable, such as `MY_TOKEN`")
]
Quantity = Annotated[
    str,
    matching(
        r"[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?", "a quantity of Kubernetes, such as `512Mi` or `2Gi`"
    ),
]


class VolumeConfig(Section):
    """A persistent volume claim that is mounted in a pod."""

    claim: VolumeName = Field(description="name of the PersistentVolumeClaim")
    path: MountPath = Field(description="absolute path at which it is mounted")
    sub_path: Annotated[str, pydantic.AfterValidator(_check_sub_path)] = Field(
        "", description="folder of the volume that is mounted; empty: its root"
    )


class SecretConfig(Section):
    """A secret whose keys become environment variables, or files of a folder."""

    name: ObjectName = Field(description="name of the Secret")
    env: dict[str, Variable] = Field({}, description="key of the Secret -> environment variable")
    path: MountPath | None = Field(
        None, description="absolute path of a folder with one file for each key; null: no files"
    )
    optional: Flag = Field(False, description="start the pod even if there is no such Secret")

    @pydantic.model_validator(mode="after")
    def _is_used(self) -> SecretConfig:
        if not self.env and self.path is None:
            raise ValueError(f"the secret {self.name} needs env, such as {{key: VARIABLE}}, or a path")
        if self.path is not None and not re.fullmatch(_VOLUME_NAME, self.name):
            raise ValueError(f"the secret {self.name} has a path, which needs {_VOLUME_EXPECTED}")
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
    factor: PositiveInt = Field(
        2, description="factor by which the wait grows with each try, an integer of 1 or more"
    )
    within_seconds: Annotated[int, Field(strict=True, ge=1, le=LONGEST_SECONDS)] | None = Field(
        None,
        description="seconds from the start of the first try after which there is no further one, however "
        "many are left; null: as many as `deadline_seconds` and the waits allow, or ten years",
    )

    @pydantic.model_validator(mode="after")
    def _is_time_for_all_tries(self) -> RetryConfig:
        longest = self.within_seconds or LONGEST_SECONDS
        if self.waits_seconds() > longest:
            raise ValueError(
                f"the waits before the {self.count} further tries take more than the {longest:,} seconds "
                "within which all of them begin; lower count, wait_seconds or factor, or raise within_seconds"
            )
        return self

    def waits_seconds(self) -> int:
        """Returns the sum of the waits before all further tries, or less once it is above ten years."""
        total, wait = 0, self.wait_seconds
        for _ in range(self.count):
            total, wait = total + wait, wait * self.factor
            if total > LONGEST_SECONDS:
                break
        return total

    def time_for_all(self, deadline_seconds: int | None) -> int:
        """Returns the seconds from the start of the first try after which there is no further one.

        By default, the time is that of all tries with the waits, and an hour for the start of each pod.

        Args:
          deadline_seconds: the longest duration of one try; None if it may take any time.
        """
        if self.within_seconds is not None:
            return self.within_seconds
        if deadline_seconds is None:
            return LONGEST_SECONDS
        tries = (self.count + 1) * (deadline_seconds + _START_SECONDS)
        return min(tries + self.waits_seconds(), LONGEST_SECONDS)


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
    node_selector: Annotated[dict[str, str], pydantic.AfterValidator(_check_labels)] = Field(
        {}, description="labels that the node of a pod has to have, such as `{pool: gpu}`"
    )
    tolerations: tuple[TolerationConfig, ...] = Field(
        (),
        description="taints of nodes that pods tolerate, such as `[{key: gpu, operator: Exists, effect: "
        "NoSchedule}]`; also `value` and `seconds`",
    )
    shared_memory: Quantity | None = Field(
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
        "`within_seconds`; null: none",
    )
    deadline_seconds: Annotated[int, Field(strict=True, ge=1, le=LONGEST_SECONDS)] | None = Field(
        None, description="seconds after which a pod is stopped and its step fails, 1 or more; null: never"
    )

    @pydantic.model_validator(mode="after")
    def _has_no_conflict(self) -> PodConfig:
        self.check_conflicts()
        return self

    def check_conflicts(self) -> None:
        """Checks that no two settings need the same path, environment variable or volume.

        Raises:
          ValueError: two of them do.
        """
        mounted = [secret for secret in self.secrets if secret.path is not None]
        paths = [volume.path for volume in self.volumes]
        paths += [secret.path for secret in mounted if secret.path]
        paths += [_SHARED_MEMORY] if self.shared_memory else []
        variables = [variable for secret in self.secrets for variable in secret.env.values()]
        volumes = {volume.claim for volume in self.volumes}
        names = [*volumes, *{secret.name for secret in mounted}]
        for repeated, what in (
            (_repeated(path.rstrip("/") for path in paths), "mounted at one path"),
            (_repeated(variables), "the same environment variable"),
            (_repeated(names), "a claim and a secret of one name, which cannot both be volumes of a pod"),
        ):
            if repeated is not None:
                raise ValueError(f"found {repeated} twice: {what}; change one of them")

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


def _repeated(values: Iterable[str]) -> str | None:
    return next((value for value, count in collections.Counter(values).items() if count > 1), None)
