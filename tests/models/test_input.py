import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models import input
from pipeline.config import AugmentationConfig
from tests.models import samples

OFF = AugmentationConfig(rotation_degrees=0.0, shift_fraction=0.0, flip_probability=0.0)


@pytest.fixture(scope="module")
def images():
    """Each image can be told by its first pixel."""
    made = samples.colored(50, 8)
    made.pixels[:, 0, 0, 0] = np.arange(50)
    return made


def epoch(dataset):
    return [tuple(array.numpy() for array in batch) for batch in dataset]


def order(dataset):
    """Which image is where, by the first pixel."""
    return np.concatenate([np.round(pixels[:, 0, 0, 0] * 255) for pixels, _ in epoch(dataset)]).tolist()


def read(raw_examples, transform_output, split="train", **options):
    return input.read(
        [raw_examples.pattern(split)],
        raw_examples.factory,
        raw_examples.schema,
        transform_output,
        **{"cache_mebibytes": 1, **options},
    )


def test_read_decodes_every_example_once_and_exactly(raw_examples, transform_output):
    expected = samples.colored(72, samples.SIDE, seed=72)
    found = read(raw_examples, transform_output)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.shape == (samples.SIDE, samples.SIDE, 3)


def test_read_with_a_limit_takes_a_random_part_without_repeats(raw_examples, transform_output):
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


def test_an_empty_split_is_a_clear_error(raw_examples, transform_output, tmp_path):
    tf.io.TFRecordWriter(str(tmp_path / "empty.gz"), tf.io.TFRecordOptions("GZIP")).close()
    with pytest.raises(ValueError, match=r"no examples in .*empty\.gz"):
        input.read(
            [str(tmp_path / "empty.gz")],
            raw_examples.factory,
            raw_examples.schema,
            transform_output,
            cache_mebibytes=1,
        )


def test_images_are_decoded_once_whatever_the_epochs_and_batch_sizes(images):
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
    collected = input.collect(source, 50, 1)
    for batch_size in (7, 16):
        batches = input.training_batches(collected, batch_size, OFF, seed=0)
        for _ in range(3):
            epoch(batches)
    assert sum(decoded) == 50


@pytest.mark.parametrize(("cache_mebibytes", "in_file"), [(0, True), (1, False)])
def test_more_than_the_cache_goes_to_a_file_that_leaves_nothing_behind(
    images, cache_mebibytes, in_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = tf.data.Dataset.from_tensor_slices((images.pixels, images.labels)).batch(16)
    collected = input.collect(source, 50, cache_mebibytes)
    assert isinstance(collected.pixels, np.memmap) == in_file
    assert list(Path(tmp_path).iterdir()) == []
    np.testing.assert_array_equal(collected.pixels, images.pixels)
    assert sorted(order(input.training_batches(collected, 16, OFF, 0))) == list(range(50))


@pytest.mark.parametrize(("count", "message"), [(49, "found more"), (51, "expected 51 images, found 50")])
def test_a_wrong_count_is_an_error_and_never_a_black_image(images, count, message):
    source = tf.data.Dataset.from_tensor_slices((images.pixels, images.labels)).batch(16)
    with pytest.raises(ValueError, match=message):
        input.collect(source, count, 1)


def test_each_epoch_has_every_image_once_in_a_new_order_the_same_for_a_seed(images):
    first, second = input.training_batches(images, 16, OFF, 3), input.training_batches(images, 16, OFF, 3)
    epochs = [order(first) for _ in range(3)]
    assert epochs == [order(second) for _ in range(3)]
    assert all(sorted(one) == list(range(50)) for one in epochs)
    assert len({tuple(one) for one in [*epochs, range(50)]}) == 4
    assert order(input.training_batches(images, 16, OFF, 4)) != epochs[0]


def test_batches_are_scaled_typed_and_labelled(images):
    batches = epoch(input.training_batches(images, 16, OFF, 0))
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    for pixels, labels in batches:
        assert (pixels.dtype, labels.dtype) == (np.float32, np.int64)
        index = np.round(pixels[:, 0, 0, 0] * 255).astype(int)
        np.testing.assert_allclose(pixels, images.pixels[index] / 255.0, atol=1e-7)
        np.testing.assert_array_equal(labels, images.labels[index])


def test_validation_batches_are_the_images_as_they_are(images):
    batches = epoch(input.validation_batches(images, 20))
    np.testing.assert_allclose(np.concatenate([b[0] for b in batches]), images.pixels / 255.0, atol=1e-7)
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), images.labels)


def test_augmentation_is_another_in_every_epoch_and_the_same_for_a_seed():
    one = input.Images(samples.colored(1, 8).pixels, np.zeros(1, np.int64))
    config = AugmentationConfig(rotation_degrees=30.0, shift_fraction=0.2, flip_probability=0.5)
    runs = []
    for _ in range(2):
        batches = input.training_batches(one, 1, config, seed=5)
        runs.append([epoch(batches)[0][0] for _ in range(3)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0][0], runs[0][1])
    assert not np.allclose(runs[0][1], runs[0][2])
