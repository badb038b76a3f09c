import math

import numpy as np
import pytest
import tensorflow as tf

from models.data import augmentation
from settings.training import AugmentationConfig

OFF = AugmentationConfig(rotation_degrees=0.0, shift_fraction=0.0, flip=False)
ALL = AugmentationConfig(rotation_degrees=20.0, shift_fraction=0.2, cutout_fraction=0.3, flip=True)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((5, 8, 8, 3), dtype=np.float32)


def warp(images, angle=0.0, shift=(0.0, 0.0), mirrored=False, **crop):
    count = len(images)
    return augmentation.warp(
        tf.constant(images),
        tf.fill([count], angle),
        tf.tile([shift], [count, 1]),
        tf.fill([count], mirrored),
        **{name: tf.constant(value) for name, value in crop.items()},
    ).numpy()


def augment(images, draws, config, crop_scale=None):
    """Augments images, of which every other one is mirrored if `config` mirrors any."""
    mirrored = np.arange(len(images)) % 2 == (1 if config.flip else 2)
    return augmentation.augment(
        tf.convert_to_tensor(images), tf.constant(mirrored), draws, config, crop_scale
    )


def some_draws(count):
    return augmentation.first_draws(count, seed=3)


def test_without_changes_the_warp_is_the_identity(images):
    np.testing.assert_array_equal(warp(images), images)


def test_mirroring_equals_that_of_numpy(images):
    np.testing.assert_allclose(warp(images, mirrored=True), images[:, :, ::-1], atol=1e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_by_quarter_turns_equals_that_of_numpy(images, quarters):
    expected = np.rot90(images, quarters, axes=(1, 2))
    np.testing.assert_allclose(warp(images, angle=quarters * math.pi / 2), expected, atol=1e-5)


def rotate_with_numpy(images, angle):
    """Interpolates each pixel from the four pixels around its source."""
    height, width = images.shape[1:3]
    center = np.array([(height - 1) / 2, (width - 1) / 2])
    padded = np.pad(images, ((0, 0), (height, height), (width, width), (0, 0)), "symmetric")
    rotated = np.empty_like(images)
    for row, column in np.ndindex(height, width):
        down, right = (row, column) - center
        y = center[0] + math.sin(angle) * right + math.cos(angle) * down
        x = center[1] + math.cos(angle) * right - math.sin(angle) * down
        top, left = math.floor(y), math.floor(x)
        rotated[:, row, column] = sum(
            (1 - abs(y - i)) * (1 - abs(x - j)) * padded[:, height + i, width + j]
            for i in (top, top + 1)
            for j in (left, left + 1)
        )
    return rotated


@pytest.mark.parametrize("degrees", [5, -15, 20, 100])
def test_rotation_equals_a_bilinear_one_with_numpy_both_eagerly_and_in_tf_data(images, degrees):
    angle = math.radians(degrees)
    for each in (images, images[:, :, :5]):
        expected = rotate_with_numpy(each, angle)
        assert np.abs(expected - each).max() > 0.1
        np.testing.assert_allclose(warp(each, angle=angle), expected, atol=1e-5)
        count = len(each)
        dataset = tf.data.Dataset.from_tensors(each).map(
            lambda batch, n=count: augmentation.warp(
                batch, tf.fill([n], angle), tf.zeros([n, 2]), tf.fill([n], False)
            )
        )
        np.testing.assert_allclose(next(iter(dataset)), expected, atol=1e-5)


@pytest.mark.parametrize(("down", "right"), [(2, 0), (0, -3), (-1, 2)])
def test_shift_by_whole_pixels_reflects_the_edge(images, down, right):
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), "symmetric")
    expected = padded[:, 4 - down : 12 - down, 4 - right : 12 - right]
    np.testing.assert_allclose(warp(images, shift=(down / 8, right / 8)), expected, atol=1e-6)


def test_mirroring_precedes_rotation_and_rotation_precedes_shift(images):
    rotated = np.rot90(images[:, :, ::-1], 1, axes=(1, 2))
    expected = np.concatenate([rotated[:, :1], rotated[:, :-1]], axis=1)
    warped = warp(images, angle=math.pi / 2, shift=(1 / 8, 0.0), mirrored=True)
    np.testing.assert_allclose(warped, expected, atol=1e-5)


def test_a_crop_is_a_part_of_the_warped_image(images):
    change = {"angle": 0.3, "shift": (1 / 8, -2 / 8), "mirrored": True}
    corners = np.array([(0, 0), (3, 5), (1, 2), (3, 0), (0, 4)], np.float32)
    cropped = warp(images, **change, corner=corners, crop_size=[5, 3])
    assert cropped.shape == (5, 5, 3, 3)
    for found, whole, corner in zip(cropped, warp(images, **change), corners.astype(int), strict=True):
        expected = whole[corner[0] : corner[0] + 5, corner[1] : corner[1] + 3]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_crops_have_the_right_size_and_are_spread_evenly_both_eagerly_and_in_tf_data(images):
    indices = np.arange(96, dtype=np.float32).reshape(1, 8, 12, 1).repeat(2000, axis=0)
    cropped = augment(indices, some_draws(2000), OFF, crop_scale=0.75).numpy()
    assert cropped.shape == (2000, 6, 9, 1)
    from_corner = indices[:, :6, :9] - indices[:, :1, :1]
    np.testing.assert_array_equal(cropped - cropped[:, :1, :1], from_corner)
    rows, columns = np.divmod(cropped[:, 0, 0, 0].astype(int), 12)
    counts = np.zeros((3, 4))
    np.add.at(counts, (rows, columns), 1)
    np.testing.assert_allclose(counts / 2000, 1 / 12, atol=0.03)
    draws = some_draws(5)
    np.testing.assert_array_equal(augment(images, draws, OFF, crop_scale=1.0), images)
    dataset = tf.data.Dataset.from_tensors(images).map(
        lambda batch: augment(batch, draws, ALL, tf.constant(0.62))
    )
    inside = next(iter(dataset))
    assert inside.shape == (5, 5, 5, 3)
    np.testing.assert_allclose(inside, augment(images, draws, ALL, 0.62), atol=1e-6)


@pytest.mark.parametrize("crop_scale", [None, 0.75])
def test_the_visible_part_moves_down_and_to_the_right_with_the_draws(crop_scale):
    image = np.arange(32 * 32, dtype=np.float32).reshape(1, 32, 32, 1)
    config = OFF.model_copy(update={"shift_fraction": 0.125})
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4), (0, 0)), "symmetric")
    side = 32 if crop_scale is None else 24
    for draws in np.random.default_rng(0).random((20, 5)):
        down, right = np.floor((40 - side + 1) * draws[:2]).astype(int)
        expected = [
            padded[:, down + i : down + i + side, right + j : right + j + side]
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if 0 <= down + i <= 40 - side and 0 <= right + j <= 40 - side
        ]
        found = augment(image, tf.constant(draws[None], tf.float32), config, crop_scale).numpy()
        assert any(np.array_equal(found, each) for each in expected), draws


def cut_out_with_numpy(images, center, fraction):
    covered = images.copy()
    height, width = np.round(np.array(images.shape[1:3]) * fraction).astype(int)
    for image, (down, right) in zip(
        covered, center * images.shape[1:3] - (height / 2, width / 2), strict=True
    ):
        top, left = round(down), round(right)
        image[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = 0.5
    return covered


@pytest.mark.parametrize("fraction", [0.25, 0.3, 0.9])
@pytest.mark.parametrize("width", [20, 33])
def test_cutout_equals_one_with_numpy_both_eagerly_and_in_tf_data(fraction, width):
    random = np.random.default_rng(0)
    images = random.random((300, 20, width, 3), dtype=np.float32)
    center = random.random((300, 2), dtype=np.float32)
    expected = cut_out_with_numpy(images, center, fraction)
    assert not np.array_equal(expected, images)
    np.testing.assert_array_equal(augmentation.cut_out(images, center, fraction), expected)
    dataset = tf.data.Dataset.from_tensors((images, center)).map(
        lambda *batch: augmentation.cut_out(*batch, fraction)
    )
    np.testing.assert_array_equal(next(iter(dataset)), expected)
    assert dataset.element_spec.shape == images.shape


def test_cutout_is_the_last_change_and_uses_the_fourth_and_fifth_draw(images):
    draws = some_draws(5)
    without = augment(images, draws, ALL.model_copy(update={"cutout_fraction": 0.0}), 0.62).numpy()
    expected = cut_out_with_numpy(without, draws[:, 3:5].numpy(), 0.3)
    np.testing.assert_array_equal(augment(images, draws, ALL, 0.62), expected)
    alone = augment(images, draws, OFF.model_copy(update={"cutout_fraction": 0.3})).numpy()
    np.testing.assert_array_equal(alone, cut_out_with_numpy(images, draws[:, 3:5].numpy(), 0.3))


def test_images_need_not_be_square(images):
    wide = images[:, :4]
    np.testing.assert_allclose(warp(wide, angle=math.pi), wide[:, ::-1, ::-1], atol=1e-5)
    expected = np.pad(wide, ((0, 0), (0, 0), (2, 0), (0, 0)), "symmetric")[:, :, :8]
    np.testing.assert_allclose(warp(wide, shift=(0.0, 2 / 8)), expected, atol=1e-6)


def test_strengths_of_zero_change_nothing(images):
    np.testing.assert_array_equal(augment(images, some_draws(5), OFF), images)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (OFF.model_copy(update={"rotation_degrees": 180.0}), {"angle": (-math.pi, math.pi)}),
        (OFF.model_copy(update={"shift_fraction": 0.25}), {"down": (-2, 2), "right": (-2, 2)}),
    ],
)
def test_changes_stay_within_their_strengths_and_reach_them(monkeypatch, images, config, changes):
    found = {}

    def record(_, angle, shift, *__):
        found.update(angle=angle.numpy(), down=shift.numpy()[:, 0] * 8, right=shift.numpy()[:, 1] * 8)

    monkeypatch.setattr(augmentation, "warp", record)
    augment(images[:1].repeat(5000, axis=0), some_draws(5000), config)
    for name, values in found.items():
        least, most = changes.get(name, (0, 0))
        assert (values.min(), values.max()) == (pytest.approx(least, abs=0.01), pytest.approx(most, abs=0.01))


def test_draws_are_spread_evenly_over_the_images_of_an_epoch_and_the_epochs_of_an_image():
    first = augmentation.first_draws(4000, 7)
    epochs = np.stack([augmentation.epoch_draws(first, tf.constant(e, tf.int64)) for e in range(12)])
    assert epochs.min() >= 0
    assert epochs.max() < 1
    for draws in epochs:
        np.testing.assert_allclose(np.histogram(draws, 10, (0, 1))[0] / draws.size, 0.1, atol=0.01)
    angles = np.sort(epochs[..., 2], axis=0)
    gaps = np.diff(np.concatenate([angles, angles[:1] + 1]), axis=0)
    assert gaps.max() < 0.15  # independent draws: 0.26 on average
    for position, smallest in ((epochs[..., :2], 0.24), (epochs[..., 3:5], 0.15)):
        difference = position[:, None] - position
        distances = np.linalg.norm(difference - np.round(difference), axis=-1)[np.triu_indices(12, 1)]
        assert distances.min() > smallest  # independent draws: 0.06 on average
    np.testing.assert_array_equal(first, augmentation.first_draws(4000, 7))
    assert not np.allclose(first, augmentation.first_draws(4000, 8))


def test_the_halves_of_a_split_are_mirrored_in_turn():
    half = augmentation.random_half(5000, 7)
    first, second, third = (augmentation.is_mirrored(half, tf.constant(e, tf.int64), ALL) for e in range(3))
    assert abs(np.mean(first) - 0.5) < 0.03
    np.testing.assert_array_equal(second, ~first.numpy())
    np.testing.assert_array_equal(third, first)
    assert abs(np.mean(half == augmentation.random_half(5000, 8)) - 0.5) < 0.03
    assert not np.any(augmentation.is_mirrored(half, tf.constant(1, tf.int64), OFF))


def test_images_that_are_not_rotated_keep_their_pixel_values(images):
    config = AugmentationConfig(rotation_degrees=0.0, shift_fraction=0.3, flip=True)
    augmented = augment(images, some_draws(5), config).numpy()
    for before, after in zip(images, augmented, strict=True):
        original = {tuple(pixel) for pixel in before.reshape(-1, 3).round(5).tolist()}
        assert {tuple(pixel) for pixel in after.reshape(-1, 3).round(5).tolist()} <= original
    assert not np.array_equal(augmented, images)


def test_every_image_of_a_batch_is_changed_differently(images):
    copies = tf.constant(np.repeat(images[:1], 4, axis=0))
    augmented = augment(copies, some_draws(4), ALL).numpy()
    assert len(np.unique(augmented.reshape(4, -1), axis=0)) == 4


def test_eager_and_tf_data_agree_and_keep_shape_dtype_and_range(images):
    draws = some_draws(5)
    dataset = tf.data.Dataset.from_tensors(images).map(lambda batch: augment(batch, draws, ALL))
    inside = next(iter(dataset))
    np.testing.assert_allclose(inside, augment(images, draws, ALL), atol=1e-6)
    assert dataset.element_spec.shape == images.shape
    assert inside.dtype == tf.float32
    assert inside.numpy().min() >= 0
    assert inside.numpy().max() <= 1
