import base64
import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.model_report import images
from tests.models import samples


def encode(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def shown(uri):
    """Returns the format and the pixels of the image in a data URI."""
    header, content = uri.split(",")
    assert header.endswith(";base64")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert header.removeprefix("data:image/").removesuffix(";base64") == image.format.lower()
    assert image.mode == "RGB"
    return image.format, np.asarray(image)


def noise(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.fixture
def files(tmp_path):
    """Two files of 600 and 5 records; the image of record i is the bytes "i", its label i % 3.

    Record 3 has an id, record 599 one that is not UTF-8.
    """
    ids = {3: "Bäume/3".encode(), 599: b"\xff9"}
    paths = []
    for name, numbers in (("a.gz", range(600)), ("b.gz", range(600, 605))):
        paths.append(str(tmp_path / name))
        with tf.io.TFRecordWriter(paths[-1], "GZIP") as writer:
            for i in numbers:
                example = samples.example(b"%d" % i, i % 3)
                example.features.feature["id"].bytes_list.value.extend([ids[i]] if i in ids else [])
                writer.write(example.SerializeToString())
    return paths


def test_images_are_read_by_their_position_across_files(files):
    read = images.read(files, [604, 3, 599, 600, 3])
    assert {i: stored.encoded for i, stored in read.items()} == {i: b"%d" % i for i in (3, 599, 600, 604)}
    assert {i: stored.id for i, stored in read.items()} == {3: "Bäume/3", 599: "", 600: "", 604: ""}
    assert images.read(files[::-1], [0, 5]) == {0: (b"600", ""), 5: (b"0", "")}
    assert images.read(files, []) == {}


def test_reading_stops_after_the_last_image(files):
    Path(files[1]).write_bytes(b"not gzip")
    assert images.read(files, [599]) == {599: (b"599", "")}


def test_a_missing_record_is_named(files):
    with pytest.raises(IndexError, match=r"record 605 does not exist, there are fewer in .*a\.gz.*b\.gz"):
        images.read(files, [7, 605, 700])


def test_a_sample_holds_the_first_images_of_each_class(files):
    assert images.sample(files, 4, 2, 1000) == [[b"0", b"3"], [b"1", b"4"], [b"2", b"5"], []]
    assert images.sample(files, 3, 2, 4) == [[b"0", b"3"], [b"1"], [b"2"]]


def test_small_images_keep_their_pixels():
    pixels = noise(32, 48)
    kind, found = shown(images.thumbnail(encode(pixels)))
    assert kind == "PNG"
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(
    ("size", "expected_kind", "expected_size"),
    [
        ((64, 64), "PNG", (64, 64)),
        ((65, 10), "JPEG", (65, 10)),
        ((300, 600), "JPEG", (64, 128)),
        ((2000, 3), "JPEG", (128, 1)),
    ],
)
def test_large_images_shrink_and_keep_their_proportions(size, expected_kind, expected_size):
    kind, found = shown(images.thumbnail(encode(noise(*size))))
    assert (kind, found.shape[:2]) == (expected_kind, expected_size)


def test_transparent_pixels_show_the_background_and_grey_becomes_rgb():
    transparent = np.zeros((8, 8, 4), np.uint8)
    assert np.unique(shown(images.thumbnail(encode(transparent)))[1]).tolist() == [255]
    red = shown(images.thumbnail(encode(transparent), background=(200, 0, 0)))[1]
    np.testing.assert_array_equal(red, np.broadcast_to([200, 0, 0], (8, 8, 3)))
    grey = noise(8, 8, 1)[..., 0]
    expected = np.stack([grey] * 3, axis=-1)
    np.testing.assert_array_equal(shown(images.thumbnail(encode(grey)))[1], expected)
    # Images with 16 bits per pixel are reduced to 8 in the same way as TensorFlow does it for the network.
    deep = grey.astype(np.uint16) * 256 + 7
    np.testing.assert_array_equal(shown(images.thumbnail(encode(deep)))[1], expected)
    np.testing.assert_array_equal(tf.io.decode_image(encode(deep), channels=3), expected)


@pytest.mark.parametrize("encoded", [b"", b"not an image", encode(noise(40, 40))[:700]])
def test_images_that_cannot_be_decoded_raise_an_error(encoded):
    with pytest.raises(OSError):
        images.thumbnail(encoded)


def test_heat_is_laid_over_the_image_in_grey():
    heat = np.zeros((20, 30))
    heat[:10, :15] = 1
    pixels = np.full((20, 30, 3), (200, 0, 0), np.uint8)
    kind, found = shown(images.heat_overlay(pixels, heat))
    assert (kind, found.shape) == ("PNG", (20, 30, 3))
    luminance = round(0.299 * 200)
    np.testing.assert_array_equal(found[10:], luminance)
    np.testing.assert_array_equal(found[:10, 15:], luminance)
    # The hottest colour of "inferno" is a pale yellow, drawn with an opacity of 0.75.
    yellow = np.array([252, 255, 164])
    np.testing.assert_allclose(found[:10, :15], np.broadcast_to(0.75 * yellow + 15, (10, 15, 3)), atol=1)
