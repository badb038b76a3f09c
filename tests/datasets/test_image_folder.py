import io
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from datasets import image_folder
from datasets.directory import DatasetError

ROOT = Path(__file__).parents[2]
NAMES = ("Café au lait", "cat", "犬")


def _encode(image=None, fmt="PNG", **options) -> bytes:
    encoded = io.BytesIO()
    (image or _picture()).save(encoded, fmt, **options)
    return encoded.getvalue()


def _picture(width=12, height=8, seed=0) -> PIL.Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def _fill(folder: Path, count: int, start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        suffix, fmt = random.Random(i).choice([("png", "PNG"), ("JPG", "JPEG"), ("jpeg", "JPEG")])
        (folder / f"{i:03d}.{suffix}").write_bytes(_encode(_picture(seed=i), fmt))


@pytest.fixture
def src(tmp_path):
    for number, name in enumerate(NAMES):
        _fill(tmp_path / "src" / name, 20, 100 * number)
    return tmp_path / "src"


def test_files_are_stored_unchanged_with_their_paths(src, tmp_path, read_split, contents):
    before = contents(src)
    dataset = image_folder.convert(src, tmp_path / "out")
    assert dataset.class_names == NAMES
    splits = {split: read_split(dataset.path, split) for split in ("train", "val", "test")}
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 48, "val": 6, "test": 6}
    examples = splits["train"] | splits["val"] | splits["test"]
    assert {path: image for path, (image, _) in examples.items()} == before
    assert all(NAMES[label] == Path(path).parts[0] for path, (_, label) in examples.items())
    assert contents(src) == before


def test_splits_are_stratified(src, tmp_path, read_split):
    image_folder.convert(src, tmp_path / "out", val_fraction=0.2, test_fraction=0.25)
    for split, count in {"train": 11, "val": 4, "test": 5}.items():
        labels = Counter(label for _, label in read_split(tmp_path / "out", split).values())
        assert labels == dict.fromkeys(range(3), count)


def test_the_same_seed_gives_the_same_bytes(src, tmp_path, contents):
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        image_folder.convert(src, tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_existing_splits_are_kept_and_val_is_taken_from_train(tmp_path, read_split):
    src = tmp_path / "src"
    for number, split in enumerate(("train", "test")):
        for name in ("a", "b"):
            _fill(src / split / name, 10, 10 * number)
    image_folder.convert(src, tmp_path / "out", val_fraction=0.3)
    assert all(path.startswith("test/") for path in read_split(tmp_path / "out", "test"))
    val = read_split(tmp_path / "out", "val")
    assert all(path.startswith("train/") for path in val)
    assert Counter(label for _, label in val.values()) == {0: 3, 1: 3}
    for name in ("a", "b"):
        _fill(src / "val" / name, 4)
    image_folder.convert(src, tmp_path / "out2")
    assert {path.split("/")[0] for path in read_split(tmp_path / "out2", "val")} == {"val"}
    assert len(read_split(tmp_path / "out2", "train")) == 20


def test_subfolders_belong_to_their_class(src, tmp_path, read_split):
    _fill(src / "cat/2024/summer", 1, start=900)
    image_folder.convert(src, tmp_path / "out")
    examples = {
        k: v for split in ("train", "val", "test") for k, v in read_split(tmp_path / "out", split).items()
    }
    (label,) = {label for path, (_, label) in examples.items() if path.startswith("cat/2024/summer/")}
    assert NAMES[label] == "cat"


def test_other_files_are_ignored_and_counted(src, tmp_path, capsys, read_split):
    (src / "cat/notes.txt").write_text("x")
    (src / "cat/._001.png").write_text("x")
    (src / "cat/@eaDir/001.png").mkdir(parents=True)
    (src / "cat/@eaDir/001.png/SYNOPHOTO_THUMB_M.jpg").write_bytes(_encode(fmt="JPEG"))
    (src / ".git").mkdir()
    image_folder.convert(src, tmp_path / "out")
    printed = capsys.readouterr().out
    assert "files that are no images, .txt: 1" in printed
    assert "hidden files and folders: 2" in printed
    assert "folders of storage devices and systems: 1 (cat/@eaDir)" in printed
    assert len(read_split(tmp_path / "out", "train")) == 48


def test_the_command_prints_a_summary_and_writes_a_page(src, tmp_path):
    (src / "cat/large.webp").write_bytes(_encode(_picture(40, 30), "WEBP"))
    page = tmp_path / "report.html"
    command = [sys.executable, "-m", "datasets.image_folder", src, tmp_path / "out", "--report", page]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{tmp_path / 'out'}: 3 classes, 61 images" in result.stdout
    assert re.search(r"cat +17 +2 +2 +21 *\n", result.stdout)
    assert "1 WEBP converted to PNG" in result.stdout
    assert "smallest 12x8, median 12x8, largest 40x30 pixels" in result.stdout
    assert "--set model.image_size=32" in result.stdout
    assert "FutureWarning" not in result.stderr
    assert page.read_text().count("data:image/png;base64,") == 3 * 8


def test_formats_that_tensorflow_does_not_read_are_converted(src, tmp_path, read_split):
    (src / "cat/a.bmp").write_bytes(_encode(_picture(seed=1), "BMP"))
    (src / "cat/b.jpg").write_bytes(_encode(_picture(seed=2), "WEBP", lossless=True))
    image_folder.convert(src, tmp_path / "out")
    examples = _all(read_split, tmp_path / "out")
    for name, seed in {"cat/a.bmp": 1, "cat/b.jpg": 2}.items():
        decoded = tf.io.decode_png(examples[name][0]).numpy()
        np.testing.assert_array_equal(decoded, np.asarray(_picture(seed=seed)))


def test_deep_images_are_scaled_alike(src, tmp_path, read_split, capsys):
    values = {name: np.full((8, 12), value, np.uint16) for name, value in {"a": 4000, "b": 400}.items()}
    for name, pixels in values.items():
        (src / f"cat/{name}.png").write_bytes(_encode(PIL.Image.fromarray(pixels)))
    image_folder.convert(src, tmp_path / "out")
    examples = _all(read_split, tmp_path / "out")
    means = [tf.io.decode_png(examples[f"cat/{name}.png"][0]).numpy().mean() for name in values]
    assert means == [4000 >> 4, 400 >> 4]
    assert "values from 400 to 4000 (12 bits) divided by 16" in capsys.readouterr().out


def _all(read_split, path) -> dict[str, tuple[bytes, int]]:
    return {k: v for split in ("train", "val", "test") for k, v in read_split(path, split).items()}


def _truncated_jpeg() -> bytes:
    return _encode(_picture(64, 64), "JPEG")[:-200]


BAD = {
    "empty.png": (b"", "empty file"),
    "text.jpg": (b"hello", "not an image"),
    "cut.jpg": (_truncated_jpeg(), "Invalid JPEG data"),
    "cut.png": (_encode()[:-3], "Invalid PNG data"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_unreadable_image_stops_the_conversion(src, tmp_path, name):
    data, message = BAD[name]
    (src / "cat" / name).write_bytes(data)
    with pytest.raises(DatasetError, match=rf"1 of 61 images cannot be used.*\n.*cat/{name}: .*({message})"):
        image_folder.convert(src, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unusable_images_are_listed_or_skipped(src, tmp_path, read_split, capsys):
    for i in range(25):
        (src / "cat" / f"bad{i:02d}.png").touch()
    with pytest.raises(DatasetError, match=r"25 of 85 images cannot be used.*--skip-bad") as stop:
        image_folder.convert(src, tmp_path / "out")
    lines = str(stop.value).splitlines()
    assert lines[-2:] == ["  cat/bad19.png: empty file", "  and 5 more"]
    image_folder.convert(src, tmp_path / "out", skip_bad=True)
    printed = capsys.readouterr()
    assert "skipped 25 of 85 images" in printed.err
    assert re.search(
        r"unusable +25 images: cat/bad00.png, cat/bad01.png, cat/bad02.png, and 22 more", printed.out
    )
    assert len(read_split(tmp_path / "out", "train")) == 48


def test_too_few_images_in_a_class_are_an_error(src, tmp_path):
    shutil.rmtree(src / "cat")
    _fill(src / "cat", 2)
    with pytest.raises(DatasetError, match=r"at least 3 usable different images of every class.*'cat' has 2"):
        image_folder.convert(src, tmp_path / "out")


def test_too_few_images_in_an_existing_split_are_an_error(tmp_path):
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            _fill(tmp_path / "src" / split / name, 3)
    shutil.rmtree(tmp_path / "src/test/b")
    with pytest.raises(DatasetError, match=r"every class in test; 'b' has 0"):
        image_folder.convert(tmp_path / "src", tmp_path / "out")


def test_three_images_per_class_are_enough(tmp_path, read_split):
    for name in ("a", "b"):
        _fill(tmp_path / "src" / name, 3)
    image_folder.convert(tmp_path / "src", tmp_path / "out", val_fraction=0.5, test_fraction=0.4)
    assert [len(read_split(tmp_path / "out", split)) for split in ("train", "val", "test")] == [2, 2, 2]


def test_other_structures_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no such directory"):
        image_folder.convert(tmp_path / "none", tmp_path / "out")
    (tmp_path / "src").mkdir()
    with pytest.raises(DatasetError, match="no folder in it"):
        image_folder.convert(tmp_path / "src", tmp_path / "out")
    _fill(tmp_path / "src/train/a", 3)
    with pytest.raises(DatasetError, match="at least 2 classes, found 1: a"):
        image_folder.convert(tmp_path / "src", tmp_path / "out")
    _fill(tmp_path / "src/dogs", 3)
    with pytest.raises(DatasetError, match="another name: dogs"):
        image_folder.convert(tmp_path / "src", tmp_path / "out")


def test_test_and_val_are_cut_from_train(tmp_path, read_split):
    for name in ("train", "test"):  # which may be classes, too
        _fill(tmp_path / "src/Training" / name, 10)
    dataset = image_folder.convert(tmp_path / "src", tmp_path / "out", test_fraction=0.2)
    assert dataset.class_names == ("test", "train")
    assert [len(read_split(dataset.path, split)) for split in ("train", "val", "test")] == [14, 2, 4]


def test_numbered_classes_are_in_natural_order(tmp_path):
    for name in ("10", "2", "0", "1"):
        _fill(tmp_path / "src" / name, 3)
    assert image_folder.convert(tmp_path / "src", tmp_path / "out").class_names == ("0", "1", "2", "10")


def test_a_table_of_labels_is_noticed(tmp_path):
    _fill(tmp_path / "my src/images", 3)
    (tmp_path / "my src/labels.csv").touch()
    command = (
        rf"python -m datasets.manifest '{tmp_path}/my src/labels.csv' OUT --images '{tmp_path}/my src/images'"
    )
    with pytest.raises(DatasetError, match=re.escape(command)):
        image_folder.convert(tmp_path / "my src", tmp_path / "out")


def test_file_names_may_have_any_bytes(src, tmp_path, capsys):
    path = os.fsencode(src / "cat") + b"/\xff[1].png"
    Path(os.fsdecode(path)).write_bytes(_encode(_picture(seed=500)))
    image_folder.convert(src, tmp_path / "out", report=tmp_path / "page.html")
    records = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*.tfrecord"))
    assert b"cat/\xff[1].png" in records


@pytest.mark.parametrize(("val", "test"), [(0.0, 0.1), (0.1, 0.0), (0.5, 0.5)])
def test_fractions_have_to_leave_images_for_train(src, tmp_path, val, test):
    with pytest.raises(DatasetError, match="images are left for train"):
        image_folder.convert(src, tmp_path / "out", val_fraction=val, test_fraction=test)


def test_refuses_to_write_into_the_source(src):
    with pytest.raises(DatasetError, match="only read"):
        image_folder.convert(src, src / "out")


def test_is_image_folder(src, tmp_path):
    assert image_folder.is_image_folder(src)
    assert image_folder.is_image_folder(src.parent)  # as a tree with the class `src` and subfolders
    (tmp_path / "empty").mkdir()
    assert not image_folder.is_image_folder(tmp_path / "empty")
    assert not image_folder.is_image_folder(tmp_path / "none")
