import pytest

from settings import loading
from settings.base import ConfigError

ENDPOINT = "pusher.target=vertex_endpoint"
PLACE = "kubeflow.vertex={project: p, region: europe-west4}"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("pusher.target=bucket", "pusher.target: input should be 'folder' or 'vertex_endpoint'"),
        ("pusher.promote=never", "pusher.promote: input should be 'auto' or 'manual'"),
        ("pusher.vertex_endpoint.name='a\"b'", "pusher.vertex_endpoint.name: expected a name without quotes"),
        ("pusher.vertex_endpoint={min_replicas: 3, max_replicas: 2}", "expected 3 (min_replicas) or more"),
        ("pusher.vertex_endpoint.machine_typ=n1", "did you mean machine_type?"),
    ],
)
def test_invalid_settings_are_refused(error_message, override, expected):
    assert expected in error_message(override)


def _check_target(target, *overrides):
    settings = loading.load(overrides=overrides)
    settings.pusher.check_target(target, settings.kubeflow.vertex)


def test_an_endpoint_needs_vertex_its_project_and_its_region():
    _check_target("vertex", ENDPOINT, PLACE)
    for target, expected in (
        ("local", "a local run cannot deploy"),
        ("kfp", "a pipeline on open-source Kubeflow cannot deploy"),
        ("vertex", r"needs kubeflow\.vertex\.project and kubeflow\.vertex\.region when"),
    ):
        with pytest.raises(ConfigError, match=expected):
            _check_target(target, ENDPOINT, *([PLACE] if target != "vertex" else []))
        _check_target(target)
    with pytest.raises(ConfigError, match=r"encrypts neither .* kubeflow\.vertex\.encryption_key"):
        _check_target("vertex", ENDPOINT, PLACE, "kubeflow.vertex.encryption_key=key")


@pytest.mark.parametrize(
    ("overrides", "place", "allowed"),
    [
        ([], "minio://bucket/runs", True),
        (["pusher.promote=manual"], "/kept/serving", True),
        (["pusher.promote=manual"], "runs", True),
        (["pusher.promote=manual"], "minio://bucket/runs", False),
        (["pusher.promote=manual"], "gs://bucket/runs", False),
        (["pusher.promote=manual", ENDPOINT], "gs://bucket/runs", True),
    ],
)
def test_models_wait_only_where_a_server_knows_it(overrides, place, allowed):
    pusher = loading.load(overrides=overrides).pusher
    if allowed:
        pusher.check_promotion(place)
    else:
        with pytest.raises(ConfigError, match=rf"pusher\.promote=manual: models are pushed to {place}, "):
            pusher.check_promotion(place)
