import io

import PIL.Image
import pytest

from datasets import layout
from datasets.directory import DatasetError
from datasets.layout import Root


def _fill(folder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    png = io.BytesIO()
    PIL.Image.new("RGB", (2, 2)).save(png, "PNG")
    (folder / "1.png").write_bytes(png.getvalue())


def _make(src, *names) -> None:
    for name in names:
        _fill(src / name)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "Training", "TRAIN", "train_images", "trainset", "training-data"]),
        ("val", ["val", "valid", "Validation", "dev", "valid_set", "val images"]),
        ("test", ["test", "Testing", "holdout", "hold-out", "Test Set", "testset"]),
        (None, ["cat", "images", "data", "set", "trains", "", "tester", "latest"]),
    ],
)
def test_names_of_splits(split, names):
    assert {name: layout.split_of(name) for name in names} == dict.fromkeys(names, split)


def test_numbers_in_names_are_sorted_by_value():
    assert layout.natural_order({"10", "2", "0", "1"}) == ["0", "1", "2", "10"]
    assert layout.natural_order({"b10", "b9", "a", "B"}) == ["B", "a", "b9", "b10"]
    assert layout.natural_order({"1", "01", "x"}) == ["01", "1", "x"]


def test_class_folders(tmp_path):
    _make(tmp_path, "cat", "dog/2023", "dog/2024")
    assert layout.find_roots(tmp_path) == [Root("", tmp_path)]


def test_class_folders_that_share_one_subfolder(tmp_path):
    _make(tmp_path, "cat/images", "dog/images")
    assert layout.find_roots(tmp_path) == [Root("", tmp_path)]


@pytest.mark.parametrize("names", [("Training", "Testing"), ("Train", "valid", "holdout"), ("train",)])
def test_split_folders_under_any_name(tmp_path, names):
    _make(tmp_path, *(f"{name}/{label}" for name in names for label in ("cat", "dog")))
    assert layout.find_roots(tmp_path) == [Root(layout.split_of(name), tmp_path / name) for name in names]


def test_split_folders_that_are_nested_once_more(tmp_path):
    _make(tmp_path / "a", "images/train/cat", "images/train/dog", "images/test/cat")
    roots = [Root("train", tmp_path / "a/images/train"), Root("test", tmp_path / "a/images/test")]
    assert layout.find_roots(tmp_path / "a") == roots
    _make(tmp_path / "b", "train/images/cat", "train/images/dog", "test/Test/cat", "test/Test/dog")
    roots = [Root("train", tmp_path / "b/train/images"), Root("test", tmp_path / "b/test/Test")]
    assert layout.find_roots(tmp_path / "b") == roots
    _make(tmp_path / "flowers", "flowers/rose", "flowers/tulip")
    assert layout.find_roots(tmp_path / "flowers") == [Root("", tmp_path / "flowers/flowers")]


def test_a_class_with_subfolders_is_no_wrapper(tmp_path):
    _make(tmp_path, "cat/2023", "cat/2024")
    assert layout.find_roots(tmp_path) == [Root("", tmp_path)]


def test_a_class_that_is_named_like_a_split(tmp_path):
    _make(tmp_path, "plane", "train")
    assert layout.find_roots(tmp_path) == [Root("", tmp_path)]


def test_the_layout_can_be_said(tmp_path):
    _make(tmp_path, "train/a", "train/b", "test/a", "test/b")
    assert layout.find_roots(tmp_path, "classes") == [Root("", tmp_path)]
    assert [root.split for root in layout.find_roots(tmp_path, "splits")] == ["train", "test"]
    _make(tmp_path / "x", "cat", "dog")
    with pytest.raises(DatasetError, match="folders named like train, val and test; found cat, dog"):
        layout.find_roots(tmp_path / "x", "splits")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/x", "a/y", "b/x", "b/y", "b/z"], "a, b all have the subfolders x, y.*--layout classes"),
        (["train/a", "test/a", "dogs"], "Found: dogs, test, train; .*other name: dogs.*--layout classes"),
        (["train/a", "val/a", "valid/a"], "val, valid mean the same split"),
        (["test/a", "val/a"], "train is missing"),
        (["train/a", "train/b", "test"], "without class folders or under another name: test"),
    ],
)
def test_what_cannot_be_decided_is_refused(tmp_path, names, message):
    _make(tmp_path, *names)
    with pytest.raises(DatasetError, match=message):
        layout.find_roots(tmp_path)


def test_folders_without_images_are_no_splits(tmp_path):
    _make(tmp_path, "train/a", "train/b", "test/a")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.xml").touch()
    assert [root.split for root in layout.find_roots(tmp_path)] == ["train", "test"]
