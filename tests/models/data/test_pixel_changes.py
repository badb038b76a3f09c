import numpy as np
import pytest
import tensorflow as tf

from models import corruptions
from models.data import augmentation, pixel_changes
from models.data.batches import training_batches, validation_batches
from models.data.images import Images
from settings.training import AugmentationConfig
from tests.models import samples

OFF = AugmentationConfig.none()
STRENGTHS = {
    "brightness": 0.8,
    "contrast": 0.7,
    "saturation": 0.5,
    "blur_fraction": 0.06,
    "noise": 0.1,
    "jpeg": 0.9,
}
ALL = OFF.model_copy(update=STRENGTHS)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Smooth images with some texture, uint8; their sides are not multiples of 16."""
    random = np.random.default_rng(0)
    coarse = tf.image.resize(random.random((8, 6, 7, 3)) * 255, (40, 44), "bicubic")
    return np.clip(coarse + random.normal(0, 4, (8, 40, 44, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def images(pixels) -> np.ndarray:
    return pixels / np.float32(255)


def draws(count):
    return augmentation.first_draws(count, seed=3)[:, 5:]


def adjust(images, *factors):
    return pixel_changes.adjust_color(images, tf.tile([factors], [len(images), 1])).numpy()


def each(images, value):
    return tf.fill([len(images)], value)


@pytest.mark.parametrize(
    ("corruption", "strength", "change"),
    [
        ("darkness", 0.4, lambda images: adjust(images, 0.4, 1.0, 1.0)),
        ("contrast", 0.4, lambda images: adjust(images, 1.0, 0.4, 1.0)),
        ("blur", 0.05, lambda images: pixel_changes.blur(images, each(images, 0.05 * 40)).numpy()),
        ("jpeg", 15, lambda images: pixel_changes.compress(images, each(images, 15.0)).numpy()),
        ("jpeg", 60, lambda images: pixel_changes.compress(images, each(images, 60.0)).numpy()),
    ],
)
def test_changes_equal_those_of_pillow(pixels, images, corruption, strength, change):
    expected = corruptions.corrupt(pixels, corruption, strength) / 255
    inside = np.s_[:, 4:-4, 4:-4] if corruption == "blur" else np.s_[:]  # Pillow repeats the edges
    difference = np.abs(expected - change(images))[inside].mean()
    assert difference < 0.005
    assert difference < np.abs(expected - images)[inside].mean() / 3


def test_saturation_of_zero_is_grey_and_of_more_than_one_is_clipped(images):
    luma = (images @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    np.testing.assert_allclose(adjust(images, 1.0, 1.0, 0.0), luma.repeat(3, -1), atol=1e-6)
    expected = np.clip(luma + 3 * (images - luma), 0, 1)
    np.testing.assert_allclose(adjust(images, 1.0, 1.0, 3.0), expected, atol=1e-5)


def test_strengths_of_zero_change_nothing(images):
    assert pixel_changes.change(images, draws(8), OFF) is images
    np.testing.assert_allclose(adjust(images, 1.0, 1.0, 1.0), images, atol=1e-6)
    np.testing.assert_allclose(pixel_changes.blur(images, each(images, 0.0)), images, atol=1e-6)
    np.testing.assert_array_equal(pixel_changes.add_noise(images, each(images, 0.0), [1, 2]), images)


def test_noise_has_the_deviation_of_each_image_and_no_pattern():
    grey = np.full((3, 64, 64, 3), 0.5, np.float32)
    noise = pixel_changes.add_noise(grey, tf.constant([0.0, 0.03, 0.1]), [1, 2]).numpy() - 0.5
    np.testing.assert_allclose(noise.std((1, 2, 3)), [0, 0.03, 0.1], rtol=0.03)
    np.testing.assert_allclose(noise.mean((1, 2, 3)), 0, atol=0.003)
    assert abs(np.corrcoef(noise[1].ravel(), noise[2].ravel())[0, 1]) < 0.05
    again = pixel_changes.add_noise(grey, tf.constant([0.0, 0.03, 0.1]), [1, 2])
    np.testing.assert_array_equal(noise, again.numpy() - 0.5)


def test_factors_are_spread_over_the_range_of_their_strengths(monkeypatch, images):
    found = []
    monkeypatch.setattr(pixel_changes, "adjust_color", lambda _, factors: found.append(factors.numpy()))
    config = OFF.model_copy(update={name: STRENGTHS[name] for name in ("brightness", "contrast")})
    pixel_changes.change(images[:1].repeat(3000, 0), draws(3000), config)
    np.testing.assert_allclose(found[0].min(0), [0.2, 0.3, 1.0], atol=0.01)
    np.testing.assert_allclose(found[0].max(0), [1.8, 1.7, 1.0], atol=0.01)
    np.testing.assert_allclose(found[0].mean(0), 1, atol=0.05)


@pytest.mark.parametrize("names", [("noise",), ("blur_fraction", "noise", "jpeg")])
def test_a_quarter_of_the_images_get_one_change_each_and_every_change_its_equal_share(monkeypatch, names):
    images = np.random.default_rng(0).random((2000, 16, 16, 3), dtype=np.float32)
    calls = {}
    for function in ("blur", "add_noise", "compress"):

        def record(some, strength, *_, function=function):
            calls[function] = (len(some), strength.numpy().min(), strength.numpy().max())
            return some + 1.0

        monkeypatch.setattr(pixel_changes, function, record)
    config = OFF.model_copy(update={name: STRENGTHS[name] for name in names})
    changed = pixel_changes.change(images, draws(2000), config).numpy() - images
    assert set(np.unique(changed.round(3))) == {0.0, 1.0}
    np.testing.assert_allclose(np.mean(changed.round(3) == 0), 0.75, atol=0.04)
    ranges = {"blur": (0, 0.06 * 16), "add_noise": (0, 0.1), "compress": (10, 100)}
    assert len(calls) == len(names)
    for function, (count, *found) in calls.items():
        assert abs(count / 2000 - 0.25 / len(names)) < 0.03
        np.testing.assert_allclose(found, ranges[function], atol=0.05 * ranges[function][1])


def test_images_are_changed_differently_and_alike_eagerly_and_in_tf_data(images):
    copies, some = tf.constant(images[:1].repeat(8, 0)), draws(8)
    dataset = tf.data.Dataset.from_tensors(copies).map(lambda batch: pixel_changes.change(batch, some, ALL))
    inside = next(iter(dataset)).numpy()
    assert len(np.unique(inside.reshape(8, -1), axis=0)) == 8
    np.testing.assert_allclose(inside, pixel_changes.change(copies, some, ALL), atol=1e-5)
    assert dataset.element_spec.shape == copies.shape
    assert inside.dtype == np.float32
    assert inside.min() >= 0
    assert inside.max() <= 1


def test_sizes_need_not_be_known_and_a_batch_may_have_one_image(images):
    change = tf.function(
        lambda batch, some: pixel_changes.change(batch, some, ALL),
        input_signature=(tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, 5])),
    )
    for count in (1, 8):
        for side in (5, 24):
            some = images[:count, :side, :side]
            changed = change(some, draws(8)[-count:])
            np.testing.assert_allclose(changed, pixel_changes.change(some, draws(8)[-count:], ALL), atol=1e-5)


def test_training_images_are_changed_anew_in_each_epoch_and_validation_images_never():
    split = samples.colored(12, 16)

    def epochs(first):
        batches = training_batches(split, [5, 5, 2], ALL, seed=5, first_epoch=first)
        return [pixels.numpy() for pixels, _ in batches.take(6)]

    whole, resumed = epochs(0), epochs(1)
    for before, after in zip(whole[3:], resumed, strict=False):
        np.testing.assert_array_equal(before, after)
    assert not np.allclose(np.sort(whole[0].ravel()), np.sort(whole[3].ravel()), atol=0.01)
    validation = np.concatenate([pixels for pixels, _ in validation_batches(split, [5, 5, 2]).take(3)])
    np.testing.assert_allclose(validation, split.pixels / 255, atol=1e-6)
    single = Images(split.pixels[:1], split.labels[:1])
    batches = training_batches(single, [1], ALL, seed=5).take(9)
    assert len({pixels.numpy().tobytes() for pixels, _ in batches}) >= 8
