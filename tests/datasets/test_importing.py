import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from datasets import bulk_inspection, directory, importing, tfrecord, workers
from datasets.directory import SPLITS, DatasetError
from datasets.importing import FilePlace, Item, RecordPlace

NAMES = ("cat", "dog")


def _png(seed: int) -> bytes:
    encoded = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def _items(folder: Path, seeds, split="", start=0) -> list[Item]:
    """Writes an image for each seed; the labels alternate."""
    items = []
    for number, seed in enumerate(seeds, start):
        path = folder / f"{split}{number:03d}.png"
        path.write_bytes(_png(seed))
        items.append(Item(FilePlace(str(path)), path.name, split, number % 2))
    return items


def _splits(read_split, path) -> dict[str, set[str]]:
    return {split: set(read_split(path, split)) for split in SPLITS}


def test_equal_images_stay_in_one_split(tmp_path, read_split, capsys):
    # Each image lies six times under another name, as re-encoded files do.
    items = _items(tmp_path, [2 * (i // 12) + i % 2 for i in range(120)])
    importing.convert(items, NAMES, tmp_path / "out", test_fraction=0.2, val_fraction=0.2)
    found = _splits(read_split, tmp_path / "out")
    groups = {
        split: {int(name[:3]) // 12 * 2 + int(name[:3]) % 2 for name in found[split]} for split in SPLITS
    }
    assert {split: len(names) for split, names in found.items()} == {"train": 72, "val": 24, "test": 24}
    assert sum(map(len, groups.values())) == 20
    printed = capsys.readouterr().out
    assert "100 images are equal to another one of the same split and class" in printed
    assert "leak" not in printed


def test_leaks_and_contradictions_are_counted_and_named(tmp_path, capsys):
    items = _items(tmp_path, range(20), "train") + _items(tmp_path, [*range(4), *range(100, 106)], "test")
    contradicting = tmp_path / "again.png"
    contradicting.write_bytes(_png(6))
    items.append(Item(FilePlace(str(contradicting)), "again.png", "train", 1))
    importing.convert(items, NAMES, tmp_path / "out", val_fraction=0.1)
    printed = " ".join(capsys.readouterr().out.split())
    assert "4 of 10 test images are also in" in printed
    assert "test000.png = train000.png" in printed
    assert "2 images are equal to one with another label" in printed
    assert "(dog)" in printed


def test_given_splits_are_kept_and_others_are_chosen(tmp_path, read_split):
    items = _items(tmp_path, range(20)) + _items(tmp_path, range(20, 24), "test")
    importing.convert(items, NAMES, tmp_path / "out", val_fraction=0.2)
    found = _splits(read_split, tmp_path / "out")
    assert found["test"] == {item.id for item in items[20:]}
    assert {split: len(names) for split, names in found.items()} == {"train": 16, "val": 4, "test": 4}


def test_train_is_required(tmp_path):
    with pytest.raises(DatasetError, match="expected images for train, found only images for test"):
        importing.convert(_items(tmp_path, range(4), "test"), NAMES, tmp_path / "out")
    with pytest.raises(DatasetError, match="found only images for no split"):
        importing.convert([], NAMES, tmp_path / "out")


def test_equal_images_count_once_for_the_splits(tmp_path):
    with pytest.raises(DatasetError, match=r"at least 3 usable different images .*'cat' has 1, 'dog' has 1"):
        importing.convert(_items(tmp_path, [i % 2 for i in range(20)]), NAMES, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_in_records_are_read(tmp_path, read_split):
    path = tmp_path / "a.tfrecord"
    with path.open("wb") as file:
        for seed in range(20):
            tfrecord.write(file, tfrecord.encode_example({"picture": _png(seed), "label": seed % 2}))
    places = [RecordPlace(str(path), offset, len(data), "picture") for offset, data in tfrecord.scan(path)]
    items = [Item(place, f"record {i}", "", i % 2) for i, place in enumerate(places)]
    importing.convert(items, NAMES, tmp_path / "out")
    examples = {k: v for split in SPLITS for k, v in read_split(tmp_path / "out", split).items()}
    assert {name: image for name, (image, _) in examples.items()} == {
        f"record {seed}": _png(seed) for seed in range(20)
    }
    with pytest.raises(OSError, match="expected one encoded image in the feature 'image', found 0"):
        RecordPlace(str(path), places[0].offset, places[0].size, "image").read()


def test_large_splits_have_several_shuffled_shards(tmp_path, monkeypatch, read_split):
    monkeypatch.setattr(directory, "_SHARD_BYTES", 2000)
    importing.convert(_items(tmp_path, range(200)), NAMES, tmp_path / "out")
    shards = sorted((tmp_path / "out/train").iterdir())
    assert len(shards) > 10
    counts = [sum(1 for _ in tfrecord.read(shard)) for shard in shards]
    assert sum(counts) == 160
    assert max(counts) - min(counts) <= 1
    first = [tfrecord.decode_example(record)["id"] for record in tfrecord.read(shards[0])]
    assert first != sorted(first)


def test_processes_write_the_same_bytes(tmp_path, monkeypatch, contents):
    items = _items(tmp_path, range(60))
    items[7] = Item(FilePlace(str(tmp_path / "missing.png")), "missing.png", "", 1)
    importing.convert(items, NAMES, tmp_path / "alone", skip_bad=True)
    monkeypatch.setattr(workers, "_SECONDS_ALONE", 0)
    monkeypatch.setattr(workers, "_processes", lambda: 2)
    monkeypatch.setattr(bulk_inspection, "_CHUNK", 10)
    importing.convert(items, NAMES, tmp_path / "together", skip_bad=True)
    assert contents(tmp_path / "alone") == contents(tmp_path / "together")


def _exit(code: int) -> None:
    if code:
        os._exit(code)


def test_a_process_that_is_killed_gives_a_message(monkeypatch):
    monkeypatch.setattr(workers, "_SECONDS_ALONE", 0)
    monkeypatch.setattr(workers, "_processes", lambda: 2)
    with pytest.raises(DatasetError, match="memory ran out"), workers.start() as pool:
        list(pool.map(_exit, [0, 0, 0, 1]))


def test_an_image_that_changes_meanwhile_is_an_error(tmp_path, monkeypatch):
    items = _items(tmp_path, range(20))
    stage = directory.stage

    def remove_and_stage(*arguments):
        (tmp_path / "003.png").unlink()
        return stage(*arguments)

    monkeypatch.setattr(directory, "stage", remove_and_stage)
    with pytest.raises(DatasetError, match=r"003\.png: changed while it was converted"):
        importing.convert(items, NAMES, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".png"] == []


def test_labels_are_balanced_in_every_split(tmp_path, read_split):
    importing.convert(_items(tmp_path, range(100)), NAMES, tmp_path / "out")
    for split, count in {"train": 40, "val": 5, "test": 5}.items():
        assert Counter(label for _, label in read_split(tmp_path / "out", split).values()) == {
            0: count,
            1: count,
        }
