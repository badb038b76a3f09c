import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

from models.networks import weights
from settings.backbones import MOBILENETV2
from settings.base import ConfigError
from settings.model import MobileNetV2Config

NAME = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{}_{}_no_top.h5"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def downloads(monkeypatch):
    """What would be downloaded; every download fails."""
    addresses = []

    def retrieve(url, **_):
        addresses.append(url)
        raise ConnectionError("no network")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    return addresses


def test_random_needs_no_file():
    assert weights.locate(MobileNetV2Config(weights="random"), (96, 96)) is None


def test_a_path_is_that_file_or_a_clear_error(tmp_path):
    path = tmp_path / "own.h5"
    with pytest.raises(ConfigError, match=f"weights without top; {path}"):
        weights.find(MobileNetV2Config(weights=str(path)), (96, 96))
    path.touch()
    assert weights.find(MobileNetV2Config(weights=str(path)), (96, 96)) == path


def test_imagenet_prefers_the_file_of_the_size_over_that_of_224(cache, downloads):
    config = MobileNetV2Config(alpha=0.35)
    general, fitting = (cache / NAME.format("0.35", size) for size in (224, 128))
    general.touch()
    assert weights.find(config, (128, 128)) == general
    fitting.touch()
    assert weights.find(config, (128, 128)) == fitting
    # Not square, and no size that there are weights for.
    assert weights.find(config, (128, 96)) == general
    assert weights.find(config, (100, 100)) == general
    assert downloads == []


def test_wide_networks_have_weights_of_224_only(cache, downloads):
    with pytest.raises(ConfigError):
        weights.find(MobileNetV2Config(alpha=1.4), (96, 96))
    assert [address.rpartition("/")[2] for address in downloads] == [NAME.format("1.4", 224)]


def test_without_file_and_network_the_error_says_what_can_be_done(cache, downloads):
    with pytest.raises(ConfigError) as error:
        weights.find(MobileNetV2Config(alpha=1.0), (96, 96))
    name = NAME.format("1.0", 96)
    assert downloads == [f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{name}"]
    for part in (
        str(cache / name),
        "--set model.mobilenetv2.weights=PATH",
        "--set model.mobilenetv2.weights=random",
    ):
        assert part in str(error.value)


def test_a_download_goes_to_the_cache_of_keras(cache, monkeypatch):
    def retrieve(url, fname, path, **_):
        (path / fname).touch()
        return str(path / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    expected = cache / NAME.format("1.4", 224)
    assert weights.find(MobileNetV2Config(alpha=1.4), (224, 224)) == expected
    assert expected.is_file()


@pytest.mark.parametrize("alpha", MOBILENETV2.parameters)
def test_weights_are_as_many_as_those_of_keras(alpha):
    network = keras.applications.MobileNetV2((32, 32, 3), alpha=alpha, include_top=False, weights=None)
    assert network.count_params() == MOBILENETV2.parameters[alpha]


@pytest.fixture
def small_weights(tmp_path):
    """A file with as many numbers as the smallest MobileNetV2, in layers below each other."""
    path = tmp_path / "own.h5"
    with h5py.File(path, "w") as file:
        file["Conv1/kernel"] = np.zeros(432)
        file["others/more/kernel"] = np.zeros(MOBILENETV2.parameters[0.35] - 432)
    return path


def test_weights_of_another_width_are_refused_with_both_counts(small_weights):
    own = {"weights": str(small_weights)}
    assert weights.locate(MobileNetV2Config(alpha=0.35, **own), (96, 96)) == small_weights
    with pytest.raises(
        ConfigError, match=r"MobileNetV2 of width 0.5: expected 706,224 parameters .*, found 410,208"
    ):
        weights.locate(MobileNetV2Config(alpha=0.5, **own), (96, 96))


def test_truncated_weights_are_refused(small_weights):
    small_weights.write_bytes(small_weights.read_bytes()[:500_000])
    with pytest.raises(ConfigError, match=r"own\.h5 \(500,000 bytes\) are truncated"):
        weights.check(small_weights, MobileNetV2Config(alpha=0.35))


def test_importing_it_does_not_import_tensorflow():
    code = (
        "import sys, models.networks.weights; "
        "sys.exit(any(module in sys.modules for module in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
