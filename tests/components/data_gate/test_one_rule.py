"""Importers, DataGate, slices, the report and the served graph agree on which images can be used."""

import apache_beam as beam
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from components.data_gate import images
from components.evaluator import slices
from components.model_report import images as report_images
from datasets import decoding, inspection
from datasets.depth import Ranges
from models import decoding as graph
from models import preprocessing
from tests.datasets import image_files

WHITE = (255, 255, 255)
MAX_PIXELS = 10_000


def _matrix() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    smooth = PIL.Image.fromarray(pixels).resize((40, 30), PIL.Image.Resampling.BICUBIC)
    deep = np.random.default_rng(0).integers(0, 2**16, (30, 40, 3))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    encode = image_files.encode
    png, jpeg = encode(smooth), encode(smooth, "JPEG")
    animation = {"save_all": True, "append_images": [smooth.rotate(90)]}
    return {
        **{f"PNG {mode}": encode(smooth.convert(mode)) for mode in ("RGB", "L", "P", "RGBA", "LA", "1")},
        "PNG palette with transparency": encode(smooth.convert("P"), transparency=3),
        "PNG 16 bits": image_files.png(deep, 2, 16),
        "PNG 16 bits grey": image_files.png(deep[..., :1], 0, 16),
        "PNG turned by EXIF": encode(smooth, exif=exif),
        "PNG with a large text": image_files.with_large_text(png),
        "PNG without its end": png[:-12],
        "PNG cut by 3 bytes": png[:-3],
        "PNG cut by 20 bytes": png[:-20],
        "PNG with trailing bytes": png + bytes(9),
        **{f"JPEG {mode}": encode(smooth.convert(mode), "JPEG") for mode in ("RGB", "L", "CMYK")},
        "JPEG progressive": encode(smooth, "JPEG", progressive=True),
        "JPEG turned by EXIF": encode(smooth, "JPEG", exif=exif),
        "JPEG of several pictures": encode(smooth, "MPO", **animation),
        "JPEG without its end": jpeg[:-2],
        "JPEG cut by 40 bytes": jpeg[:-40],
        "JPEG with trailing bytes": jpeg + bytes(9),
        "GIF": encode(smooth, "GIF"),
        "GIF animation": encode(smooth, "GIF", **animation),
        "BMP": encode(smooth, "BMP"),
        "BMP palette": encode(smooth.convert("P"), "BMP"),
        "BMP 1 bit": encode(smooth.convert("1"), "BMP"),
        "WebP": encode(smooth, "WEBP"),
        "WebP animation": encode(smooth, "WEBP", **animation),
        "TIFF": encode(smooth, "TIFF"),
        "too many pixels": encode(smooth.resize((101, 100))),
        "text": b"no image",
        "nothing": b"",
    }


def _accepted_by_data_gate(files: dict[str, bytes], folder) -> dict[str, bool]:
    path = str(folder / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for name, encoded in files.items():
            example = tf.train.Example()
            example.features.feature["image"].bytes_list.value.append(encoded)
            example.features.feature["label"].int64_list.value.append(0)
            example.features.feature["id"].bytes_list.value.append(name.encode())
            writer.write(example.SerializeToString())
    expected = images.Expected(None, MAX_PIXELS, WHITE)
    seen, _ = images.look(beam.Pipeline(), {"train": [path]}, expected, str(folder / "temporary"))
    problems = seen["train"].problems
    return {name: not any(f"example {name!r} " in line for line in problems) for name in files}


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def _serve(image_bytes):
    return preprocessing.decode(graph.check(image_bytes), (8, 8), max_pixels=MAX_PIXELS)


def _is_served(encoded: bytes) -> bool:
    try:
        return bool(_serve(tf.constant([encoded])).shape[0])
    except tf.errors.InvalidArgumentError:
        return False


def _is_read_by_pillow(encoded: bytes) -> bool:
    try:
        report_images.thumbnail(encoded)
        slices.bands(encoded)
        return True
    except decoding.ImageError:
        return False


def _import(encoded: bytes) -> bytes | None:
    """Returns what an importer stores of an image; None if it refuses the image."""
    try:
        found = inspection.inspect(encoded)
        ranges: Ranges = {} if found.values is None else {found.values.kind: found.values}
        found = inspection.inspect(encoded, ranges)
    except inspection.UnusableError:
        return None
    return inspection.store(encoded, found.handling, ranges)


DAMAGED = {
    "PNG without its end",
    "PNG cut by 3 bytes",
    "PNG cut by 20 bytes",
    "JPEG without its end",
    "JPEG cut by 40 bytes",
    "text",
    "nothing",
}
# Images that one decoder refuses: TensorFlow, but the first one, which Pillow refuses.
REFUSED = DAMAGED | {
    "PNG with a large text",
    "BMP 1 bit",
    "WebP",
    "WebP animation",
    "TIFF",
    "too many pixels",
}


@pytest.fixture(scope="module")
def accepted(tmp_path_factory):
    """Name -> whether DataGate accepts the image, for the images as they are."""
    return _accepted_by_data_gate(_matrix(), tmp_path_factory.mktemp("as they are"))


def test_data_gate_refuses_what_one_of_the_decoders_refuses(accepted):
    assert {name for name, is_accepted in accepted.items() if not is_accepted} == REFUSED


def test_what_data_gate_accepts_is_read_by_slices_the_report_and_the_served_graph(accepted):
    files = _matrix()
    for name in accepted.keys() - REFUSED:
        assert _is_served(files[name]), name
        assert _is_read_by_pillow(files[name]), name
    for name in ("too many pixels", "text", "nothing", "TIFF"):
        assert not _is_served(files[name]), name


def test_what_an_importer_stores_is_accepted(tmp_path):
    files = _matrix()
    stored = {name: _import(encoded) for name, encoded in files.items()}
    refused = {name for name, encoded in stored.items() if encoded is None}
    assert refused == DAMAGED
    usable = {name: encoded for name, encoded in stored.items() if encoded is not None}
    found = _accepted_by_data_gate(usable, tmp_path)
    assert {name for name, is_accepted in found.items() if not is_accepted} == {"too many pixels"}
