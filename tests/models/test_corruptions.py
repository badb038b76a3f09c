import numpy as np
import pytest

from models import corruptions
from models.corruptions import CORRUPTIONS, corrupt


def photos(count=3, height=32, width=32):
    """Draws smooth images of several colours."""
    generator = np.random.default_rng(0)
    down, right = np.mgrid[0:height, 0:width]
    waves = generator.uniform(3, 8, (count, 3, 2))
    angles = waves[..., 0, None, None] * down / height + waves[..., 1, None, None] * right / width
    return np.moveaxis(127.5 + 100 * np.sin(angles), 1, -1).astype(np.uint8)


def grey(value=128, height=40, width=32):
    return np.full((1, height, width, 3), value, np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_seed_corrupts_an_image_in_the_same_way_whatever_is_beside_it(name):
    images = photos()
    strength = CORRUPTIONS[name].strengths[1]
    corrupted = corrupt(images, name, strength, seed=7)
    np.testing.assert_array_equal(corrupt(images[::-1], name, strength, seed=7), corrupted[::-1])
    np.testing.assert_array_equal(corrupt(images[1:2], name, strength, seed=7), corrupted[1:2])
    np.testing.assert_array_equal(images, photos())  # which are left as they were


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(32, 32), (1, 1), (3, 50), (61, 24)])
def test_stronger_corruptions_change_images_of_any_size_more(name, size):
    images = photos(5, *size)
    corrupted = [corrupt(images, name, strength) for strength in CORRUPTIONS[name].strengths]
    assert all(each.shape == images.shape and each.dtype == np.uint8 for each in corrupted)
    if size == (32, 32):
        changes = [np.abs(each.astype(float) - images).mean() for each in corrupted]
        assert 0.1 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("name", ["noise", "shift", "rotation"])
def test_another_seed_corrupts_differently(name):
    images = photos(20)
    strength = CORRUPTIONS[name].strengths[0]
    assert (corrupt(images, name, strength, seed=1) != corrupt(images, name, strength, seed=2)).any()


def test_blur_is_a_gaussian_relative_to_the_shorter_side():
    """The blurred edge between 0 and 255 has the width of the Gaussian: 84.1 % of it one deviation away."""
    edge = np.zeros((1, 320, 640, 3), np.uint8)
    edge[:, :, 320:] = 255
    blurred = corrupt(edge, "blur", 1 / 32)[0, 160, :, 0] / 255
    assert blurred[329:331].mean() == pytest.approx(0.841, abs=0.01)
    assert blurred[309:311].mean() == pytest.approx(0.159, abs=0.01)


def test_noise_has_the_standard_deviation():
    assert corrupt(grey(), "noise", 20).std() == pytest.approx(20, rel=0.03)
    assert corrupt(grey(), "noise", 20).mean() == pytest.approx(128, abs=1)
    assert (corrupt(grey(0), "noise", 20) == 0).mean() == pytest.approx(0.5, abs=0.03)


def test_darkness_and_contrast_scale_the_pixels():
    images = photos(1)
    np.testing.assert_allclose(corrupt(images, "darkness", 0.4), images * 0.4, atol=1)
    mean = (images[0] @ [0.299, 0.587, 0.114]).mean()
    np.testing.assert_allclose(corrupt(images, "contrast", 0.4), mean + 0.4 * (images - mean), atol=1.5)


def test_jpeg_leaves_a_grey_image_as_it_is():
    np.testing.assert_array_equal(corrupt(grey(), "jpeg", 15), grey())


def test_a_shift_is_by_the_fraction_of_the_sides_and_mirrors_at_the_edges():
    down, right = np.mgrid[0:40, 0:20]
    image = np.stack([down, right, 0 * right], axis=-1).astype(np.uint8)
    for seed in range(8):
        shifted = corrupt(image[None], "shift", 0.25, seed)[0].astype(int)
        moved = down[20, 10] - shifted[20, 10, 0], right[20, 10] - shifted[20, 10, 1]
        assert np.hypot(moved[0] / 40, moved[1] / 20) == pytest.approx(0.25, abs=0.03)
        for source, amount, size in ((shifted[:, 10, 0], moved[0], 40), (shifted[20, :, 1], moved[1], 20)):
            expected = np.pad(np.arange(size), size // 2, "symmetric")[size // 2 - amount :][:size]
            np.testing.assert_array_equal(source, expected)


def test_a_rotation_keeps_the_centre_and_mirrors_at_the_edges():
    image = np.zeros((1, 41, 21, 3), np.uint8)
    image[:, :, 10] = 255  # a vertical line
    (turned,) = corrupt(image, "rotation", 45)
    assert turned[20, 10, 0] == 255
    diagonal = [turned[20 - k, 10 + k, 0] for k in range(-6, 7)]
    others = [turned[20 - k, 10 - k, 0] for k in range(-6, 7)]
    assert min(max(diagonal), max(others)) == 255 and sum(map(int, diagonal)) != sum(map(int, others))
    # The colour of the edge goes on beyond it; nothing is filled with black.
    np.testing.assert_array_equal(corrupt(grey(), "rotation", 45), grey())


def test_strengths_are_described():
    assert corruptions.describe("blur", 1 / 32) == "blur of 3.12 % of the shorter side"
    assert corruptions.describe("jpeg", 15) == "JPEG of quality 15"
    assert corruptions.describe("darkness", 0.4) == "brightness x 0.4"
