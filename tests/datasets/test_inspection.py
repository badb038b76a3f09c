import io
import struct

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from PIL.PngImagePlugin import PngInfo

from datasets import decoding, inspection
from datasets.depth import ValueRange
from datasets.inspection import UnusableError
from tests.datasets import image_files


def _picture(width=24, height=16, seed=0) -> PIL.Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def _encode(image=None, fmt="PNG", **options) -> bytes:
    encoded = io.BytesIO()
    (image or _picture()).save(encoded, fmt, **options)
    return encoded.getvalue()


def _with_wrong_checksum(png: bytes, kind: bytes) -> bytes:
    """Changes the checksum of the first chunk of a kind."""
    position = 8
    while png[position + 4 : position + 8] != kind:
        position += 12 + struct.unpack(">I", png[position : position + 4])[0]
    checksum = position + 8 + struct.unpack(">I", png[position : position + 4])[0]
    return png[:checksum] + bytes([png[checksum] ^ 0xFF]) + png[checksum + 1 :]


def _png_with_text() -> bytes:
    text = PngInfo()
    text.add_text("author", "me")
    return _encode(pnginfo=text)


def _damaged(data: bytes) -> list[bytes]:
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0x55
    return [*(data[:-cut] for cut in range(1, 20)), data[: len(data) // 2], bytes(flipped)]


def _encodings() -> dict[str, bytes]:
    picture = _picture()
    encodings = {f"jpeg {mode}": _encode(picture.convert(mode), "JPEG") for mode in ("RGB", "L", "CMYK")}
    encodings |= {
        f"png {mode}": _encode(picture.convert(mode)) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")
    }
    encodings["progressive"] = _encode(picture, "JPEG", progressive=True)
    encodings["mpo"] = _encode(picture, "MPO", save_all=True, append_images=[picture])
    encodings["trailing bytes"] = _encode(picture) + bytes(30)
    encodings["checksum of pixels"] = _with_wrong_checksum(_encode(), b"IDAT")
    encodings["checksum of text"] = _with_wrong_checksum(_png_with_text(), b"tEXt")
    for fmt in ("JPEG", "PNG"):
        encodings |= {f"{fmt} damage {i}": d for i, d in enumerate(_damaged(_encode(picture, fmt)))}
    return encodings


def test_jpeg_and_png_files_are_usable_exactly_if_tensorflow_decodes_them():
    usable, decoded = {}, {}
    for name, data in _encodings().items():
        try:
            found = inspection.inspect(data)
            usable[name] = found.width, found.height
        except UnusableError:
            usable[name] = None
        try:
            image = tf.io.decode_image(data, channels=3, expand_animations=False)
            decoded[name] = image.shape[1], image.shape[0]
        except tf.errors.InvalidArgumentError:
            decoded[name] = None
    assert usable == decoded
    assert usable["checksum of pixels"] is None
    assert usable["checksum of text"] == (24, 16)


@pytest.mark.parametrize("name", ["jpeg CMYK", "png P", "png 1", "mpo", "trailing bytes"])
def test_jpeg_and_ordinary_png_files_are_kept(name):
    data = _encodings()[name]
    found = inspection.inspect(data)
    assert (found.handling, found.size) == ("keep", len(data))
    assert inspection.store(data, "keep", {}) is data


def test_what_only_tensorflow_reads_is_written_anew():
    data = _with_wrong_checksum(_png_with_text(), b"tEXt")
    found = inspection.inspect(data)
    assert found.handling == "redraw"
    stored = inspection.store(data, "redraw", {})
    assert len(stored) == found.size
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(stored))), np.asarray(_picture()))


def test_an_image_with_a_text_that_only_tensorflow_ignores_is_written_anew():
    data = image_files.with_large_text(_encode())
    found = inspection.inspect(data)
    assert (found.handling, found.width, found.height) == ("redraw", 24, 16)
    stored = inspection.store(data, "redraw", {})
    np.testing.assert_array_equal(np.asarray(decoding.decode(stored)), np.asarray(_picture()))


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(fmt, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 24 * 16 - 1)
    monkeypatch.setattr(inspection, "_decode_with_tensorflow", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UnusableError, match="more than 383 pixels"):
        inspection.inspect(_encode(fmt=fmt))


LOSSLESS = {
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
    "PPM": {},
    "JPEG2000": {"irreversible": False},
    "QOI": {},
}


@pytest.mark.parametrize("fmt", LOSSLESS)
def test_other_formats_become_png_without_loss(fmt):
    data = _encode(fmt=fmt, **LOSSLESS[fmt])
    found = inspection.inspect(data)
    assert (found.format, found.width, found.height, found.handling) == (fmt, 24, 16, "convert")
    stored = tf.io.decode_image(inspection.store(data, "convert", {})).numpy()
    np.testing.assert_array_equal(stored, np.asarray(_picture()))
    assert found.fingerprint == inspection.inspect(_encode()).fingerprint


@pytest.mark.parametrize("fmt", ["AVIF", "WEBP", "GIF"])
def test_the_first_picture_of_an_animation_is_taken(fmt):
    red, blue = (PIL.Image.new("RGB", (24, 16), colour) for colour in ("red", "blue"))
    data = _encode(red, fmt, save_all=True, append_images=[blue])
    stored = tf.io.decode_image(inspection.store(data, "convert", {})).numpy()
    np.testing.assert_allclose(stored.mean(axis=(0, 1)), (255, 0, 0), atol=8)


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "TIFF", "AVIF"])
def test_transparency_is_kept(fmt):
    image = PIL.Image.new("RGBA", (24, 16), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 12, 16))
    stored = tf.io.decode_image(inspection.store(_encode(image, fmt), "convert", {})).numpy()
    assert stored.shape == (16, 24, 4)
    np.testing.assert_array_equal(stored[:, 2, 3], 0)
    np.testing.assert_array_equal(stored[:, 20, 3], 255)


def test_cmyk_tiff_becomes_rgb():
    data = _encode(PIL.Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF")
    stored = tf.io.decode_image(inspection.store(data, "convert", {})).numpy()
    np.testing.assert_array_equal(stored[0, 0], (255, 0, 0))


def _turned(fmt: str, pixels: PIL.Image.Image) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    return _encode(pixels, fmt, exif=exif)


def _red_above_blue() -> PIL.Image.Image:
    """An image whose red left half becomes the top when it is turned."""
    image = PIL.Image.new("RGB", (12, 8), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 6, 8))
    return image


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF"])
def test_other_images_than_jpeg_are_stored_upright(fmt):
    data = _turned(fmt, _red_above_blue())
    found = inspection.inspect(data)
    assert (found.width, found.height, found.handling) == (8, 12, "convert")
    stored = tf.io.decode_image(inspection.store(data, "convert", {})).numpy()
    np.testing.assert_allclose(stored[1, 4], (255, 0, 0), atol=10)
    np.testing.assert_allclose(stored[10, 4], (0, 0, 255), atol=10)


def test_a_turned_jpeg_is_kept_and_measured_upright():
    found = inspection.inspect(_turned("JPEG", _red_above_blue()))
    assert (found.width, found.height, found.handling) == (8, 12, "keep")


def _twelve_bits() -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 4096, (16, 24)).astype(np.uint16)
    values[0, 0] = 4095
    return values


def _png_16_bits(values: np.ndarray) -> bytes:
    return tf.io.encode_png(values if values.ndim == 3 else values[..., None]).numpy()


@pytest.mark.parametrize(
    "data",
    [
        _png_16_bits(_twelve_bits()),
        _encode(PIL.Image.fromarray(_twelve_bits()), "TIFF"),
        _encode(PIL.Image.fromarray(_twelve_bits().astype(np.int32)), "TIFF"),
    ],
    ids=["png", "tiff of 16 bits", "tiff of 32 bits"],
)
def test_deep_grey_images_are_scaled_by_the_range_of_the_dataset(data):
    first = inspection.inspect(data)
    assert first.values == ValueRange("integer", _twelve_bits().min(), 4095)
    assert first.fingerprint is None
    ranges = {"integer": ValueRange("integer", 0, 4095)}
    second = inspection.inspect(data, ranges)
    assert (second.width, second.height, second.values) == (24, 16, None)
    stored = tf.io.decode_image(inspection.store(data, "convert", ranges)).numpy()
    np.testing.assert_array_equal(stored[..., 0], _twelve_bits() >> 4)


def test_deep_colours_are_scaled_and_transparency_uses_all_bits():
    colours = np.stack([_twelve_bits(), _twelve_bits() // 2, _twelve_bits() // 4], axis=2)
    opaque = np.full((16, 24, 1), 65535, np.uint16)
    data = _png_16_bits(np.concatenate([colours, opaque], axis=2))
    found = inspection.inspect(data)
    assert found.values is not None
    assert found.values.high == 4095
    stored = tf.io.decode_image(inspection.store(data, "convert", {"integer": found.values})).numpy()
    np.testing.assert_array_equal(stored[..., :3], colours >> 4)
    np.testing.assert_array_equal(stored[..., 3], 255)


def test_a_deep_png_is_stored_upright():
    values = np.zeros((8, 12), np.uint16)
    values[:, :6] = 4095
    plain = _png_16_bits(values)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    with_exif = _encode(PIL.Image.open(io.BytesIO(plain)), exif=exif)
    stored = tf.io.decode_image(
        inspection.store(with_exif, "convert", {"integer": ValueRange("integer", 0, 4095)})
    ).numpy()
    assert stored.shape == (12, 8, 1)
    assert (stored[:6] == 255).all()
    assert (stored[6:] == 0).all()


def _colour_tiff_of_16_bits(value: int) -> bytes:
    """Encodes a TIFF of 8x4 pixels that Pillow cannot write."""
    pixels = np.full((4, 8, 3), value, np.uint16).tobytes()
    entries = 9
    depths = 8 + 2 + 12 * entries + 4  # where the three depths are, which the pixels follow
    tags = [
        *((256, 4, 1, 8), (257, 4, 1, 4), (258, 3, 3, depths), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, depths + 6), (277, 3, 1, 3), (278, 4, 1, 4), (279, 4, 1, len(pixels))),
    ]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    header = struct.pack("<2sHIH", b"II", 42, 8, entries)
    return header + directory + struct.pack("<IHHH", 0, 16, 16, 16) + pixels


def test_the_depth_of_colour_tiff_is_told():
    data = _colour_tiff_of_16_bits(0x8765)
    assert inspection.inspect(data).format == "TIFF (the upper 8 of 16 bits)"
    stored = tf.io.decode_image(inspection.store(data, "convert", {})).numpy()
    np.testing.assert_array_equal(stored, np.full((4, 8, 3), 0x87))


def test_float_tiff_is_scaled():
    values = np.linspace(0, 1, 24 * 16, dtype=np.float32).reshape(16, 24)
    data = _encode(PIL.Image.fromarray(values), "TIFF")
    found = inspection.inspect(data)
    assert found.values == ValueRange("float", 0, 1)
    stored = tf.io.decode_image(inspection.store(data, "convert", {"float": found.values})).numpy()
    np.testing.assert_array_equal(stored[..., 0], np.rint(values * 255))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "^empty file$"),
        (b"hello", "^not an image$"),
        (bytes(5000), "^not an image$"),
        (_encode()[:-3], "TensorFlow cannot decode it: Invalid PNG data"),
        (_encode(_picture(64, 64), "JPEG")[:-200], "TensorFlow cannot decode it: .*JPEG"),
        (_encode(fmt="TIFF")[:-300], "truncated"),
        (_encode(fmt="WEBP")[:-20], "decoder"),
        (_encode(fmt="GIF")[:-60], "truncated"),
        (_encode(PIL.Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), "not a number"),
    ],
)
def test_the_reason_of_an_unusable_image_is_told(data, reason):
    with pytest.raises(UnusableError, match=reason):
        inspection.inspect(data)


def test_heic_files_need_a_plugin():
    if "HEIF" in inspection.formats():
        pytest.skip("pillow-heif is installed")
    with pytest.raises(UnusableError, match="pip install pillow-heif"):
        inspection.inspect(b"\0\0\0\x18ftypheic" + bytes(30))


def test_images_are_recognised_without_their_suffix(tmp_path):
    for name, data, expected in [
        ("a", _encode(), True),
        ("b", _encode(fmt="JPEG"), True),
        ("c", _encode(fmt="WEBP"), True),
        ("d", _encode(fmt="AVIF"), True),
        ("raw.nef", _encode(fmt="TIFF"), False),  # raw photographs begin like TIFF
        ("e", b"text", False),
    ]:
        (tmp_path / name).write_bytes(data)
        assert inspection.begins_like_image(tmp_path / name) == expected


def test_suffixes_are_those_of_pictures():
    assert {".jpg", ".png", ".webp", ".tif", ".bmp", ".gif", ".avif", ".heic"} <= inspection.suffixes()
    assert not {".pdf", ".eps", ".mpg", ".h5", ".txt"} & inspection.suffixes()
