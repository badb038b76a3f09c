"""Deploys blessed models to an endpoint of Vertex AI, with TFX's Pusher for Google Cloud.

The Pusher registers its copy of the model, which is in the pipeline's root, as a model of Vertex, and deploys
it to the endpoint. Models that were deployed before stay, without traffic, until they are undeployed.
"""

from __future__ import annotations

from typing import Any

from tfx import v1 as tfx

from settings.kubeflow import VertexConfig
from settings.pusher import PusherConfig


def custom_config(pusher: PusherConfig, vertex: VertexConfig, name: str) -> dict[str, Any]:
    """Returns the `custom_config` that TFX's Pusher for Google Cloud requires.

    Args:
      pusher: the settings of the endpoint, and whether a new model gets its traffic.
      vertex: settings of Vertex with a project and a region.
      name: name of the pipeline, for an endpoint that has no other name.

    Returns:
      The keys and values.
    """
    endpoint = pusher.vertex_endpoint
    arguments: dict[str, Any] = {
        "project": vertex.project,
        "endpoint_name": endpoint.name or name,
        "machine_type": endpoint.machine_type,
        "min_replica_count": endpoint.min_replicas,
        "max_replica_count": endpoint.max_replicas,
        # Google's client gives the first model of an endpoint all traffic, whatever is set.
        "traffic_percentage": 100 if pusher.promote == "auto" else 0,
    }
    if vertex.service_account:
        arguments["service_account"] = vertex.service_account
    return {
        tfx.extensions.google_cloud_ai_platform.ENABLE_VERTEX_KEY: True,
        tfx.extensions.google_cloud_ai_platform.VERTEX_REGION_KEY: vertex.region,
        tfx.extensions.google_cloud_ai_platform.VERTEX_CONTAINER_IMAGE_URI_KEY: endpoint.image,
        tfx.extensions.google_cloud_ai_platform.SERVING_ARGS_KEY: arguments,
    }
