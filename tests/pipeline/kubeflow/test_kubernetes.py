from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow import compiling, kubernetes
from settings import loading

EVERYTHING = """
kubeflow.kfp.volumes=[{claim: data, path: /data, sub_path: images}]
kubeflow.kfp.secrets=[{name: login, env: {user: U, password: P}}, {name: ca, path: /ca, optional: true}]
kubeflow.kfp.node_selector={pool: cpu}
kubeflow.kfp.pull_secrets=[registry]
kubeflow.kfp.pull_policy=Always
kubeflow.kfp.deadline_seconds=3600
kubeflow.kfp.shared_memory=2Gi
kubeflow.kfp.tolerations=[{key: gpu, operator: Exists, effect: NoExecute, seconds: 60}]
kubeflow.kfp.retries={count: 1}
""".strip().splitlines()


def _compile(*overrides):
    """Returns the tasks of a pipeline of Trainer and Pusher, and the Kubernetes settings of its executors."""
    settings = loading.load(overrides=overrides).kubeflow.kfp
    steps = ("Trainer", "Pusher")
    spec = {
        "root": {"dag": {"tasks": {step: {} for step in steps}}},
        "components": {step: {"executorLabel": f"{step}_executor"} for step in steps},
    }
    platform = kubernetes.apply(spec, {step: settings.pod(step) for step in steps})
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platform else {}
    return spec["root"]["dag"]["tasks"], executors


def test_without_settings_there_is_no_second_document():
    tasks, executors = _compile()
    assert tasks == {"Trainer": {}, "Pusher": {}}
    assert executors == {}


def test_every_setting_is_compiled():
    tasks, executors = _compile(*EVERYTHING)
    name = {"secretName": "login", "secretNameParameter": {"runtimeValue": {"constant": "login"}}}
    assert executors["Trainer_executor"] == executors["Pusher_executor"]
    assert executors["Trainer_executor"] == {
        "pvcMount": [
            {
                "constant": "data",
                "pvcNameParameter": {"runtimeValue": {"constant": "data"}},
                "mountPath": "/data",
                "subPath": "images",
            }
        ],
        "secretAsEnv": [
            {
                **name,
                "optional": False,
                "keyToEnv": [
                    {"secretKey": "password", "envVar": "P"},
                    {"secretKey": "user", "envVar": "U"},
                ],
            }
        ],
        "secretAsVolume": [
            {
                "secretName": "ca",
                "secretNameParameter": {"runtimeValue": {"constant": "ca"}},
                "optional": True,
                "mountPath": "/ca",
            }
        ],
        "nodeSelector": {"labels": {"pool": "cpu"}},
        "imagePullSecret": [
            {"secretName": "registry", "secretNameParameter": {"runtimeValue": {"constant": "registry"}}}
        ],
        "imagePullPolicy": "Always",
        "activeDeadlineSeconds": "3600",
        "enabledSharedMemory": {"volumeName": "shm", "size": "2Gi"},
        "tolerations": [
            {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": "60"}
        ],
    }
    retries = {
        "maxRetryCount": 1,
        "backoffDuration": "60s",
        "backoffFactor": 2,
        # Argo counts it from the start of the first try: two tries of an hour with their starts, and a wait.
        "backoffMaxDuration": f"{2 * (3600 + 3600) + 60}s",
    }
    assert tasks["Trainer"] == {"retryPolicy": retries}


def test_settings_of_one_step_add_to_those_of_all_steps():
    tasks, executors = _compile(
        "kubeflow.kfp.volumes=[{claim: data, path: /data}]",
        "kubeflow.kfp.node_selector={zone: a}",
        "kubeflow.kfp.pull_policy=Always",
        "kubeflow.kfp.steps.Trainer={volumes: [{claim: scratch, path: /scratch}], "
        "node_selector: {pool: gpu}, pull_policy: Never, retries: {count: 3}}",
    )
    trainer, pusher = executors["Trainer_executor"], executors["Pusher_executor"]
    assert [volume["mountPath"] for volume in trainer["pvcMount"]] == ["/data", "/scratch"]
    assert [volume["mountPath"] for volume in pusher["pvcMount"]] == ["/data"]
    assert trainer["nodeSelector"]["labels"] == {"zone": "a", "pool": "gpu"}
    assert (trainer["imagePullPolicy"], pusher["imagePullPolicy"]) == ("Never", "Always")
    assert (tasks["Trainer"]["retryPolicy"]["maxRetryCount"], tasks["Pusher"]) == (3, {})


def _executor_config():
    """Returns an empty KubernetesExecutorConfig, as the package kfp-kubernetes publishes it."""
    try:
        from kfp.kubernetes import kubernetes_executor_config_pb2 as published  # noqa: PLC0415

        return published.KubernetesExecutorConfig()
    except ImportError:
        # On Python 3.10, the protobuf that TFX 1.16 needs is older than the package allows. The descriptor of
        # the package's version 2.17 is beside this file.
        file = descriptor_pb2.FileDescriptorProto()
        text = Path(__file__).with_name("kubernetes_executor_config.json").read_text(encoding="utf-8")
        json_format.Parse(text, file)
        pool = descriptor_pool.Default()
        pool.AddSerializedFile(file.SerializeToString())
        descriptor = pool.FindMessageTypeByName("kfp_kubernetes.KubernetesExecutorConfig")
        return message_factory.MessageFactory(pool).GetPrototype(descriptor)()


def test_the_settings_are_fields_of_the_published_messages():
    tasks, executors = _compile(*EVERYTHING)
    parsed = json_format.ParseDict(executors["Trainer_executor"], _executor_config())
    assert json_format.MessageToDict(parsed) == executors["Trainer_executor"]
    with pytest.raises(json_format.ParseError, match="no field named"):
        json_format.ParseDict({"pvcMounts": []}, _executor_config())
    policy = json_format.ParseDict(
        tasks["Trainer"]["retryPolicy"], pipeline_spec_pb2.PipelineTaskSpec.RetryPolicy()
    )
    assert (policy.max_retry_count, policy.backoff_factor) == (1, 2)


def test_the_second_document_is_a_document_of_its_own():
    spec = {"schemaVersion": "2.1.0"}
    platform = {"platforms": {"kubernetes": {}}}
    text = compiling.serialize({**spec, **platform}, "kfp")
    assert list(yaml.safe_load_all(text)) == [spec, platform]
    assert list(yaml.safe_load_all(compiling.serialize(spec, "kfp"))) == [spec]
