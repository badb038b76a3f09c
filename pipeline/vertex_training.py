"""Training on several machines of Vertex: a custom job, which TFX's own extension creates and waits for.

Every machine runs TFX's executor of the Trainer, with the same arguments, and Vertex tells it by TF_CONFIG
which one it is; the rest is up to `models.distribution`.
"""

from __future__ import annotations

from typing import Any

from tfx import v1 as tfx
from tfx.extensions.google_cloud_ai_platform.trainer import executor

from settings.kubeflow import KubeflowConfig


def custom_config(config: KubeflowConfig) -> dict[str, Any]:
    """Returns what TFX's `Trainer` of Google Cloud wants in its `custom_config`.

    Args:
      config: its `steps` have a Trainer with a machine type, and `vertex` project and region.
    """
    step = config.steps["Trainer"]
    machine: dict[str, Any] = {"machine_type": step.machine_type}
    if step.accelerator:
        machine |= {"accelerator_type": step.accelerator, "accelerator_count": step.accelerator_count}
    # The first pool is the chief's, and has one machine; the second one has the others.
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
