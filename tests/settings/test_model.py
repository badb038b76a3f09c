import contextlib

import pytest

from settings import loading
from settings.base import ConfigError
from settings.model import ModelConfig


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.cnn.filters=64", "model.cnn.filters: expected a list, such as [32, 64, 128, 256]; found 64"),
        (
            "model.mobilenetv2.fine_tune_from=block_13_expnd",
            "fine_tune_from: block_13_expnd is not a layer of MobileNetV2; similar ones are block_13_expand",
        ),
        (
            "model.mobilenetv2.feature_layers=[out_relu, top]",
            "feature_layers: top is not a layer of MobileNetV2; similar ones are out_relu",
        ),
        (
            "model.mobilenetv2={feature_layers: [block_12_add, block_6_pad], fine_tune_from: Conv_1}",
            "fine_tune_from=Conv_1 comes after block_12_add, the last of feature_layers",
        ),
        ("model.cnn.depth=2", "model.cnn.depth: unknown key. Allowed: whitening, filters"),
        (
            "model.architecture=vit",
            "model.architecture: expected one of cnn, mobilenetv2, efficientnetv2b0; found 'vit'",
        ),
    ],
)
def test_invalid_settings_are_refused(error_message, override, expected):
    assert expected in error_message(override)


def test_mirrored_filters_are_refused_with_an_odd_number_of_filters():
    with pytest.raises(
        ConfigError, match=r"mirrored_filters needs an even number of filters in each block, found \[8, 9\]"
    ):
        loading.load(overrides=["model.cnn.mirrored_filters=true", "model.cnn.filters=[8,9]"])


def test_the_first_fine_tuned_layer_is_checked_only_with_fine_tuning():
    layers = "model.mobilenetv2.feature_layers=[block_12_add]"
    assert loading.load(overrides=[layers, "model.mobilenetv2.fine_tune_epochs=0"])
    with pytest.raises(ConfigError, match="comes after block_12_add"):
        loading.load(overrides=[layers, "model.mobilenetv2.fine_tune_epochs=1"])


@pytest.mark.parametrize(
    ("values", "size", "message"),
    [
        ({"model.architecture": "mobilenetv2"}, (32, 40), None),
        ({"model.architecture": "mobilenetv2"}, (40, 31), r"at least 32x32 pixels, found 31x40.*image_size"),
        ({"model.architecture": "mobilenetv2"}, (31, 40), r"at least 32x32 pixels, found 40x31.*image_size"),
        ({"model.cnn.filters": (2, 2, 2)}, (9, 20), None),
        ({"model.cnn.filters": (2, 2, 2)}, (8, 20), r"20x8 pixels are too small for 3 blocks.*9x9"),
        ({"model.cnn.filters": (2, 2, 2), "model.cnn.whitening": False}, (8, 20), None),
        (
            {"model.cnn.filters": (2, 2, 2, 2), "model.cnn.whitening": False},
            (15, 20),
            r"20x15 pixels are too small for 4 blocks.*16x16",
        ),
        ({"model.cnn.filters": (2, 2), "trainer.crop_scales": (0.5, 1.0)}, (10, 10), None),
        (
            {"model.cnn.filters": (2, 2), "trainer.crop_scales": (0.5, 1.0)},
            (12, 8),
            r"crop_scales: scale 0\.5 crops images of 8 pixels to 4, .*least 5",
        ),
    ],
)
def test_too_small_images_are_refused_with_the_actual_and_the_required_size(values, size, message):
    settings = loading.load([], [], values)
    with pytest.raises(ConfigError, match=message) if message else contextlib.nullcontext():
        settings.model.network.check_image_size(size, settings.trainer.crop_scales)


def test_each_architecture_has_a_section_of_its_name_and_a_preset():
    architectures = ModelConfig.architectures()
    assert list(architectures) == ["cnn", "mobilenetv2", "efficientnetv2b0"]
    for name, section in architectures.items():
        assert section.architecture == name
        assert loading.load([loading.PRESETS / section.preset]).model.architecture == name
