import keras
import numpy as np
import pytest

from models import input, mobilenetv2, precision
from pipeline.config import MOBILENETV2_LAYERS, AugmentationConfig, MobileNetV2Config
from tests.models import samples

RANDOM = MobileNetV2Config(alpha=0.35, weights="random")
BACKBONE_PARAMETERS = 410_208  # alpha 0.35, as Keras documents


@pytest.fixture(scope="module")
def pretrained(mobilenetv2_weights):
    config = RANDOM.model_copy(update={"weights": str(mobilenetv2_weights[0])})
    return mobilenetv2.build(config, (32, 32, 3), 4)


def test_the_weights_of_the_file_are_loaded_and_used_with_inputs_from_minus_one_to_one(
    pretrained, mobilenetv2_weights
):
    backbone = mobilenetv2_weights[1]
    images = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    kernel, bias = pretrained.get_layer("logits").get_weights()
    features = np.mean(backbone(2 * images - 1, training=False), axis=(1, 2))
    np.testing.assert_allclose(pretrained(images), features @ kernel + bias, atol=1e-5)
    assert pretrained.count_params() == BACKBONE_PARAMETERS + 1280 * 4 + 4


def test_the_head_may_get_several_layers_normalized_and_those_after_them_are_left_out(mobilenetv2_weights):
    path, backbone = mobilenetv2_weights
    layers = ("block_6_expand_relu", "block_16_project")
    config = RANDOM.model_copy(update={"weights": str(path), "feature_layers": layers})
    model = mobilenetv2.build(config, (32, 32, 3), 4)
    images = samples.colored(20, 32)
    both = keras.Model(backbone.input, [backbone.get_layer(name).output for name in layers])
    expected = [
        np.mean(output, axis=(1, 2)) for output in both(images.pixels / np.float32(127.5) - 1, training=False)
    ]
    features = mobilenetv2.features("training", model, images).values[0].astype(np.float32)
    np.testing.assert_allclose(features, np.concatenate(expected, axis=1), rtol=2e-3, atol=2e-3)
    mobilenetv2.freeze(model)
    head = mobilenetv2.head(model)
    assert [v.path for v in head.trainable_variables] == ["features_bn/beta", "logits/kernel", "logits/bias"]
    assert len(model.trainable_variables) == 3
    head(features, training=True)
    np.testing.assert_allclose(
        model.get_layer("features_bn").moving_mean, 0.1 * features.mean(axis=0), rtol=1e-4, atol=1e-5
    )
    names = [layer.name for layer in model.get_layer(mobilenetv2.BACKBONE).layers]
    assert names[-1] == "block_16_project"
    in_float32 = precision.in_float32(model)
    np.testing.assert_allclose(
        in_float32(images.pixels / np.float32(255)), head(features), rtol=5e-3, atol=5e-3
    )


def test_batch_norm_stays_in_inference_mode_in_training(pretrained):
    batch_norm = pretrained.get_layer(mobilenetv2.BACKBONE).get_layer("bn_Conv1")
    before = batch_norm.moving_mean.numpy()
    pretrained(np.ones((4, 32, 32, 3), "float32"), training=True)
    np.testing.assert_array_equal(batch_norm.moving_mean, before)


def test_the_head_on_features_is_the_network_on_the_images(pretrained):
    images = samples.colored(20, 32)
    features = mobilenetv2.features("training", pretrained, images)
    assert features.values.shape == (1, 20, 1280)
    np.testing.assert_array_equal(features.labels, images.labels)
    head = mobilenetv2.head(pretrained)
    assert head.trainable_variables[0] is pretrained.get_layer("logits").kernel
    logits = head.predict(features.values[0].astype(np.float32), verbose=0)
    np.testing.assert_allclose(
        logits, pretrained.predict(images.pixels / np.float32(255), verbose=0), rtol=2e-3, atol=2e-3
    )


def test_each_view_has_its_own_augmentation(pretrained):
    images = samples.colored(6, 32)
    config = AugmentationConfig(rotation_degrees=0.0, shift_fraction=0.0, flip=True)
    features = mobilenetv2.features("training", pretrained, images, config, seed=3, views=2)
    plain = mobilenetv2.features("training", pretrained, images).values[0]
    mirrored = input.Images(np.ascontiguousarray(images.pixels[:, :, ::-1]), images.labels)
    turned = mobilenetv2.features("training", pretrained, mirrored).values[0]
    # One view has the image, the other one its mirror image.
    np.testing.assert_allclose(
        features.values.astype(np.float32).sum(axis=0),
        plain.astype(np.float32) + turned,
        rtol=5e-3,
        atol=5e-3,
    )


def test_freezing_leaves_the_head_and_unfreezing_the_top_without_batch_norm(pretrained):
    mobilenetv2.freeze(pretrained)
    assert [v.path for v in pretrained.trainable_variables] == ["logits/kernel", "logits/bias"]
    mobilenetv2.unfreeze_from(pretrained, "block_16_project")
    trainable = {v.path.split("/")[-2] for v in pretrained.trainable_variables}
    assert trainable == {"block_16_project", "Conv_1", "logits"}
    mobilenetv2.freeze(pretrained)
    assert len(pretrained.trainable_variables) == 2


def test_the_configuration_knows_its_layers(mobilenetv2_weights):
    assert tuple(layer.name for layer in mobilenetv2_weights[1].layers[1:]) == MOBILENETV2_LAYERS
