import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models.data import images as split_images
from models.data.batches import augmented_view, observed, training_batches, validation_batches
from models.data.crops import Crops
from models.data.images import Features, Images
from models.training import distribution
from settings.training import AugmentationConfig
from tests.models import samples

OFF = AugmentationConfig(rotation_degrees=0.0, shift_fraction=0.0, flip=False)


@pytest.fixture(scope="module")
def images():
    """Images whose first pixel is their index."""
    numbered = samples.colored(50, 8)
    numbered.pixels[:, 0, 0, 0] = np.arange(50)
    return numbered


def sizes(count, batch_size):
    return distribution.share([count], batch_size, 0)


def epochs(dataset, count, steps):
    """Returns the first epochs of a dataset, each as a list of batches of arrays."""
    batches = [tuple(array.numpy() for array in batch) for batch in dataset.take(count * steps)]
    return [batches[start : start + steps] for start in range(0, len(batches), steps)]


def order(batches):
    """Returns the indices of the images in their order, read from their first pixels."""
    return np.concatenate([np.round(pixels[:, 0, 0, 0] * 255) for pixels, _ in batches]).tolist()


def read(raw_examples, transform_output, split="train", **options):
    return split_images.read(
        [raw_examples.pattern(split)],
        raw_examples.factory,
        raw_examples.schema,
        transform_output,
        **{"cache_mebibytes": 1, **options},
    )


def test_read_decodes_every_example_exactly_once(raw_examples, transform_output):
    expected = samples.colored(72, samples.SIDE, seed=72)
    found = read(raw_examples, transform_output)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.shape == (samples.SIDE, samples.SIDE, 3)


def test_read_with_a_limit_chooses_random_images_without_repetition(raw_examples, transform_output):
    pixels, labels = _arrays(read(raw_examples, transform_output))
    all_images = {p.tobytes(): label for p, label in zip(pixels, labels, strict=True)}
    parts = [_arrays(read(raw_examples, transform_output, limit=20, seed=seed)) for seed in (0, 0, 1)]
    for pixels, labels in parts:
        assert len({p.tobytes() for p in pixels}) == 20
        assert [all_images[p.tobytes()] for p in pixels] == labels.tolist()
    np.testing.assert_array_equal(parts[0][0], parts[1][0])
    assert not np.array_equal(parts[0][0], parts[2][0])
    assert len(read(raw_examples, transform_output, limit=1000)) == 72


def _arrays(images):
    return images.pixels, images.labels


@pytest.mark.parametrize(
    ("size", "count"),
    [((32, 32), 256), ((91, 90), 256), ((224, 224), 41), ((1200, 1600), 1), ((9000, 9000), 1)],
)
def test_fewer_large_images_are_processed_at_a_time(size, count):
    assert split_images.at_a_time(size, 256) == count


def test_an_empty_split_is_an_error(raw_examples, transform_output, tmp_path):
    tf.io.TFRecordWriter(str(tmp_path / "empty.gz"), tf.io.TFRecordOptions("GZIP")).close()
    with pytest.raises(ValueError, match=r"no examples in .*empty\.gz"):
        split_images.read(
            [str(tmp_path / "empty.gz")],
            raw_examples.factory,
            raw_examples.schema,
            transform_output,
            cache_mebibytes=1,
        )


def test_images_are_decoded_once_for_all_epochs_and_batch_sizes(images):
    decoded = []

    def decode(pixels, labels):
        decoded.append(len(labels))
        return pixels, labels

    source = tf.data.Dataset.from_tensor_slices((images.pixels, images.labels)).batch(16)
    source = source.map(
        lambda *batch: tf.ensure_shape(
            tf.py_function(decode, batch, (tf.uint8, tf.int64))[0], [None, 8, 8, 3]
        )
    )
    source = tf.data.Dataset.zip((source, tf.data.Dataset.from_tensor_slices(images.labels).batch(16)))
    collected = split_images.collect(source, 50, 1)
    for batch_size in (7, 16):
        batches = training_batches(collected, sizes(50, batch_size), OFF, seed=0)
        epochs(batches, 3, len(sizes(50, batch_size)))
    assert sum(decoded) == 50


@pytest.mark.parametrize(("cache_mebibytes", "in_file"), [(0, True), (1, False)])
def test_images_larger_than_the_cache_go_to_a_file_without_a_name(
    images, cache_mebibytes, in_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = tf.data.Dataset.from_tensor_slices((images.pixels, images.labels)).batch(16)
    collected = split_images.collect(source, 50, cache_mebibytes)
    assert isinstance(collected.pixels, np.memmap) == in_file
    assert list(Path(tmp_path).iterdir()) == []
    np.testing.assert_array_equal(collected.pixels, images.pixels)
    (epoch,) = epochs(training_batches(collected, [50], OFF, 0), 1, 1)
    assert sorted(order(epoch)) == list(range(50))


def test_a_full_disk_is_an_error_and_not_a_crash(images, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = tf.data.Dataset.from_tensor_slices((images.pixels, images.labels)).batch(16)
    expected = rf"no room for .* MB of decoded images in {tmp_path}, where .* MB are free .* TMPDIR"
    with pytest.raises(split_images.NoRoomError, match=expected):
        split_images.collect(source, 2**62 // images.pixels[0].size, 0)


@pytest.mark.parametrize(("count", "message"), [(49, "found more"), (51, "expected 51 images, found 50")])
def test_a_wrong_count_is_an_error(images, count, message):
    source = tf.data.Dataset.from_tensor_slices((images.pixels, images.labels)).batch(16)
    with pytest.raises(ValueError, match=message):
        split_images.collect(source, count, 1)


def test_each_epoch_has_every_image_once_in_an_order_that_depends_on_epoch_and_seed(images):
    def orders(seed, **options):
        dataset = training_batches(images, sizes(50, 16), OFF, seed, **options)
        return [order(epoch) for epoch in epochs(dataset, 3, 4)]

    first = orders(3)
    assert first == orders(3)
    assert all(sorted(one) == list(range(50)) for one in first)
    assert len({tuple(one) for one in [*first, range(50)]}) == 4
    assert orders(4)[0] != first[0]
    assert orders(3, first_epoch=1)[:2] == first[1:]


def test_crops_grow_over_the_epochs_and_continue_when_a_training_resumes(images):
    growing = Crops((0.5, 0.75, 1.0), epochs=6)
    cropped = list(training_batches(images, sizes(50, 25), OFF, 0, 0, growing).take(12))
    assert [pixels.shape[1:3] for pixels, _ in cropped] == [(4, 4)] * 4 + [(6, 6)] * 4 + [(8, 8)] * 4
    plain = training_batches(images, sizes(50, 25), OFF, 0)
    for (pixels, labels), (full, full_labels) in zip(cropped, plain, strict=False):
        np.testing.assert_array_equal(labels, full_labels)
        windows = np.lib.stride_tricks.sliding_window_view(full, pixels.shape[1:3], axis=(1, 2))
        differences = np.abs(np.moveaxis(windows, 3, -1) - pixels.numpy()[:, None, None]).max(axis=(3, 4, 5))
        assert (differences.min(axis=(1, 2)) < 1e-6).all()
    resumed = training_batches(images, sizes(50, 25), OFF, 0, 3, growing)
    for (pixels, labels), (resumed_pixels, resumed_labels) in zip(cropped[6:], resumed, strict=False):
        np.testing.assert_array_equal(labels, resumed_labels)
        np.testing.assert_array_equal(pixels, resumed_pixels)


def test_batches_have_scaled_images_with_their_labels(images):
    (batches,) = epochs(training_batches(images, sizes(50, 16), OFF, 0), 1, 4)
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    for pixels, labels in batches:
        assert (pixels.dtype, labels.dtype) == (np.float32, np.int64)
        index = np.round(pixels[:, 0, 0, 0] * 255).astype(int)
        np.testing.assert_allclose(pixels, images.pixels[index] / 255.0, atol=1e-7)
        np.testing.assert_array_equal(labels, images.labels[index])


def test_validation_batches_repeat_the_unchanged_images_in_order(images):
    for batches in epochs(validation_batches(images, sizes(50, 20)), 2, 3):
        np.testing.assert_allclose(np.concatenate([b[0] for b in batches]), images.pixels / 255.0, atol=1e-7)
        np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), images.labels)


def test_each_epoch_takes_the_next_view_of_features():
    count, views = 10, 3
    values = np.arange(views * count, dtype=np.float16).reshape(views, count, 1)
    features = Features(values, np.arange(count))
    training_epochs = epochs(training_batches(features, [6, 4], OFF, seed=1), 4, 2)
    for number, batches in enumerate(training_epochs):
        for found, labels in batches:
            np.testing.assert_array_equal(found[:, 0], number % views * count + labels)
        assert sorted(np.concatenate([labels for _, labels in batches])) == list(range(count))
    (batches,) = epochs(validation_batches(features, [6, 4]), 1, 2)
    np.testing.assert_array_equal(np.concatenate([found for found, _ in batches]), values[0])


def test_consecutive_views_mirror_the_two_halves_of_the_images(images):
    config = AugmentationConfig(rotation_degrees=0.0, shift_fraction=0.0, flip=True)
    views = [
        np.concatenate([pixels for pixels, _ in augmented_view(images, 16, config, 3, number)])
        for number in range(2)
    ]
    scaled = images.pixels / 255.0
    unchanged = np.all(np.isclose(views[0], scaled, atol=1e-6), axis=(1, 2, 3))
    assert 10 < unchanged.sum() < 40
    for view, not_mirrored in ((views[0], unchanged), (views[1], ~unchanged)):
        expected = np.where(not_mirrored[:, None, None, None], scaled, scaled[:, :, ::-1])
        np.testing.assert_allclose(view, expected, atol=1e-6)


def test_observed_calls_its_function_when_a_batch_is_fetched(images):
    calls = []
    batches = iter(observed(validation_batches(images, [25, 25]), lambda: calls.append(1)))
    assert not calls
    for expected in (1, 2, 3):
        next(batches)
        assert len(calls) == expected


def test_the_checksum_depends_on_pixels_labels_and_order(images):
    pixels, labels = images.pixels.copy(), images.labels.copy()
    pixels[0, 0, 0, 0] += 1
    labels[0] += 1
    different = [
        images,
        Images(pixels, images.labels),
        Images(images.pixels, labels),
        Images(images.pixels[::-1], images.labels[::-1]),
    ]
    assert len({one.checksum() for one in different}) == 4
    assert Images(images.pixels.copy(), images.labels.copy()).checksum() == images.checksum()


def test_augmentation_differs_between_epochs_and_is_reproducible():
    single = Images(samples.colored(1, 8).pixels, np.zeros(1, np.int64))
    config = AugmentationConfig(rotation_degrees=30.0, shift_fraction=0.2, flip=True)
    runs = []
    for _ in range(2):
        batches = training_batches(single, [1], config, seed=5)
        runs.append([epoch[0][0] for epoch in epochs(batches, 3, 1)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0][0], runs[0][1])
    assert not np.allclose(runs[0][1], runs[0][2])
