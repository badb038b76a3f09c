import base64
import io

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.data_gate import images, pictures
from components.data_gate.observations import Observations
from datasets import decoding
from settings.data_gate import DataGateConfig
from tests.datasets import image_files

WHITE = (255, 255, 255)


def _encode(pixels, image_format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def _pixels(seed=0, height=8, width=8):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _example(image, name="some/name.png", label=0):
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    if name:
        features["id"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode()]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture
def look(tmp_path):
    """Returns a function that looks at shards of examples: split -> shards."""

    def look_at(splits, size=(8, 8), max_pixels=1000, background=WHITE):
        files = {}
        for split, shards in splits.items():
            files[split] = [str(tmp_path / f"{split}-{number}.tfrecord") for number in range(len(shards))]
            for path, records in zip(files[split], shards, strict=True):
                with tf.io.TFRecordWriter(path) as writer:
                    for record in records:
                        writer.write(record)
        folder = tmp_path / "temporary"
        expected = images.Expected(size, max_pixels, background)
        seen, fingerprints = images.look(beam.Pipeline(), files, expected, str(folder))
        assert not folder.exists()
        return files, seen, fingerprints

    return look_at


def test_valid_images_of_all_shards_are_counted_and_described_in_order(look):
    png = [_encode(_pixels(seed)) for seed in range(5)]
    _, seen, fingerprints = look(
        {
            "train": [[_example(png[0], "a", 1), _example(png[1], "b", 0)], [_example(png[2], "c", 1)]],
            "test": [[_example(png[3], "d", 2), _example(png[4], "", 0)]],
        }
    )
    assert seen == {"train": Observations(3), "test": Observations(2)}
    members = [fingerprints.member(index) for index in range(len(fingerprints))]
    assert [(m.split, m.label, m.id) for m in members] == [
        ("train", 1, "a"),
        ("train", 0, "b"),
        ("train", 1, "c"),
        ("test", 2, "d"),
        ("test", 0, ""),
    ]


def test_an_image_that_cannot_be_decoded_is_named(look):
    whole = _encode(_pixels())
    records = [_example(whole), _example(whole[:-20], "cats/7.png"), _example(b"text", "")]
    _, seen, fingerprints = look({"val": [records]})
    first, second = seen["val"].problems
    assert seen["val"].examples == 3
    assert first.startswith("example 'cats/7.png' cannot be decoded: ")
    assert second.startswith("example number 2 of val-0.tfrecord cannot be decoded: ")
    assert "\n" not in first + second
    assert len(fingerprints) == 1


def test_images_of_other_sizes_are_counted(look):
    records = [_example(_encode(_pixels())), *(_example(_encode(_pixels(1, 4, 6)), f"{i}") for i in range(2))]
    _, seen, _ = look({"train": [records]})
    assert seen["train"] == Observations(3, [], 2, "'0' is 6x4")
    _, seen, _ = look({"train": [records]}, size=None)
    assert seen["train"] == Observations(3)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_an_image_of_too_many_pixels_is_named_and_not_decoded(look, image_format):
    small, large = (_encode(_pixels(0, 8, width), image_format) for width in (8, 9))
    # It could not be decoded, but it is refused because of its header.
    cut = large[: large.rfind(b"IDAT") if image_format == "PNG" else -4]
    _, seen, _ = look({"train": [[_example(small, "small"), _example(cut, "large")]]}, max_pixels=64)
    (problem,) = seen["train"].problems
    assert problem.startswith("example 'large' has more than 64 pixels; ")
    assert "data_gate.max_image_pixels" in problem


def test_an_image_that_only_tensorflow_decodes_is_named(look):
    refused = image_files.with_large_text(_encode(_pixels()))
    records = [_example(_encode(_pixels(1)), "whole"), _example(refused, "with a text")]
    _, seen, fingerprints = look({"train": [records]})
    (problem,) = seen["train"].problems
    assert problem.startswith("example 'with a text' cannot be decoded by Pillow")
    assert "Decompressed data too large" in problem
    assert "write the dataset again with an importer, which repairs such images" in problem
    assert len(fingerprints) == 1


def test_the_largest_limit_of_pixels_is_that_of_the_decoders():
    assert DataGateConfig(max_image_pixels=decoding.MAX_PIXELS)
    with pytest.raises(ValueError, match="less than or equal"):
        DataGateConfig(max_image_pixels=decoding.MAX_PIXELS + 1)


def test_many_large_images_are_decoded_in_several_batches(look, monkeypatch):
    sizes = []
    decode = images.Decoder.decode
    monkeypatch.setattr(
        images.Decoder, "decode", lambda self, batch: sizes.append(len(batch)) or decode(self, batch)
    )
    monkeypatch.setattr(images, "_BATCH_PIXELS", 200)
    _, _, fingerprints = look({"train": [[_example(_encode(_pixels(seed)), str(seed)) for seed in range(8)]]})
    assert sizes == [3, 3, 2]
    assert fingerprints.groups().max() == 7


def test_images_are_compared_as_the_network_sees_them(look):
    colours = np.zeros((8, 8, 3), np.uint8)
    shapes = [np.pad(_pixels(seed)[..., 0], 0) for seed in range(2)]
    icons = [_encode(np.dstack([colours, alpha]), "PNG") for alpha in shapes]
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.repeat(np.repeat(_pixels(5, 2, 4), 8, 0), 8, 1)
    upright = _encode(np.rot90(wide, -1), "PNG")
    turned = _encode(wide, "JPEG", exif=exif, quality=100, subsampling=0)
    records = [_example(image) for image in (*icons, upright, turned)]
    _, seen, fingerprints = look({"train": [records]}, size=None, max_pixels=10_000)
    assert not seen["train"].problems
    # The icons differ in their transparency alone.
    groups = fingerprints.groups()
    assert groups[0] != groups[1]
    (pair,) = fingerprints.findings().near
    assert {pair.first.index, pair.second.index} == {2, 3}


def test_findings_are_described_with_names_of_classes_and_thumbnails(look):
    large = np.repeat(np.repeat(_pixels(1, 20, 40), 8, 0), 8, 1)
    equal, other = _encode(large), _encode(_pixels(2))
    files, _, fingerprints = look(
        {
            "train": [[_example(other, "x", 1)], [_example(equal, "a", 1), _example(equal, "b", 1)]],
            "test": [[_example(equal, "c", 0)]],
        },
        size=None,
        max_pixels=100_000,
    )
    found = pictures.describe(
        fingerprints.findings(), files, ("cat", "dog"), images.Decoder(background=WHITE)
    )
    (group,) = found["leaked"]
    assert [(m["split"], m["label"], m["id"]) for m in group] == [
        ("test", "cat", "c"),
        ("train", "dog", "a"),
        ("train", "dog", "b"),
    ]
    assert found["contradictions"] == [group]
    assert (found["leaked_count"], found["contradictions_count"], found["near_count"]) == (1, 1, 0)
    assert (found["repeated"], found["leaked_images"]) == (1, {"test/train": 1})
    kind, _, data = group[0]["image"].partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (128, 64)


def test_large_findings_are_cut(look):
    png = _encode(_pixels(1))
    records = [_example(png, f"{i}", i % 2) for i in range(40)]
    files, _, fingerprints = look({"train": [records[:20]], "test": [records[20:]]})
    found = pictures.describe(fingerprints.findings(), files, ("cat", "dog"), images.Decoder(WHITE))
    (group,) = found["leaked"]
    assert len(group) == 12
    assert {(m["split"], m["label"]) for m in group[:4]} == {
        (split, label) for split in ("train", "test") for label in ("cat", "dog")
    }
