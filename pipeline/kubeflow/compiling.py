"""Compiles the pipeline for Vertex and for open-source Kubeflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from datasets import directory
from pipeline import pipeline
from pipeline.kubeflow import kubernetes, local_copies, runtime_parameters, step_facts
from settings.base import ConfigError
from settings.kubeflow import BackEnd, StepConfig
from settings.kubernetes import PodConfig
from settings.pipeline import PipelineConfig

_ENTRYPOINT = ("python", "-m", "pipeline.kubeflow.container_entrypoint")


def compile_pipeline(
    config: PipelineConfig, name: str, dataset: directory.Dataset, data_digest: str, target: BackEnd
) -> dict[str, Any]:
    """Compiles the pipeline, without writing files and without a network.

    Args:
      config: the whole configuration; `kubeflow.image` is set.
      name: name of the pipeline and of the served model.
      dataset: a copy of the dataset directory on this machine, for its classes and its image size.
      data_digest: digest of the dataset directory, which the copy that a run reads must have, too.
      target: `vertex`, or `kfp` for open-source Kubeflow.

    Returns:
      A PipelineJob of schema 2.0 for Vertex, or a PipelineSpec of schema 2.1 for Kubeflow, as a JSON object.
      The latter also has the key `platforms` if the steps need anything of Kubernetes; see `serialize`.
    """
    # The report of a run lists the settings. A path of this machine would only tell who compiled.
    config = config.model_copy(update={"data": config.kubeflow.data_uri})
    graph = pipeline.create_pipeline(config, name, dataset, data_digest, target)
    entry_point = (*_ENTRYPOINT, local_copies.FLAG) if config.uses_local_copies(target) else _ENTRYPOINT
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image=config.kubeflow.image,
            default_commands=entry_point,
            use_pipeline_spec_2_1=target == "kfp",
        )
    )
    job = runner.run(graph, write_out=False)
    spec = job["pipelineSpec"]
    for step, container in _containers(spec).items():
        if step in pipeline.ENTRY_MODULES:
            container.setdefault("env", []).extend(step_facts.variables(pipeline.ENTRY_MODULES[step]))
        if step == "Trainer" and config.kubeflow.trains_in_custom_job:
            continue  # The container only waits for the custom job, whose machines get the step's resources.
        _apply(config.kubeflow.steps.get(step, StepConfig()), container)
    compiled = job
    if target == "kfp":
        platform = kubernetes.apply(spec, _pods(config, list(_containers(spec))))
        compiled = spec | {"defaultPipelineRoot": graph.pipeline_info.pipeline_root} | platform
    properties = {component.id: component.exec_properties for component in graph.components}
    searched = config.searched() if config.has_tuner else {}
    defaults = {
        "data_uri": properties["Dataset"]["artifact_uri"],
        "data_digest": data_digest,
        # The Tuner chooses what it searches, whatever a run sets.
        **{
            name: value
            for name, value in config.trainer.model_dump().items()
            if f"trainer.{name}" not in searched
        },
    }
    if config.pusher.target == "folder" and not config.kubeflow.serving:
        # Otherwise, a run with another root still pushes to the same place.
        destination = json.loads(properties["Pusher"]["push_destination"])
        defaults["serving_uri"] = destination["filesystem"]["base_directory"]
    runtime_parameters.declare(compiled, target, defaults)
    return compiled


def serialize(compiled: Mapping[str, Any], target: BackEnd) -> str:
    """Returns a compiled pipeline as text: JSON for Vertex, YAML for Kubeflow.

    What Kubernetes provides is a second YAML document.
    """
    if target == "vertex":
        return json.dumps(compiled, indent=2, sort_keys=True) + "\n"
    return yaml.safe_dump_all(kubernetes.documents(compiled), sort_keys=True)


def _containers(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the containers of a PipelineSpec, by step."""
    executors = spec["deploymentSpec"]["executors"]
    labelled = {name: executors[c["executorLabel"]] for name, c in spec["components"].items()}
    return {name: executor["container"] for name, executor in labelled.items() if "container" in executor}


def _pods(config: PipelineConfig, steps: Sequence[str]) -> dict[str, PodConfig]:
    """Returns the settings of each step's pod, with the credentials of the store for the Pusher."""
    pods = {step: config.kubeflow.kfp.pod(step) for step in steps}
    secret = config.kubeflow.kfp.store.secret_of(config.kubeflow.serving or config.root)
    if secret:
        pods["Pusher"] = pods["Pusher"].merged_with(PodConfig(secrets=(secret,)))
        try:
            pods["Pusher"].check_conflicts()
        except ValueError as error:
            raise ConfigError(
                f"kubeflow.kfp.secrets: {error}. The Pusher gets the secret {secret.name} for the store; "
                "kubeflow.kfp.store names another one"
            ) from None
    return pods


def _apply(step: StepConfig, container: dict[str, Any]) -> None:
    """Sets the image and the resources of a container.

    TFX's own method for this, `with_platform_config`, has no effect on ExampleGens.
    """
    if step.image:
        container["image"] = step.image
    resources = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec()
    if step.cpu:
        resources.cpu_limit = step.cpu
    if step.memory_gb:
        resources.memory_limit = step.memory_gb
    if step.accelerator:
        resources.accelerator.type = step.accelerator
        resources.accelerator.count = step.accelerator_count
    if resources.ByteSize():
        container["resources"] = json_format.MessageToDict(resources)
