"""Tests of both pretrained architectures: loading weights, the head, features, freezing and unfreezing."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from models.data.images import Images
from models.networks import efficientnetv2b0, mobilenetv2, registry
from models.networks import pretrained as networks
from models.training import frozen_features, precision
from settings.model import EfficientNetV2B0Config, MobileNetV2Config, PretrainedConfig
from settings.training import AugmentationConfig
from tests.models import samples

CLASSES = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """An architecture, a file of made-up weights, a backbone with these weights, and expected properties."""

    config: PretrainedConfig
    backbone: keras.Model
    # Scales images in [0, 1] to the backbone's input, as documented by Keras.
    scale: Callable[[np.ndarray], np.ndarray]
    two_layers: tuple[str, str]
    # The last but one layer with a kernel, and all layers with weights from there on except batch norm.
    fine_tuned: tuple[str, set[str]]

    def build(self, **settings: object) -> keras.Model:
        config = self.config.model_copy(update=settings)
        return registry.ARCHITECTURES[config.architecture].build(config, (32, 32, 3), CLASSES)


def _mobilenetv2(weights: tuple[Path, keras.Model]) -> Case:
    path, backbone = weights
    return Case(
        MobileNetV2Config(alpha=0.35, weights=str(path)),
        backbone,
        lambda images: 2 * images - 1,
        ("block_6_expand_relu", "block_16_project"),
        ("block_16_project", {"block_16_project", "Conv_1"}),
    )


def _efficientnetv2b0(weights: tuple[Path, keras.Model]) -> Case:
    path, backbone = weights
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return Case(
        EfficientNetV2B0Config(weights=str(path)),
        backbone,
        lambda images: ((images - mean) / deviation).astype(np.float32),
        ("block3b_add", "block6h_project_conv"),
        ("block6h_project_conv", {"block6h_project_conv", "top_conv"}),
    )


@pytest.fixture(scope="module", params=["mobilenetv2", "efficientnetv2b0"])
def case(request: pytest.FixtureRequest) -> Case:
    create = {"mobilenetv2": _mobilenetv2, "efficientnetv2b0": _efficientnetv2b0}[request.param]
    return create(request.getfixturevalue(f"{request.param}_weights"))


@pytest.fixture(scope="module")
def pretrained(case: Case) -> keras.Model:
    return case.build()


def test_weights_are_loaded_from_the_file_and_inputs_are_scaled_as_the_weights_expect(case, pretrained):
    images = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    kernel, bias = pretrained.get_layer("logits").get_weights()
    features = np.mean(case.backbone(case.scale(images), training=False), axis=(1, 2))
    np.testing.assert_allclose(pretrained(images), features @ kernel + bias, atol=1e-5)
    published = case.config.backbone.parameters[case.config.width]
    assert pretrained.count_params() == published + 1280 * CLASSES + CLASSES


def test_scaling_of_efficientnetv2b0_equals_the_preprocessing_in_keras():
    reference = keras.applications.EfficientNetV2B0(include_top=False, weights=None, input_shape=(32, 32, 3))
    first = reference.layers.index(reference.get_layer("stem_conv"))
    preprocess = keras.Model(reference.input, reference.layers[first - 1].output)
    images = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    scaled = registry.efficientnetv2b0.scaling()(images)
    np.testing.assert_allclose(preprocess(255 * images), scaled, atol=1e-5)


def test_the_head_takes_several_normalized_layers_and_the_backbone_ends_at_the_last_of_them(case):
    model = case.build(feature_layers=case.two_layers)
    images = samples.colored(20, 32)
    both = keras.Model(
        case.backbone.input, [case.backbone.get_layer(name).output for name in case.two_layers]
    )
    expected = [
        np.mean(output, axis=(1, 2))
        for output in both(case.scale(images.pixels / np.float32(255)), training=False)
    ]
    features = frozen_features.compute("training", model, images).values[0].astype(np.float32)
    np.testing.assert_allclose(features, np.concatenate(expected, axis=1), rtol=2e-3, atol=2e-3)
    networks.freeze(model)
    head = networks.head(model)
    assert [v.path for v in head.trainable_variables] == ["features_bn/beta", "logits/kernel", "logits/bias"]
    assert len(model.trainable_variables) == 3
    head(features, training=True)
    np.testing.assert_allclose(
        model.get_layer("features_bn").moving_mean, 0.1 * features.mean(axis=0), rtol=1e-4, atol=1e-5
    )
    names = [layer.name for layer in model.get_layer(networks.BACKBONE).layers]
    assert names[-1] == case.two_layers[-1]
    in_float32 = precision.in_float32(model)
    np.testing.assert_allclose(
        in_float32(images.pixels / np.float32(255)), head(features), rtol=5e-3, atol=5e-3
    )


def test_batch_norm_of_pretrained_weights_stays_in_inference_mode_during_training(pretrained):
    batch_norm = next(
        layer
        for layer in pretrained.get_layer(networks.BACKBONE).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    before = batch_norm.moving_mean.numpy()
    pretrained(np.ones((4, 32, 32, 3), "float32"), training=True)
    np.testing.assert_array_equal(batch_norm.moving_mean, before)


def test_the_head_on_features_computes_the_same_logits_as_the_network_on_images(pretrained):
    images = samples.colored(20, 32)
    features = frozen_features.compute("training", pretrained, images)
    assert features.values.shape == (1, 20, 1280)
    np.testing.assert_array_equal(features.labels, images.labels)
    head = networks.head(pretrained)
    assert head.trainable_variables[0] is pretrained.get_layer("logits").kernel
    logits = head.predict(features.values[0].astype(np.float32), verbose=0)
    np.testing.assert_allclose(
        logits, pretrained.predict(images.pixels / np.float32(255), verbose=0), rtol=2e-3, atol=2e-3
    )


def test_each_view_has_its_own_augmentation(pretrained):
    images = samples.colored(6, 32)
    config = AugmentationConfig(rotation_degrees=0.0, shift_fraction=0.0, flip=True)
    features = frozen_features.compute("training", pretrained, images, config, seed=3, views=2)
    plain = frozen_features.compute("training", pretrained, images).values[0]
    mirrored = Images(np.ascontiguousarray(images.pixels[:, :, ::-1]), images.labels)
    mirrored_features = frozen_features.compute("training", pretrained, mirrored).values[0]
    # Of the two views, one is of the image and the other of its mirror image.
    np.testing.assert_allclose(
        features.values.astype(np.float32).sum(axis=0),
        plain.astype(np.float32) + mirrored_features,
        rtol=5e-3,
        atol=5e-3,
    )


def test_freeze_trains_only_the_head_and_unfreeze_also_the_top_layers_except_batch_norm(case, pretrained):
    networks.freeze(pretrained)
    assert [v.path for v in pretrained.trainable_variables] == ["logits/kernel", "logits/bias"]
    first, layers = case.fine_tuned
    networks.unfreeze_from(pretrained, first)
    trainable = {v.path.split("/")[-2] for v in pretrained.trainable_variables}
    assert trainable == {*layers, "logits"}
    networks.freeze(pretrained)
    assert len(pretrained.trainable_variables) == 2


def test_random_weights_are_trained_in_a_single_stage(case):
    config = case.config.model_copy(update={"weights": "random"})
    stages = registry.ARCHITECTURES[config.architecture].stages(config)
    assert [(stage.name, stage.on_features) for stage in stages] == [("training", False)]
    model = case.build(weights="random")
    stages[0].mark_trainable(model)
    assert len(model.trainable_variables) == len(model.get_layer(networks.BACKBONE).trainable_variables) + 2
    batch_norm = next(
        layer
        for layer in model.get_layer(networks.BACKBONE).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    assert batch_norm.trainable
    assert batch_norm.momentum == 0.9


def test_the_settings_list_the_layers_of_the_backbone(case):
    assert tuple(layer.name for layer in case.backbone.layers[1:]) == case.config.backbone.layers


@pytest.mark.parametrize(
    ("config", "build"),
    [(MobileNetV2Config(), mobilenetv2.backbone), (EfficientNetV2B0Config(), efficientnetv2b0.backbone)],
    ids=["mobilenetv2", "efficientnetv2b0"],
)
def test_the_settings_have_the_numbers_of_values_that_the_layers_compute(config, build):
    side = 224
    sizes = {
        layer.name: math.prod(layer.output.shape[1:]) / side**2
        for layer in build(config, (side, side, 3)).layers[1:]
    }
    for first, values in config.backbone.values.items():
        names = config.backbone.layers[config.backbone.layers.index(first) :]
        assert sum(sizes[name] for name in names) == pytest.approx(values, abs=0.51)
    assert max(sizes.values()) == pytest.approx(config.backbone.widest, abs=0.1)
