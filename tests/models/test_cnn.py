import numpy as np
import pytest

from models import cnn
from pipeline.config import CnnConfig

SMALL = CnnConfig(filters=(4, 6), convolutions_per_block=2, dense_units=5)


def test_parameters_and_output_are_those_of_the_described_network():
    model = cnn.build(SMALL, (16, 12, 3), 7)
    convolutions = 9 * (3 * 4 + 4 * 4 + 4 * 6 + 6 * 6)
    batch_norms = 4 * (4 + 4 + 6 + 6)
    dense = 6 * 5 + 5 + 5 * 7 + 7
    assert model.count_params() == convolutions + batch_norms + dense
    assert model.output_shape == (None, 7)
    assert [model.get_layer(f"block{i}_pool").output.shape[1:3] for i in (1, 2)] == [(8, 6), (4, 3)]


def test_without_batch_norm_and_dense_layer_convolutions_have_biases():
    config = SMALL.model_copy(update={"batch_normalization": False, "dense_units": 0})
    model = cnn.build(config, (8, 8, 3), 2)
    assert model.count_params() == (9 * 3 + 1) * 4 + (9 * 4 + 1) * 4 + (9 * 4 + 1) * 6 + (9 * 6 + 1) * 6 + 14
    assert "dense" not in {layer.name for layer in model.layers}


def test_layer_names_are_stable():
    first, second = (cnn.build(SMALL, (8, 8, 3), 2) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert {"block1_conv1", "block2_conv2_bn", "dropout", "logits"} <= {layer.name for layer in first.layers}


def test_outputs_are_logits_and_not_probabilities():
    model = cnn.build(SMALL, (8, 8, 3), 3)
    model.get_layer("logits").set_weights([np.zeros((5, 3)), np.array([-2.0, 0.0, 5.0])])
    np.testing.assert_allclose(model(np.ones((1, 8, 8, 3), "float32")), [[-2, 0, 5]])


@pytest.mark.parametrize("side", [8, 9, 15, 33])
def test_three_blocks_work_from_eight_pixels_up(side):
    assert cnn.build(CnnConfig(filters=(2, 2, 2)), (side, side, 3), 2).output_shape == (None, 2)


def test_images_too_small_for_the_blocks_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"15x20 pixels are too small for 4 blocks.*16x16"):
        cnn.build(CnnConfig(filters=(2, 2, 2, 2)), (15, 20, 3), 2)
