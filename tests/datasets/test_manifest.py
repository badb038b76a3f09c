import io
import json

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest

from datasets import manifest
from datasets.directory import SPLITS, DatasetError


@pytest.fixture
def photos(tmp_path):
    """Writes 24 images, images/00.png and so on."""
    (tmp_path / "images").mkdir()
    for i in range(24):
        encoded = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(encoded, "PNG")
        (tmp_path / f"images/{i:02d}.png").write_bytes(encoded.getvalue())
    return tmp_path


def _rows(count=24) -> list[tuple[str, str]]:
    return [(f"images/{i:02d}.png", ("cat", "dog")[i % 2]) for i in range(count)]


def _write_csv(path, rows, header=("path", "label"), separator=","):
    path.write_text("\n".join(separator.join(row) for row in [header, *rows]) + "\n")
    return path


def _labels(read_split, path) -> dict[str, int]:
    return {name: label for split in SPLITS for name, (_, label) in read_split(path, split).items()}


@pytest.mark.parametrize(
    ("name", "separator", "header"),
    [
        ("a.csv", ",", ("path", "label")),
        ("a.csv", ";", ("File Name", "Class")),
        ("a.tsv", "\t", ("image_path", "species")),
    ],
)
def test_tables_of_text(photos, read_split, name, separator, header):
    table = _write_csv(photos / name, _rows(), header, separator)
    dataset = manifest.convert(table, photos / "out")
    assert dataset.class_names == ("cat", "dog")
    assert _labels(read_split, dataset.path) == {path: ("cat", "dog").index(label) for path, label in _rows()}


def test_json_lines_and_parquet_give_the_same_dataset(photos, contents):
    (photos / "a.jsonl").write_text("".join(json.dumps({"file": p, "y": n}) + "\n" for p, n in _rows()))
    columns = dict(zip(("file", "y"), zip(*_rows(), strict=True), strict=True))
    pyarrow.parquet.write_table(pyarrow.table({k: list(v) for k, v in columns.items()}), photos / "a.parquet")
    for suffix in ("jsonl", "parquet"):
        manifest.convert(photos / f"a.{suffix}", photos / suffix)
    assert contents(photos / "jsonl") == contents(photos / "parquet")


def test_numbers_are_classes_in_natural_order(photos, read_split):
    rows = [{"file": path, "label": float(10 if label == "cat" else 9)} for path, label in _rows()]
    (photos / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = manifest.convert(photos / "a.jsonl", photos / "out")
    assert dataset.class_names == ("9", "10")
    assert _labels(read_split, dataset.path)["images/00.png"] == 1


def test_splits_have_the_names_of_folders(photos, read_split):
    splits = ["Training", "training", "holdout", "valid"] + ["train", "train", "", ""] * 5
    rows = [(*row, split) for row, split in zip(_rows(), splits, strict=True)]
    rows += [("images/../images/00.png", "dog", "test"), ("images/../images/03.png", "cat", "val")]
    table = _write_csv(photos / "a.csv", rows, ("path", "label", "Set"))
    manifest.convert(table, photos / "out")
    assert set(read_split(photos / "out", "test")) == {"images/02.png", "images/../images/00.png"}
    assert set(read_split(photos / "out", "val")) == {"images/03.png", "images/../images/03.png"}
    assert len(read_split(photos / "out", "train")) == 22


def test_paths_may_be_relative_to_another_folder(photos, tmp_path):
    table = _write_csv(tmp_path / "labels.csv", [(path.split("/")[1], label) for path, label in _rows()])
    with pytest.raises(DatasetError, match=r"24 of 24 files do not exist.*--images.*\n  line 2: 00\.png\n"):
        manifest.convert(table, tmp_path / "out")
    manifest.convert(table, tmp_path / "out", images=photos / "images")


def test_columns_can_be_named(photos, capsys):
    rows = [(path, "x", label, "1") for path, label in _rows()]
    table = _write_csv(photos / "a.csv", rows, ("path", "label", "animal", "fold"))
    without_folds = _write_csv(photos / "b.csv", [row[:3] for row in rows], ("path", "label", "animal"))
    dataset = manifest.convert(without_folds, photos / "out", label_column="animal")
    assert dataset.class_names == ("cat", "dog")
    assert "paths in 'path', labels in 'animal', no column of splits" in capsys.readouterr().err
    with pytest.raises(DatasetError, match=r"expected names of splits in 'fold'.*'1' in lines 2, 3"):
        manifest.convert(table, photos / "out2", label_column="animal")
    with pytest.raises(
        DatasetError, match="no column 'Animal' for --label-column; the columns are path, label"
    ):
        manifest.convert(table, photos / "out2", label_column="Animal")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("images/00.png", "")], "expected a value in 'label' in every row; empty in line 26"),
        ([("", "cat")], "expected a value in 'path' in every row; empty in line 26"),
        ([("images/03.png", "cat")], "line 26: images/03.png is also in line 5"),
        ([("images/99.png", "cat")], "1 of 25 files do not exist.*\n  line 26: images/99.png"),
        ([("images/00.png", "cat", "x")], "line 26: expected 2 values, as in the first line, found 3"),
    ],
)
def test_mistakes_are_named_by_their_lines(photos, rows, message):
    table = _write_csv(photos / "a.csv", _rows() + rows)
    with pytest.raises(DatasetError, match=message):
        manifest.convert(table, photos / "out")
    assert not (photos / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"a,b\n1,2\n",
            "found no column of paths, such as 'path', among a, b; name it with --path-col",
        ),
        ("a.csv", b"path,b\n1,2\n", "found no column of labels, such as 'label'"),
        ("a.csv", b"path,label\n", "at least one row, found none"),
        ("a.csv", b"path,label\n\xff,x\n", "expected UTF-8 text"),
        ("a.jsonl", b'{"path": "a"\n', "line 1: not JSON"),
        ("a.jsonl", b"[1]\n", r"line 1: expected an object, found \[1\]"),
        ("a.parquet", b"text", "not a Parquet file"),
        ("a.xlsx", b"", "expected a file that ends in .csv"),
    ],
)
def test_other_tables_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        manifest.convert(tmp_path / name, tmp_path / "out")


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="found no file"):
        manifest.convert(tmp_path / "a.csv", tmp_path / "out")


def test_paths_without_suffixes_are_noticed(photos):
    table = _write_csv(photos / "a.csv", [(path.removesuffix(".png"), label) for path, label in _rows()])
    with pytest.raises(DatasetError, match=r"00\.png is there, so add the suffix"):
        manifest.convert(table, photos / "out")


def test_bad_images_can_be_left_out(photos, read_split, capsys):
    (photos / "images/05.png").write_bytes(b"text")
    table = _write_csv(photos / "a.csv", [*_rows(), ("images/99.png", "cat")])
    manifest.convert(table, photos / "out", skip_bad=True)
    assert len(_labels(read_split, photos / "out")) == 23
    printed = capsys.readouterr()
    assert "images/05.png: not an image" in printed.err
    assert "rows whose file does not exist: 1 (images/99.png)" in printed.out


def test_tables_in_a_folder_are_found(tmp_path):
    for name in ("b.csv", "a.parquet", ".x.csv", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in manifest.find_tables(tmp_path)] == ["a.parquet", "b.csv"]
