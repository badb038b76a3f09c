import dataclasses
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import efficientnet_v2

from models.networks import weights
from settings.backbones import EFFICIENTNETV2B0, MOBILENETV2
from settings.base import ConfigError
from settings.model import EfficientNetV2B0Config, MobileNetV2Config
from tests import web_api

NAME = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{}_{}_no_top.h5"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def downloads(monkeypatch):
    """The URLs of attempted downloads, each of which fails."""
    addresses = []

    def retrieve(url, **_):
        addresses.append(url)
        raise ConnectionError("no network")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    return addresses


def test_random_weights_need_no_file():
    assert weights.locate(MobileNetV2Config(weights="random"), (96, 96)) is None


def test_a_path_must_be_that_of_an_existing_file(tmp_path):
    path = tmp_path / "own.h5"
    with pytest.raises(ConfigError, match=f"weights without top; {path}"):
        weights.find(MobileNetV2Config(weights=str(path)), (96, 96))
    path.touch()
    assert weights.find(MobileNetV2Config(weights=str(path)), (96, 96)) == path


def test_imagenet_prefers_weights_of_the_image_size_over_weights_of_size_224(cache, downloads):
    config = MobileNetV2Config(alpha=0.35)
    of_size_224, of_size_128 = (cache / NAME.format("0.35", size) for size in (224, 128))
    of_size_224.touch()
    assert weights.find(config, (128, 128)) == of_size_224
    of_size_128.touch()
    assert weights.find(config, (128, 128)) == of_size_128
    # There are no published weights for images that are not square, or for this size.
    assert weights.find(config, (128, 96)) == of_size_224
    assert weights.find(config, (100, 100)) == of_size_224
    assert downloads == []


def test_wide_networks_have_weights_of_size_224_only(cache, downloads):
    with pytest.raises(ConfigError):
        weights.find(MobileNetV2Config(alpha=1.4), (96, 96))
    assert [address.rpartition("/")[2] for address in downloads] == [NAME.format("1.4", 224)]


def test_a_failed_download_says_how_to_provide_the_weights(cache, downloads):
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


def test_weights_are_downloaded_to_the_keras_cache(cache, monkeypatch):
    def retrieve(url, fname, path, **_):
        (path / fname).touch()
        return str(path / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    expected = cache / NAME.format("1.4", 224)
    assert weights.find(MobileNetV2Config(alpha=1.4), (224, 224)) == expected
    assert expected.is_file()


def test_a_download_of_another_checksum_is_refused_and_removed(cache, monkeypatch):
    with web_api.serve(lambda _: (200, "other weights")) as server:
        changed = dataclasses.replace(EFFICIENTNETV2B0, weights_address=f"{server.url}/")
        monkeypatch.setattr(EfficientNetV2B0Config, "backbone", changed)
        with pytest.raises(ConfigError, match="the file has another checksum"):
            weights.find(EfficientNetV2B0Config(), (96, 96))
        assert server.received("GET", "/efficientnetv2-b0_notop.h5")
    assert list(cache.iterdir()) == []


def test_known_checksums_are_those_of_keras():
    (hashes,) = EFFICIENTNETV2B0.weights_hashes.values()
    assert hashes == f"md5:{efficientnet_v2.WEIGHTS_HASHES['b0'][1]}"


@pytest.mark.parametrize("alpha", MOBILENETV2.parameters)
def test_parameter_counts_in_the_settings_equal_those_of_keras(alpha):
    network = keras.applications.MobileNetV2((32, 32, 3), alpha=alpha, include_top=False, weights=None)
    assert network.count_params() == MOBILENETV2.parameters[alpha]


@pytest.fixture
def small_weights(tmp_path):
    """A file with as many values as the smallest MobileNetV2 has, in nested groups."""
    path = tmp_path / "own.h5"
    with h5py.File(path, "w") as file:
        file["Conv1/kernel"] = np.zeros(432)
        file["others/more/kernel"] = np.zeros(MOBILENETV2.parameters[0.35] - 432)
    return path


def test_weights_of_a_different_width_are_refused_with_both_counts(small_weights):
    options = {"weights": str(small_weights)}
    assert weights.locate(MobileNetV2Config(alpha=0.35, **options), (96, 96)) == small_weights
    with pytest.raises(
        ConfigError, match=r"MobileNetV2 of width 0.5: expected 706,224 parameters .*, found 410,208"
    ):
        weights.locate(MobileNetV2Config(alpha=0.5, **options), (96, 96))


def test_truncated_weights_are_refused(small_weights):
    small_weights.write_bytes(small_weights.read_bytes()[:500_000])
    with pytest.raises(ConfigError, match=r"own\.h5 \(500,000 bytes\) are truncated"):
        weights.check(small_weights, MobileNetV2Config(alpha=0.35))


def test_importing_the_module_does_not_import_tensorflow():
    code = (
        "import sys, models.networks.weights; "
        "sys.exit(any(module in sys.modules for module in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
