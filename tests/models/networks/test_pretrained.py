"""Both pretrained architectures: weights from a file, the head, features, freezing and unfreezing."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from models.data.images import Images
from models.networks import pretrained as networks
from models.networks import registry
from models.training import frozen_features, precision
from settings.model import EfficientNetV2B0Config, MobileNetV2Config, PretrainedConfig
from settings.training import AugmentationConfig
from tests.models import samples

CLASSES = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """An architecture, a backbone with made-up weights, and the file that holds them."""

    config: PretrainedConfig
    backbone: keras.Model
    # From images in [0, 1] to the backbone's input, as Keras documents it.
    scale: Callable[[np.ndarray], np.ndarray]
    two_layers: tuple[str, str]
    # The last layer with a kernel but one, and the layers with weights from there on, batch norm excepted.
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
    make = {"mobilenetv2": _mobilenetv2, "efficientnetv2b0": _efficientnetv2b0}[request.param]
    return make(request.getfixturevalue(f"{request.param}_weights"))


@pytest.fixture(scope="module")
def pretrained(case: Case) -> keras.Model:
    return case.build()


def test_the_weights_of_the_file_are_loaded_and_get_the_inputs_that_they_were_trained_with(case, pretrained):
    images = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    kernel, bias = pretrained.get_layer("logits").get_weights()
    features = np.mean(case.backbone(case.scale(images), training=False), axis=(1, 2))
    np.testing.assert_allclose(pretrained(images), features @ kernel + bias, atol=1e-5)
    published = case.config.backbone.parameters[case.config.width]
    assert pretrained.count_params() == published + 1280 * CLASSES + CLASSES


def test_keras_own_preprocessing_of_efficientnetv2b0_is_the_same():
    own = keras.applications.EfficientNetV2B0(include_top=False, weights=None, input_shape=(32, 32, 3))
    first = own.layers.index(own.get_layer("stem_conv"))
    preprocess = keras.Model(own.input, own.layers[first - 1].output)
    images = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    ours = registry.efficientnetv2b0.scaling()(images)
    np.testing.assert_allclose(preprocess(255 * images), ours, atol=1e-5)


def test_the_head_may_get_several_layers_normalized_and_those_after_them_are_left_out(case):
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


def test_batch_norm_stays_in_inference_mode_in_training(pretrained):
    batch_norm = next(
        layer
        for layer in pretrained.get_layer(networks.BACKBONE).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    before = batch_norm.moving_mean.numpy()
    pretrained(np.ones((4, 32, 32, 3), "float32"), training=True)
    np.testing.assert_array_equal(batch_norm.moving_mean, before)


def test_the_head_on_features_is_the_network_on_the_images(pretrained):
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
    turned = frozen_features.compute("training", pretrained, mirrored).values[0]
    # One view has the image, the other one its mirror image.
    np.testing.assert_allclose(
        features.values.astype(np.float32).sum(axis=0),
        plain.astype(np.float32) + turned,
        rtol=5e-3,
        atol=5e-3,
    )


def test_freezing_leaves_the_head_and_unfreezing_the_top_without_batch_norm(case, pretrained):
    networks.freeze(pretrained)
    assert [v.path for v in pretrained.trainable_variables] == ["logits/kernel", "logits/bias"]
    first, layers = case.fine_tuned
    networks.unfreeze_from(pretrained, first)
    trainable = {v.path.split("/")[-2] for v in pretrained.trainable_variables}
    assert trainable == {*layers, "logits"}
    networks.freeze(pretrained)
    assert len(pretrained.trainable_variables) == 2


def test_random_weights_are_all_trained_in_one_stage(case):
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


def test_the_settings_know_the_layers(case):
    assert tuple(layer.name for layer in case.backbone.layers[1:]) == case.config.backbone.layers
