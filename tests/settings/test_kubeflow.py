import json

import pytest

from settings import loading
from settings.base import ConfigError


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("kubeflow.steps.Trainr.cpu=2", "kubeflow.steps: there is no step Trainr; expected some of Import"),
        ("kubeflow.steps.Baseline.cpu=2", "there is no step Baseline"),
        ("kubeflow.steps.Trainer.cpus=2", "kubeflow.steps.Trainer.cpus: unknown key; did you mean cpu?"),
        ("kubeflow.steps.Trainer.memory_gb=0", "kubeflow.steps.Trainer.memory_gb: input should be greater"),
        ("kubeflow.steps.Trainer.workers=2", "workers need a machine_type, such as n1-standard-8"),
        ("kubeflow.steps.Trainer={machine_type: n1, cpu: 2}", "leave out cpu and memory_gb"),
        ("kubeflow.steps.Tuner={machine_type: n1, workers: 2}", "and workers, not Tuner"),
        ("kubeflow.steps.Trainer.accelerator_count=2", "accelerator_count needs an accelerator"),
        ("kubeflow.vertex.regoin=r", "kubeflow.vertex.regoin: unknown key; did you mean region?"),
        ("kubeflow.vertex.labels={team: 1}", "kubeflow.vertex.labels.team: input should be a valid string"),
        ("kubeflow.kfp=5", "kubeflow.kfp: is a section, not a value; set kubeflow.kfp.volumes"),
        ("kubeflow.cache=1", "kubeflow.cache: input should be a valid boolean"),
    ],
)
def test_invalid_settings_are_refused(error_message, override, expected):
    assert expected in error_message(override)


def test_machines_of_the_trainer_are_refused_on_targets_that_cannot_provide_them():
    kubeflow = loading.load(
        overrides=["kubeflow.steps.Trainer={machine_type: n1-standard-8, workers: 4}"]
    ).kubeflow
    with pytest.raises(ConfigError, match="workers 4, but a local run trains in one process"):
        kubeflow.check_custom_job("local")
    with pytest.raises(ConfigError, match="workers 4, but open-source Kubeflow Pipelines trains in one"):
        kubeflow.check_custom_job("kfp")
    with pytest.raises(ConfigError, match=r"needs kubeflow\.vertex\.project and kubeflow"):
        kubeflow.check_custom_job("vertex")
    # The error message advises these overrides.
    without_machines = [
        "kubeflow.steps.Trainer={machine_type: n1-standard-8, workers: 4}",
        "kubeflow.steps.Trainer.machine_type=null",
        "kubeflow.steps.Trainer.workers=1",
    ]
    for target in ("local", "kfp", "vertex"):
        loading.load(overrides=without_machines).kubeflow.check_custom_job(target)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("kubeflow.kfp.volumes=[{claim: data, pth: /data}]", "did you mean path?"),
        ("kubeflow.kfp.volumes=[{claim: Data, path: /data}]", "kubeflow.kfp.volumes.claim: expected a name"),
        ("kubeflow.kfp.volumes=[{claim: a.b, path: /data}]", "expected a name of at most 63 lower-case"),
        ("kubeflow.kfp.volumes=[{claim: data, path: data}]", "such as `/data`; found 'data'"),
        ("kubeflow.kfp.volumes=[{claim: data, path: /}]", "kubeflow.kfp.volumes.path: expected an absolute"),
        ("kubeflow.kfp.volumes=[{claim: data, path: /a/../b}]", "kubeflow.kfp.volumes.path: expected an abs"),
        ("kubeflow.kfp.volumes=[{claim: data, path: /minio/x}]", "expected a path outside of /minio, where"),
        ("kubeflow.kfp.volumes=[{claim: data, path: /d, sub_path: ../y}]", "a path within the volume"),
        ("kubeflow.kfp.volumes=[{claim: a, path: /d}, {claim: b, path: /d/}]", "found /d twice: mounted at"),
        ("kubeflow.kfp={shared_memory: 1Gi, volumes: [{claim: a, path: /dev/shm}]}", "found /dev/shm twice"),
        ("kubeflow.kfp={volumes: [{claim: a, path: /d}], secrets: [{name: a, path: /s}]}", "found a twice"),
        (
            "kubeflow.kfp={volumes: [{claim: a, path: /d}], "
            "steps: {Trainer: {volumes: [{claim: b, path: /d}]}}}",
            "found /d twice: mounted at one path; change one of them. These are the settings of all steps "
            "with those of Trainer",
        ),
        (
            "kubeflow.kfp.secrets=[{name: a, env: {x: TOKEN}}, {name: b, env: {y: TOKEN}}]",
            "found TOKEN twice: the same environment variable",
        ),
        ("kubeflow.kfp.secrets=[{name: a.b, path: /s}]", "the secret a.b has a path, which needs a name"),
        ("kubeflow.kfp.node_selector={bad key!: a}", "a key such as `pool` or `example.com/pool`, found the"),
        ("kubeflow.kfp.node_selector={pool: a b}", "found 'a b'"),
        ("kubeflow.kfp.secrets=[{name: s}]", "the secret s needs env, such as {key: VARIABLE}, or a path"),
        ("kubeflow.kfp.secrets=[{name: s, env: {key: 1VARIABLE}}]", "kubeflow.kfp.secrets.env"),
        ("kubeflow.kfp.tolerations=[{operator: Equal}]", "without a key needs the operator Exists"),
        (
            "kubeflow.kfp.tolerations=[{key: a, operator: Exists, value: b}]",
            "with the operator Exists takes no",
        ),
        ("kubeflow.kfp.tolerations=[{key: a, seconds: 4}]", "seconds of a toleration need the effect"),
        ("kubeflow.kfp.steps.Trainr={}", "there is no step Trainr"),
        ("kubeflow.kfp.shared_memory=much", "kubeflow.kfp.shared_memory: expected a quantity of Kubernetes,"),
        ("kubeflow.kfp.retries={count: 2, factor: 1.5}", "kubeflow.kfp.retries.factor: input should be a v"),
        # The waits are 60 and 120 seconds.
        (
            "kubeflow.kfp.retries={count: 2, within_seconds: 179}",
            "more than the 179 seconds within which",
        ),
        ("kubeflow.kfp.retries={count: 99}", "lower count, wait_seconds or factor, or raise within_seconds"),
        ("kubeflow.kfp.retries={count: 0}", "kubeflow.kfp.retries.count: input should be greater"),
        ("kubeflow.kfp.store.endpoint=minio:9000", "an address such as `http://seaweedfs.kubeflow:9000`"),
    ],
)
def test_invalid_settings_of_kubernetes_are_refused(error_message, override, expected):
    assert expected in error_message(override)


def test_by_default_there_is_time_for_all_tries():
    def time_for_all(**values):
        pod = loading.load(overrides=[f"kubeflow.kfp.steps.Trainer={json.dumps(values)}"]).kubeflow.kfp
        trainer = pod.pod("Trainer")
        return trainer.retries.time_for_all(trainer.deadline_seconds)

    # Three tries of two hours, an hour for the start of each, and waits of 60 and 120 seconds.
    assert time_for_all(retries={"count": 2}, deadline_seconds=7200) == 3 * (7200 + 3600) + 60 + 120
    assert time_for_all(retries={"count": 2}) == 10 * 365 * 24 * 3600
    assert time_for_all(retries={"count": 2, "within_seconds": 180}, deadline_seconds=7200) == 180


@pytest.mark.parametrize(
    ("uri", "secret", "expected"),
    [
        ("minio://b/s", None, "mlpipeline-minio-artifact"),
        ("s3://b/s", None, None),  # the keys of the installation's store are not sent to Amazon
        ("s3://b/s", "mine", "mine"),
        ("gs://b/s", "mine", None),
    ],
)
def test_only_the_installation_s_own_store_gets_its_secret(uri, secret, expected):
    store = loading.load(values={"kubeflow.kfp.store.secret": secret}).kubeflow.kfp.store
    found = store.secret_of(uri)
    assert (found and found.name) == expected


@pytest.mark.parametrize(
    ("setting", "step"),
    [("kubeflow.kfp.checkpoints=/kept/folder", "Trainer"), ("kubeflow.serving=/kept/folder", "Pusher")],
)
def test_folders_that_steps_write_have_to_lie_on_their_volumes(setting, step):
    def check(*overrides):
        loading.load(overrides=[setting, *overrides]).kubeflow.check_folders("kfp")

    check("kubeflow.kfp.volumes=[{claim: c, path: /kept}]")
    check(f"kubeflow.kfp.steps.{step}={{volumes: [{{claim: c, path: /kept}}]}}")
    for overrides in (
        (),
        ("kubeflow.kfp.volumes=[{claim: c, path: /kept/fol}]",),
        ("kubeflow.kfp.steps.Tuner={volumes: [{claim: c, path: /kept}]}",),
    ):
        with pytest.raises(ConfigError, match=f"expected a folder on one of the {step}'s volumes"):
            check(*overrides)


def test_models_are_pushed_to_places_that_the_back_end_can_write():
    for place, targets in (
        ("gs://b/s", ("kfp", "vertex")),
        ("minio://b/s", ("kfp",)),
        ("s3://b/s", ("kfp",)),
    ):
        kubeflow = loading.load(overrides=[f"kubeflow.serving={place}"]).kubeflow
        for target in targets:
            kubeflow.check_folders(target)
        if "vertex" not in targets:
            with pytest.raises(ConfigError, match=f"expected gs://BUCKET/..., found {place}"):
                kubeflow.check_folders("vertex")
