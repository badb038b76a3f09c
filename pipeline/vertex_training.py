"""Trains in a custom job on Vertex, which TFX's extension for Google Cloud creates and waits for.

Every machine of the job runs TFX's executor of the Trainer with the same arguments. Vertex sets TF_CONFIG,
from which `models.training.distribution` derives the role of the machine.
"""

from __future__ import annotations

from typing import Any

from tfx import v1 as tfx
from tfx.extensions.google_cloud_ai_platform.trainer import executor

from settings.kubeflow import KubeflowConfig


def custom_config(config: KubeflowConfig) -> dict[str, Any]:
    """Returns the entries of `custom_config` that TFX's `Trainer` for Google Cloud requires.

    Args:
      config: the settings of Kubeflow; `steps["Trainer"]` has a machine type, and `vertex` has a project and
        a region.

    Returns:
      The keys and values; the custom job has one chief and `workers - 1` other replicas.
    """
    step = config.steps["Trainer"]
    machine: dict[str, Any] = {"machine_type": step.machine_type}
    if step.accelerator:
        machine |= {"accelerator_type": step.accelerator, "accelerator_count": step.accelerator_count}
    # Vertex takes the first pool, of one machine, as the chief; the second pool holds the other workers.
    counts = [1, step.workers - 1] if step.workers > 1 else [1]
    job: dict[str, Any] = {
        "worker_pool_specs": [
            {
                "machine_spec": machine,
                "replica_count": count,
                "container_spec": {"image_uri": step.image or config.image},
            }
            for count in counts
        ]
    }
    optional = {"service_account": config.vertex.service_account, "network": config.vertex.network}
    job |= {name: value for name, value in optional.items() if value}
    arguments: dict[str, Any] = {"project": config.vertex.project, "job_spec": job}
    if config.vertex.encryption_key:
        arguments["encryption_spec"] = {"kms_key_name": config.vertex.encryption_key}
    return {
        tfx.extensions.google_cloud_ai_platform.ENABLE_VERTEX_KEY: True,
        tfx.extensions.google_cloud_ai_platform.VERTEX_REGION_KEY: config.vertex.region,
        executor.TRAINING_ARGS_KEY: arguments,
    }
