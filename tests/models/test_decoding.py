"""Decoding with TensorFlow against Pillow, and against `datasets.decoding`."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

import datasets.decoding
from models import decoding, image_files, preprocessing
from tests.datasets import image_files as files

BACKGROUND = (10, 200, 90)
# TensorFlow's and Pillow's decoders of JPEG round in different places. Flat areas differ by less.
JPEG_TOLERANCE, JPEG_MEAN_TOLERANCE = 14, 2.5
GAMMA = (b"gAMA", struct.pack(">I", 45455))  # a chunk without effect


def integers(shape, depth=8, seed=0):
    return np.random.default_rng(seed).integers(0, 2**depth, shape)


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def _decode_any_size(image_bytes):
    return decoding.map_decoded(image_bytes, tf.io.serialize_tensor, tf.TensorSpec([], tf.string), BACKGROUND)


def decode(*encoded):
    """Decodes images with TensorFlow in one batch."""
    return [tf.io.parse_tensor(image, tf.uint8).numpy() for image in _decode_any_size(tf.constant(encoded))]


def with_pillow(encoded):
    return np.asarray(datasets.decoding.decode(encoded, BACKGROUND))


def smooth(width=45, height=35):
    """A colourful image without fine detail, which JPEG stores with a small error."""
    return Image.fromarray(integers((5, 7, 3)).astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )


def jpeg(image=None, **options):
    return files.encode(image or smooth(), "JPEG", quality=95, **options)


def assert_close(found, expected):
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= JPEG_TOLERANCE
    assert difference.mean() <= JPEG_MEAN_TOLERANCE


def palette(depth):
    return (b"PLTE", integers(3 * 2**depth, seed=1).astype(np.uint8).tobytes())


def pngs():
    """PNG files of every type of pixels, number of bits, and kind of transparency."""
    kinds = [
        (0, 1, (1, 2, 4, 8, 16)),
        (2, 3, (8, 16)),
        (3, 1, (1, 2, 4, 8)),
        (4, 2, (8, 16)),
        (6, 4, (8, 16)),
    ]
    for color_type, channels, depths in kinds:
        for depth in depths:
            pixels = integers((7, 9, channels), depth)
            chunks = (palette(depth),) if color_type == 3 else ()
            name = f"type {color_type}, {depth} bits"
            yield pytest.param(files.png(pixels, color_type, depth, chunks), id=name)
            yield pytest.param(files.png(pixels, color_type, depth, (GAMMA, *chunks)), id=f"{name}, gamma")
            if color_type == 3:
                alpha = integers(max(2**depth - 1, 1), seed=2).astype(np.uint8).tobytes()
            elif color_type in (0, 2):
                # The colour of the first pixel.
                alpha = b"".join(struct.pack(">H", value) for value in pixels[0, 0])
            else:
                continue
            encoded = files.png(pixels, color_type, depth, (*chunks, GAMMA, (b"tRNS", alpha)))
            yield pytest.param(encoded, id=f"{name}, transparent colours")


@pytest.mark.parametrize("encoded", pngs())
def test_both_decoders_agree_on_all_kinds_of_png(encoded):
    np.testing.assert_array_equal(decode(encoded)[0], with_pillow(encoded))


def test_the_background_shows_through_transparent_pixels():
    pixels = integers((6, 5, 4))
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    (found,) = decode(files.png(pixels, 6, 8))
    np.testing.assert_array_equal(found[0], np.broadcast_to(BACKGROUND, (5, 3)))
    np.testing.assert_array_equal(found[1], pixels[1, :, :3])
    alpha = pixels[..., 3:] / 255
    np.testing.assert_allclose(found, alpha * pixels[..., :3] + (1 - alpha) * BACKGROUND, atol=0.501)


def test_a_transparent_colour_shows_the_background():
    grey = np.array([[[3], [200]]])
    encoded = files.png(grey, 0, 8, ((b"tRNS", struct.pack(">H", 200)),))
    assert decode(encoded)[0].tolist() == [[[3, 3, 3], list(BACKGROUND)]]


def test_opaque_pngs_and_jpegs_keep_the_pixels_of_tensorflows_decoder():
    for encoded in (
        files.encode(integers((8, 8, 3)).astype(np.uint8)),
        files.png(integers((8, 8, 3)), 2, 8, (GAMMA,)),
        files.png(integers((8, 8, 1), 16), 0, 16),
        jpeg(),
    ):
        expected = tf.io.decode_image(encoded, channels=3)
        np.testing.assert_array_equal(decode(encoded)[0], expected)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(jpeg(), id="usual"),
        pytest.param(jpeg(subsampling=0), id="without subsampling"),
        pytest.param(jpeg(progressive=True), id="progressive"),
        pytest.param(jpeg(smooth().convert("L")), id="grey"),
        pytest.param(jpeg(smooth().convert("CMYK")), id="CMYK"),
        pytest.param(jpeg(icc_profile=bytes(100_000)), id="large colour profile"),
        pytest.param(jpeg(comment=b"no EXIF"), id="comment"),
        pytest.param(files.encode(smooth(), "BMP"), id="BMP"),
        pytest.param(files.encode(smooth().convert("P"), "GIF", transparency=3), id="GIF"),
    ],
)
def test_both_decoders_agree_on_other_images(encoded):
    assert_close(decode(encoded)[0], with_pillow(encoded))


@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", range(1, 9))
def test_all_orientations_are_turned_upright_as_pillow_does(value, order, kind):
    stored = jpeg(subsampling=0)
    encoded = files.with_exif(stored, files.orientation_tiff(value, order, kind, more_entries=3))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    np.testing.assert_array_equal(with_pillow(encoded), expected)
    (found,) = decode(encoded)
    assert_close(found, np.asarray(expected))
    # The turn itself has no tolerance: it moves the pixels of TensorFlow's decoder.
    assert sorted(found.ravel()) == sorted(tf.io.decode_jpeg(stored, channels=3).numpy().ravel())


def exif_of_a_camera(value):
    """EXIF with a thumbnail and many entries, as Pillow writes it."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Model", value
    exif[0x9286] = "comment " * 6000
    return exif


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(jpeg(exif=exif_of_a_camera(6)), id="large EXIF"),
        pytest.param(jpeg(exif=exif_of_a_camera(6), progressive=True), id="progressive"),
        pytest.param(jpeg(smooth().convert("CMYK"), exif=exif_of_a_camera(6)), id="CMYK"),
        pytest.param(
            files.with_exif(
                jpeg(),
                files.orientation_tiff(6),
                before=files.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 65_000)
                + b"\xff\xff\xff"
                + files.segment(0xFE, b"Exif\0\0"),
            ),
            id="behind other segments",
        ),
        pytest.param(
            files.with_exif(
                jpeg(), files.orientation_tiff(6) + files.with_exif(jpeg(), files.orientation_tiff(3))
            ),
            id="thumbnail with its own EXIF",
        ),
    ],
)
def test_the_orientation_is_found_wherever_it_is(encoded):
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
    assert expected.size == (35, 45)
    np.testing.assert_array_equal(with_pillow(encoded), expected)
    assert_close(decode(encoded)[0], np.asarray(expected))


def test_images_of_a_batch_are_decoded_each_in_its_way():
    turned = files.with_exif(jpeg(), files.orientation_tiff(8))
    transparent = files.png(integers((7, 9, 4)), 6, 8)
    plain = files.encode(integers((4, 3, 3)).astype(np.uint8))
    encoded = [plain, turned, transparent, jpeg(), files.encode(smooth(), "GIF")]
    for found, alone in zip(decode(*encoded), encoded, strict=True):
        np.testing.assert_array_equal(found, decode(alone)[0])
    assert _decode_any_size(tf.constant([], tf.string)).shape == (0,)


def test_damaged_exif_raises_no_error_and_both_readers_agree():
    read = tf.function(
        image_files.orientation, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
    )
    generator = np.random.default_rng(0)
    base = jpeg(smooth(4, 4))
    found = []
    for number in range(1500):
        order = "<>"[number % 2]
        content = bytearray(
            files.orientation_tiff(int(generator.integers(1, 9)), order, more_entries=number % 4)
        )
        for _ in range(number % 3):
            content[generator.integers(len(content))] = generator.choice([0, 1, 4, 8, 12, 255])
        end = generator.integers(len(content)) if number % 5 == 0 else None
        encoded = bytearray(files.with_exif(base, bytes(content[:end])))
        if number % 4 == 0:
            encoded[generator.integers(3, 40)] = generator.choice([0, 4, 0xDA, 0xE1, 255])
        encoded = bytes(encoded[: generator.integers(4, 80)] if number % 11 == 0 else encoded)
        found.append(int(read(tf.constant(encoded))))
        assert found[-1] == datasets.decoding.orientation(encoded), encoded[:100].hex(" ")
    assert 300 < sum(value > 1 for value in found) < 1200


@pytest.mark.parametrize("length", [0, 3, 8, 20, 33, 60])
def test_cut_off_files_are_refused_by_both_decoders(length):
    for whole in (
        files.with_exif(jpeg(), files.orientation_tiff(6)),
        files.png(integers((7, 9, 4)), 6, 8),
        files.png(integers((7, 9, 1)), 3, 8, (palette(8), (b"tRNS", b"\0\7"))),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(whole[:length])
        with pytest.raises(OSError):
            datasets.decoding.decode(whole[:length])


def test_a_long_chain_of_chunks_ends():
    chunks = (GAMMA,) * 5000
    assert not image_files.has_transparent_colors(tf.constant(files.png(integers((1, 1, 3)), 2, 8, chunks)))
    segments = files.segment(0xE2, b"") * 5000
    encoded = files.with_exif(jpeg(), files.orientation_tiff(6), segments)
    assert image_files.orientation(tf.constant(encoded)) == datasets.decoding.orientation(encoded) == 1


def _promising(width, height):
    """Files of a few bytes whose headers promise many pixels, by format."""
    jpeg_file = bytearray(jpeg(smooth(4, 4)))
    frame = jpeg_file.index(b"\xff\xc0") + 5  # position of height and width
    jpeg_file[frame : frame + 4] = struct.pack(">HH", height, width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return {
        "PNG": b"\x89PNG\r\n\x1a\n" + files.chunk((b"IHDR", header)) + files.chunk((b"IEND", b"")),
        "JPEG": bytes(jpeg_file),
        "GIF": b"GIF89a" + struct.pack("<HH", width, height) + files.encode(smooth(4, 4), "GIF")[10:],
    }


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_an_image_of_too_many_pixels_is_named_and_not_decoded(kind):
    plain = files.encode(integers((4, 3, 3)).astype(np.uint8))
    large = _promising(40_000, 5_000)[kind]
    assert len(large) < 1000
    for images in ([large], [plain, jpeg(), large, large]):
        position = images.index(large) + 1
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=f"image {position} of {len(images)} has more"
        ):
            decode(*images)
    with pytest.raises(datasets.decoding.TooLargeError, match="more than 178,956,970 pixels"):
        datasets.decoding.decode(large)
    assert datasets.decoding.count_pixels(large) > datasets.decoding.MAX_PIXELS


def test_the_limit_of_pixels_can_be_set():
    images = tf.constant([jpeg(smooth(8, 8)), jpeg(smooth(8, 9))])
    assert preprocessing.decode(images, (8, 8), max_pixels=72).shape == (2, 8, 8, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image 2 of 2 has more than 71 pixels"):
        preprocessing.decode(images, (8, 8), max_pixels=71)


def test_the_check_of_doubtful_files_decodes_no_large_ones():
    large = _promising(65_535, 65_535)["GIF"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="image 2 of 2 cannot be decoded"):
        decoding.check(tf.constant([jpeg(), large]))


@pytest.mark.parametrize("length", [0, 3, 8, 20, 33, 60])
def test_the_header_of_a_cut_off_file_promises_no_pixels_or_the_right_ones(length):
    for whole in (
        files.png(integers((7, 9, 4)), 6, 8),
        jpeg(smooth(9, 7)),
        files.encode(smooth(9, 7), "GIF"),
    ):
        assert datasets.decoding.count_pixels(whole[:length]) in (0, 63)
