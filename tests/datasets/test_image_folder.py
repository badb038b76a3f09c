import io
import random
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
    (src / "cat/.thumbnails").mkdir()
    (src / "cat/.thumbnails/1.png").write_text("x")
    (src / ".git").mkdir()
    image_folder.convert(src, tmp_path / "out")
    assert "ignored 3 hidden files and files that are not .jpeg, .jpg, .png" in capsys.readouterr().err
    assert len(read_split(tmp_path / "out", "train")) == 48


def test_several_sizes_give_a_note(src, tmp_path, capsys):
    image_folder.convert(src, tmp_path / "one")
    assert "image_size" not in capsys.readouterr().err
    (src / "cat/large.png").write_bytes(_encode(_picture(40, 30)))
    image_folder.convert(src, tmp_path / "two")
    assert "from 12x8 to 40x30 pixels: choose the network's image size with `--set model.image_size=N`" in (
        capsys.readouterr().err
    )


def _truncated_jpeg() -> bytes:
    return _encode(_picture(64, 64), "JPEG")[:-200]


BAD = {
    "empty.png": (b"", "empty file"),
    "text.jpg": (b"hello", "not an image"),
    "cut.jpg": (_truncated_jpeg(), "truncated|Truncated"),
    "cut.png": (_encode()[:-3], "truncated PNG"),
    "phone.jpg": (_encode(fmt="WEBP"), "expected PNG or JPEG, found WEBP"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_unreadable_image_stops_the_conversion(src, tmp_path, name):
    data, message = BAD[name]
    (src / "cat" / name).write_bytes(data)
    with pytest.raises(DatasetError, match=rf"1 of 61 images cannot be used.*\n.*cat/{name}: .*({message})"):
        image_folder.convert(src, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_lists_unreadable_images_or_skips_them(src, tmp_path, read_split):
    for i in range(25):
        (src / "cat" / f"bad{i:02d}.png").touch()
    command = [sys.executable, "-m", "datasets.image_folder", src, tmp_path / "out"]
    stopped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert stopped.returncode == 1
    assert "25 of 85 images cannot be used" in stopped.stderr
    assert "--skip-bad" in stopped.stderr
    assert "cat/bad19.png: empty file" in stopped.stderr
    assert "bad20" not in stopped.stderr
    assert "and 5 more" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    skipped = subprocess.run([*command, "--skip-bad"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "skipped 25 of 85 images" in skipped.stderr
    assert f"{tmp_path / 'out'}: 3 classes" in skipped.stdout
    assert len(read_split(tmp_path / "out", "train")) == 48


def _damaged(data: bytes) -> list[bytes]:
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0x55
    return [*(data[:-cut] for cut in range(1, 20)), data[: len(data) // 2], bytes(flipped)]


def _encodings() -> dict[str, bytes]:
    picture = _picture(24, 16)
    encodings = {f"jpeg {mode}": _encode(picture.convert(mode), "JPEG") for mode in ("RGB", "L", "CMYK")}
    encodings |= {
        f"png {mode}": _encode(picture.convert(mode)) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")
    }
    encodings["png 16 bits"] = _encode(PIL.Image.fromarray(np.full((8, 8), 4000, np.uint16)))
    encodings["progressive"] = _encode(picture, "JPEG", progressive=True)
    encodings["mpo"] = _encode(picture, "MPO", save_all=True, append_images=[picture])
    encodings["trailing bytes"] = _encode(picture) + bytes(30)
    for fmt in ("JPEG", "PNG"):
        encodings |= {f"{fmt} damage {i}": d for i, d in enumerate(_damaged(_encode(picture, fmt)))}
    return (
        encodings | {fmt: _encode(picture, fmt) for fmt in ("WEBP", "TIFF")} | {"empty": b"", "text": b"text"}
    )


def test_accepted_images_are_those_that_tensorflow_decodes():
    accepted, decoded = {}, {}
    for name, data in _encodings().items():
        try:
            accepted[name] = image_folder._decode(data).size
        except OSError:
            accepted[name] = None
        try:
            image = tf.io.decode_image(data, channels=3, expand_animations=False)
            decoded[name] = (image.shape[1], image.shape[0])
        except tf.errors.InvalidArgumentError:
            decoded[name] = None
    # TensorFlow decodes WebP from 2.21 on. Models are served by older ones, too.
    decoded["WEBP"] = None
    assert accepted == decoded
    assert None in accepted.values()
    assert accepted["png RGB"] == (24, 16)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
def test_photos_are_turned_upright(src, tmp_path, read_split, capsys, fmt):
    stored = PIL.Image.new("RGB", (12, 8), (0, 0, 255))
    stored.paste((255, 0, 0), (0, 0, 6, 8))  # the red left half becomes the top
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    (src / "cat/turned.png").write_bytes(_encode(stored, fmt, exif=exif))
    image_folder.convert(src, tmp_path / "out")
    assert "1 images with a rotation in EXIF are stored upright" in capsys.readouterr().err
    examples = {
        k: v for split in ("train", "val", "test") for k, v in read_split(tmp_path / "out", split).items()
    }
    decoded = tf.io.decode_image(examples["cat/turned.png"][0], channels=3, expand_animations=False).numpy()
    assert decoded.shape == (12, 8, 3)
    np.testing.assert_allclose(decoded[1, 4], (255, 0, 0), atol=10)
    np.testing.assert_allclose(decoded[10, 4], (0, 0, 255), atol=10)


def test_too_few_images_in_a_class_are_an_error(src, tmp_path):
    shutil.rmtree(src / "cat")
    _fill(src / "cat", 2)
    with pytest.raises(DatasetError, match=r"at least 3 usable images of every class.*'cat' has 2"):
        image_folder.convert(src, tmp_path / "out")


def test_too_few_images_in_an_existing_split_are_an_error(tmp_path):
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            _fill(tmp_path / "src" / split / name, 3)
    shutil.rmtree(tmp_path / "src/test/b")
    with pytest.raises(DatasetError, match=r"every class in test.*'b' has 0"):
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
    with pytest.raises(DatasetError, match=r"expected either the folders train, test.* Found: train$"):
        image_folder.convert(tmp_path / "src", tmp_path / "out")
    _fill(tmp_path / "src/test/a", 3)
    with pytest.raises(DatasetError, match="at least 2 classes, found 1"):
        image_folder.convert(tmp_path / "src", tmp_path / "out")
    _fill(tmp_path / "src/dogs", 3)
    with pytest.raises(DatasetError, match="Found: train, test, dogs"):
        image_folder.convert(tmp_path / "src", tmp_path / "out")


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
