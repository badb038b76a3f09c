import io
import json
import pickle
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from datasets import duplicates, near_duplicates
from datasets.duplicates import Fingerprint, Fingerprints


def _photo(seed, side=64):
    """Draws something with the smooth areas and the edges of a photograph."""
    rng = random.Random(seed)
    image = Image.new("RGB", (side, side), tuple(rng.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.uniform(-0.2, 0.9) * side, rng.uniform(-0.2, 0.9) * side
        box = (x, y, x + rng.uniform(0.1, 0.6) * side, y + rng.uniform(0.1, 0.6) * side)
        colour = tuple(rng.randrange(256) for _ in range(3))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=colour)
    return image


def _fingerprint(image):
    return duplicates.fingerprint(np.asarray(image))


def _collect(*images):
    """Returns the fingerprints of (split, label, id, image)."""
    fingerprints = Fingerprints()
    for split, label, name, image in images:
        fingerprints.add(split, label, name, _fingerprint(image))
    return fingerprints


def _saved_as_jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_equal_images_are_told_apart_by_split_and_label():
    one, two, three, four = (_photo(seed) for seed in range(4))
    found = _collect(
        ("train", 0, "a", one),
        ("test", 0, "b", one),
        ("test", 0, "c", one),
        ("train", 1, "d", two),
        ("train", 2, "e", two),
        ("val", 1, "f", three),
        ("train", 1, "g", three),
        ("train", 1, "h", four),
    ).findings()
    assert found.images == {"test": 2, "val": 1, "train": 5}
    assert [[m.id for m in group] for group in found.leaked] == [["b", "c", "a"], ["f", "g"]]
    assert found.leaked_images == {("test", "train"): 2, ("val", "train"): 1}
    assert [[(m.id, m.label) for m in group] for group in found.contradictions] == [[("d", 1), ("e", 2)]]
    assert found.contradicting_images == 2
    assert found.repeated == 1
    assert found.near == []


def test_images_of_equal_pixels_but_other_shape_are_not_equal():
    tall, wide = np.zeros((4, 2, 3), np.uint8), np.zeros((2, 4, 3), np.uint8)
    assert duplicates.fingerprint(tall).digest != duplicates.fingerprint(wide).digest


@pytest.mark.parametrize(
    "change",
    [
        lambda image: _saved_as_jpeg(image, 50),
        lambda image: _saved_as_jpeg(image, 90),
        lambda image: image.resize((32, 32), Image.Resampling.BICUBIC),
        lambda image: image.resize((58, 58), Image.Resampling.LANCZOS),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
        lambda image: image.crop((1, 1, 64, 64)).resize((64, 64), Image.Resampling.BICUBIC),
    ],
    ids=["JPEG 50", "JPEG 90", "half", "0.9", "darker", "less contrast", "cropped"],
)
def test_altered_copies_are_found_and_other_images_are_not(change):
    originals = [_photo(seed) for seed in range(60)]
    found = _collect(
        *(("train", 0, f"{i}", image) for i, image in enumerate(originals)),
        *(("test", 0, f"copy of {i}", change(image)) for i, image in enumerate(originals)),
    ).findings()
    right = [pair for pair in found.near if pair.first.id == f"copy of {pair.second.id}"]
    assert len(right) >= 57  # 95 of 100
    assert len(found.near) == len(right)
    assert found.near_images == {("test", "train"): len(right)}


def test_uniform_images_and_noise_have_no_near_duplicates():
    rng = np.random.default_rng(0)
    uniform = [np.full((16, 16, 3), value, np.uint8) for value in range(0, 256, 2)]
    noisy = [image | rng.integers(0, 2, image.shape, dtype=np.uint8) for image in uniform]
    noise = rng.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    images = [*uniform, *noisy, *noise]
    found = _collect(*(("train", 0, str(i), image) for i, image in enumerate(images))).findings()
    assert found.near_count == 0


def test_the_time_does_not_grow_with_the_square_when_all_images_look_alike(monkeypatch):
    compared = []
    hamming = near_duplicates._hamming
    monkeypatch.setattr(near_duplicates, "_hamming", lambda a, b: compared.append(len(a)) or hamming(a, b))
    alike, count = _fingerprint(_photo(0)), 3000
    fingerprints = Fingerprints()
    for i in range(count):
        fingerprints.add(
            "train", 0, "", Fingerprint(i.to_bytes(16, "big"), alike.perceptual, alike.thumbnail)
        )
    assert fingerprints.findings().near_count > count
    # 28 tables with 32 neighbours each, and once more for the distances; all pairs would be 4.5 million.
    assert sum(compared) < 2 * 28 * 32 * count


def test_a_pair_of_groups_of_equal_images_is_listed_once_and_counted_for_every_image():
    original = _photo(1)
    copy = ImageEnhance.Brightness(original).enhance(0.9)
    found = _collect(
        ("train", 0, "a", original),
        ("test", 0, "b", copy),
        ("test", 1, "c", copy),
        ("train", 0, "d", original),
    ).findings()
    (pair,) = found.near
    # The two that differ the most: in split and label.
    assert (pair.first.id, pair.second.id) == ("c", "a")
    assert 0 <= pair.distance <= near_duplicates.MAX_DISTANCE
    assert found.near_images == {("test", "train"): 2}


def test_pairs_across_splits_come_first_then_pairs_across_labels():
    images = [_photo(seed) for seed in range(3)]
    copies = [ImageEnhance.Brightness(image).enhance(0.9) for image in images]
    found = _collect(
        *(("train", 0, f"{i}", image) for i, image in enumerate(images)),
        ("train", 0, "same", copies[0]),
        ("train", 1, "other label", copies[1]),
        ("val", 0, "other split", copies[2]),
    ).findings()
    assert [{pair.first.id, pair.second.id} for pair in found.near] == [
        {"other split", "2"},
        {"other label", "1"},
        {"same", "0"},
    ]


def test_findings_do_not_depend_on_the_order_or_on_how_images_were_collected():
    images = [_photo(seed % 20) for seed in range(30)]
    images += [ImageEnhance.Brightness(image).enhance(0.9) for image in images[:10]]
    entries = [
        (("train", "val", "test")[i % 3], i // 4 % 2, f"é{i}", image) for i, image in enumerate(images)
    ]
    whole = _collect(*entries)
    parts = Fingerprints()
    for part in (entries[25:], entries[:25]):
        parts.extend(pickle.loads(pickle.dumps(_collect(*part))))
    assert len(parts) == len(whole) == 40
    expected = whole.findings()
    assert expected.leaked and expected.contradictions and expected.near
    assert json.dumps(parts.findings().to_json()) == json.dumps(expected.to_json())
    assert parts.member(0) == whole.member(25)
    assert {name: counts.tolist() for name, counts in parts.class_counts(2).items()} == {
        name: counts.tolist() for name, counts in whole.class_counts(2).items()
    }


def test_groups_number_equal_images():
    one, two = _photo(0), _photo(1)
    groups = _collect(*(("train", 0, "", image) for image in (one, two, one, two, two))).groups()
    assert groups[0] == groups[2] != groups[1] == groups[3] == groups[4]
    assert sorted(set(groups)) == [0, 1]


def test_an_empty_collection_has_no_findings():
    assert Fingerprints().findings() == duplicates.Findings()
