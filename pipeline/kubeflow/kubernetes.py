"""Writes the settings of Kubernetes into a pipeline that is compiled for open-source Kubeflow.

TFX's compiler knows none of them. Retries belong to a task of the pipeline itself; everything else to the
platform-specific part, which is a second YAML document with one KubernetesExecutorConfig for each executor:
https://github.com/kubeflow/pipelines/blob/master/kubernetes_platform/proto/kubernetes_executor_config.proto
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from settings.kubernetes import PodConfig

# Key of the platform-specific part, which is the only one of the second document.
_PLATFORMS = "platforms"


def apply(spec: dict[str, Any], pods: Mapping[str, PodConfig]) -> dict[str, Any]:
    """Adds retries to the tasks of a pipeline, and builds its platform-specific part.

    Args:
      spec: a PipelineSpec of schema 2.1; changed in place.
      pods: task -> settings of its pod, for the tasks that run in a container.

    Returns:
      The content of the second YAML document; empty if no setting needs one.
    """
    executors = {}
    for task, pod in pods.items():
        if pod.retries:
            spec["root"]["dag"]["tasks"][task]["retryPolicy"] = {
                "maxRetryCount": pod.retries.count,
                "backoffDuration": f"{pod.retries.wait_seconds}s",
                "backoffFactor": pod.retries.factor,  # Argo takes only integers.
                # Not the longest wait, as the name says: Argo counts it from the start of the first try.
                "backoffMaxDuration": f"{pod.retries.time_for_all(pod.deadline_seconds)}s",
            }
        if config := _executor_config(pod):
            executors[spec["components"][task]["executorLabel"]] = config
    return {_PLATFORMS: {"kubernetes": {"deploymentSpec": {"executors": executors}}}} if executors else {}


def documents(compiled: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the one or two YAML documents of a compiled pipeline."""
    spec = {key: value for key, value in compiled.items() if key != _PLATFORMS}
    return [spec, {_PLATFORMS: compiled[_PLATFORMS]}] if _PLATFORMS in compiled else [spec]


def _executor_config(pod: PodConfig) -> dict[str, Any]:
    """Returns a KubernetesExecutorConfig as a JSON object, without empty fields.

    Names are given twice: Kubeflow before 2.5 reads the plain field, which later versions have replaced.
    """
    config: dict[str, Any] = {
        "pvcMount": [
            {
                "constant": volume.claim,
                "pvcNameParameter": _constant(volume.claim),
                "mountPath": volume.path,
                **({"subPath": volume.sub_path} if volume.sub_path else {}),
            }
            for volume in pod.volumes
        ],
        "secretAsEnv": [
            {
                **_secret(secret.name, optional=secret.optional),
                "keyToEnv": [
                    {"secretKey": key, "envVar": variable} for key, variable in sorted(secret.env.items())
                ],
            }
            for secret in pod.secrets
            if secret.env
        ],
        "secretAsVolume": [
            {**_secret(secret.name, optional=secret.optional), "mountPath": secret.path}
            for secret in pod.secrets
            if secret.path
        ],
        "tolerations": [
            {
                key: value
                for key, value in (
                    ("key", toleration.key),
                    ("operator", toleration.operator),
                    ("value", toleration.value),
                    ("effect", toleration.effect),
                    # A 64-bit integer, which is text in the JSON form of a protocol buffer.
                    ("tolerationSeconds", toleration.seconds and str(toleration.seconds)),
                )
                if value is not None
            }
            for toleration in pod.tolerations
        ],
        "imagePullSecret": [_secret(name) for name in pod.pull_secrets],
    }
    if pod.node_selector:
        config["nodeSelector"] = {"labels": dict(pod.node_selector)}
    if pod.shared_memory:
        config["enabledSharedMemory"] = {"volumeName": "shm", "size": pod.shared_memory}
    if pod.pull_policy:
        config["imagePullPolicy"] = pod.pull_policy
    if pod.deadline_seconds:
        config["activeDeadlineSeconds"] = str(pod.deadline_seconds)
    return {key: value for key, value in config.items() if value}


def _constant(value: str) -> dict[str, Any]:
    return {"runtimeValue": {"constant": value}}


def _secret(name: str, *, optional: bool | None = None) -> dict[str, Any]:
    reference = {"secretName": name, "secretNameParameter": _constant(name)}
    return reference if optional is None else {**reference, "optional": optional}
