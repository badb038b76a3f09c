import numpy as np
import pytest

from models import preview
from models.data.batches import augmented_view
from models.data.images import Images
from tests.models import samples

STRONG = {"rotation_degrees": 10.0, "shift_fraction": 0.1, "brightness": 0.5, "flip": True}


@pytest.fixture
def images():
    return samples.colored(6, 16)


def test_the_images_of_an_epoch_are_those_of_the_training_in_their_order(images):
    settings = samples.small_settings(augmentation=STRONG, trainer={"epochs": 9})
    epochs = preview.augment(images, settings, 4)
    assert len(epochs) == 4
    for number, pixels in enumerate(epochs):
        ((expected, _),) = augmented_view(images, 6, settings.augmentation, settings.seed, number)
        np.testing.assert_array_equal(pixels, expected)
    assert not np.array_equal(epochs[0], epochs[2])


def test_progressive_crops_are_smaller_and_keep_their_order():
    grey = np.full((5, 16, 16, 3), np.arange(5)[:, None, None, None] * 20, np.uint8)
    settings = samples.small_settings(trainer={"epochs": 6, "crop_scales": (0.5, 0.75, 1.0)})
    epochs = preview.augment(Images(grey, np.zeros(5, np.int64)), settings, 4)
    assert [pixels.shape for pixels in epochs] == [(5, side, side, 3) for side in (8, 8, 12, 12)]
    for pixels in epochs:
        np.testing.assert_allclose(pixels[:, 0, 0, 0] * 255, np.arange(5) * 20, atol=1e-3)


def test_there_are_no_more_epochs_than_in_the_training(images):
    assert len(preview.augment(images, samples.small_settings(trainer={"epochs": 2}), 4)) == 2


def test_a_frozen_network_sees_its_views_in_turn(images):
    settings = samples.small_settings(
        augmentation=STRONG,
        model={"architecture": "mobilenetv2", "mobilenetv2": {"feature_views": 2}},
        trainer={"epochs": 9},
    )
    first, second, third, fourth = preview.augment(images, settings, 4)
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(second, fourth)
    assert not np.array_equal(first, second)
