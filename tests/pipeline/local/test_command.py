import pytest

from pipeline.local import command
from settings import loading
from settings.base import ConfigError


def test_an_endpoint_on_vertex_is_refused(tmp_path):
    settings = loading.load(overrides=["pusher.target=vertex_endpoint"], values={"root": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"a local run cannot deploy to Vertex, .* pusher\.target=folder"):
        command.check(settings, None, None)


def test_models_may_wait(tmp_path):
    settings = loading.load(overrides=["pusher.promote=manual"], values={"root": str(tmp_path)})
    command.check(settings, None, None)
