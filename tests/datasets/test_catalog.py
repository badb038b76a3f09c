import os
import shutil
from pathlib import Path

import PIL.Image
import pytest

from datasets import catalog, cifar10, image_folder, shapes, tfrecords
from datasets.directory import DatasetError


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def download(cache=None):
        raise cifar10.DownloadError("there is no network")

    monkeypatch.setattr(cifar10, "download", download)


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch):
    convert = shapes.convert
    monkeypatch.setattr(shapes, "convert", lambda out: convert(out, train=10, val=10, test=10))


@pytest.fixture
def tfds_folder(tiny_dataset, tmp_path):
    path = tmp_path / "cifar10/3.0.2"
    path.mkdir(parents=True)
    for split in ("train", "test"):
        (shard,) = (tiny_dataset.path / split).iterdir()
        shutil.copy(shard, path / f"cifar10-{split}.tfrecord-00000-of-00001")
    shutil.copy(tiny_dataset.path / "labels.txt", path / "label.labels.txt")
    return path


def test_shapes_are_drawn_only_once(tmp_path, monkeypatch):
    first = catalog.open_dataset("shapes", tmp_path)
    assert (first.name, first.is_fallback, first.fallback_reason) == ("shapes", False, "")
    assert first.dataset.path == tmp_path / "data/shapes"
    monkeypatch.setattr(shapes, "convert", None)
    assert catalog.open_dataset("shapes", tmp_path) == first


def test_cifar10_is_prepared_only_once(tmp_path, tiny_dataset, monkeypatch):
    def convert(archive, out):
        assert archive == Path("downloaded")
        shutil.copytree(tiny_dataset.path, out)
        return tiny_dataset

    monkeypatch.setattr(cifar10, "download", lambda: Path("downloaded"))
    monkeypatch.setattr(cifar10, "convert", convert)
    assert catalog.open_dataset("cifar10", tmp_path).name == "cifar10"
    monkeypatch.setattr(cifar10, "download", None)
    opened = catalog.open_dataset("cifar10", tmp_path)
    assert opened.dataset.path == tmp_path / "data/cifar10"
    assert catalog.open_dataset(None, tmp_path) == opened
    assert not opened.is_fallback


def test_without_a_dataset_name_and_a_network_shapes_are_the_fallback(tmp_path):
    opened = catalog.open_dataset(None, tmp_path)
    assert (opened.name, opened.is_fallback) == ("shapes", True)
    assert opened.fallback_reason == "there is no network"
    assert opened.dataset.path == tmp_path / "data/shapes"


def test_cifar10_has_no_fallback_if_it_is_named(tmp_path):
    with pytest.raises(DatasetError, match="there is no network"):
        catalog.open_dataset("cifar10", tmp_path)


def test_a_damaged_cifar10_has_no_fallback(tmp_path):
    (tmp_path / "data/cifar10").mkdir(parents=True)
    with pytest.raises(DatasetError, match="not a complete dataset directory"):
        catalog.open_dataset(None, tmp_path)


def test_a_dataset_directory_is_used_in_place(tiny_dataset, tmp_path):
    copy = tmp_path / "My Photos (2024)"
    shutil.copytree(tiny_dataset.path, copy)
    opened = catalog.open_dataset(str(copy), tmp_path / "runs")
    assert opened.dataset.path == copy
    assert opened.name == "my-photos-2024"
    assert not (tmp_path / "runs").exists()
    (copy / "labels.txt").unlink()
    with pytest.raises(DatasetError, match=r"missing: labels\.txt"):
        catalog.open_dataset(str(copy), tmp_path / "runs")


def test_a_tfds_folder_is_converted_once_until_it_changes(tfds_folder, tmp_path, tiny_dataset):
    runs = tmp_path / "runs"
    opened = catalog.open_dataset(str(tfds_folder), runs)
    assert opened.name == "cifar10-3-0-2"
    assert opened.dataset.class_names == tiny_dataset.class_names
    assert opened.dataset.path.parent == runs / "data"
    assert opened.dataset.path.name.startswith("cifar10-3-0-2-")
    written = (opened.dataset.path / "labels.txt").stat().st_mtime_ns
    assert catalog.open_dataset(str(tfds_folder), runs) == opened
    assert (opened.dataset.path / "labels.txt").stat().st_mtime_ns == written
    data = (tfds_folder / "label.labels.txt").read_bytes()
    status = (tfds_folder / "label.labels.txt").stat()
    (tfds_folder / "label.labels.txt").write_bytes(bytes(reversed(data)).strip() + b"\n")
    os.utime(tfds_folder / "label.labels.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (tfds_folder / "label.labels.txt").stat().st_size == status.st_size
    assert catalog.open_dataset(str(tfds_folder), runs).dataset.path != opened.dataset.path
    (tfds_folder / "label.labels.txt").write_text("".join(f"shape {i}\n" for i in range(10)))
    changed = catalog.open_dataset(str(tfds_folder), runs)
    assert changed.dataset.path != opened.dataset.path
    assert changed.dataset.class_names[0] == "shape 0"


def test_the_error_for_image_folders_contains_the_command_that_converts_them(tmp_path):
    src = tmp_path / "my photos"
    for name in ("a", "b"):
        (src / name).mkdir(parents=True)
        for i in range(3):
            PIL.Image.new("RGB", (8, 8), (i, 0, 0)).save(src / name / f"{i}.png")
    with pytest.raises(DatasetError) as error:
        catalog.open_dataset(str(src), tmp_path / "runs")
    out = tmp_path / "runs/data/my-photos"
    assert f"python -m datasets.image_folder '{src}' {out}\n" in str(error.value)
    assert f"--data {out}" in str(error.value)
    image_folder.convert(src, out)
    assert catalog.open_dataset(str(out), tmp_path / "runs").name == "my-photos"


def _advice(path, root):
    with pytest.raises(DatasetError) as error:
        catalog.open_dataset(str(path), root)
    return str(error.value)


def test_the_error_for_a_table_contains_the_command_that_converts_it(tmp_path):
    src = tmp_path / "x rays"
    (src / "images").mkdir(parents=True)
    for i in range(3):
        PIL.Image.new("RGB", (8, 8), (i, 0, 0)).save(src / f"images/{i}.png")
    (src / "labels.csv").write_text("path,label\n")
    command = f"python -m datasets.manifest '{src}/labels.csv' {tmp_path}/runs/data/"
    assert f"{command}x-rays\n" in _advice(src, tmp_path / "runs")
    assert f"{command}labels\n" in _advice(src / "labels.csv", tmp_path / "runs")


def test_the_error_for_foreign_records_contains_the_command_that_converts_them(tiny_dataset, tmp_path):
    src = tmp_path / "my data"
    shutil.copytree(tiny_dataset.path, src)
    (src / "schema.pbtxt").unlink()
    command = f"python -m datasets.tfrecords '{src}' {tmp_path}/runs/data/my-data\n"
    assert command in _advice(src, tmp_path / "runs")
    (shard,) = (src / "train").iterdir()
    command = f"python -m datasets.tfrecords '{shard}' {tmp_path}/runs/data/train-00000-of-00001\n"
    assert command in _advice(shard, tmp_path / "runs")
    dataset = tfrecords.convert([str(src)], tmp_path / "runs/data/my-data", labels=src / "labels.txt")
    assert catalog.open_dataset(str(dataset.path), tmp_path / "runs").dataset == dataset
    assert dataset.class_names == tiny_dataset.class_names


def test_the_error_for_the_folder_above_a_tfds_folder_names_it(tfds_folder, tmp_path):
    assert f"Use\n  --data {tfds_folder}" in _advice(tfds_folder.parent, tmp_path / "runs")


def test_the_error_for_any_other_path_lists_what_is_accepted(tmp_path):
    with pytest.raises(
        DatasetError, match="cifra10: found nothing there; expected `cifar10`, `shapes`, a dataset"
    ):
        catalog.open_dataset("cifra10", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="found a file"):
        catalog.open_dataset(str(tmp_path / "file"), tmp_path)
    with pytest.raises(DatasetError, match="found file; expected"):
        catalog.open_dataset(str(tmp_path), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="found an empty directory"):
        catalog.open_dataset(str(tmp_path / "empty"), tmp_path)


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        ("/data/Photos_of Birds", "photos-of-birds"),
        ("/tfds/cifar10/3.0.2", "cifar10-3-0-2"),
        ("/data/画像", "dataset"),
        ("/data/--x--", "x"),
        ("/data/" + "a" * 59 + "-b", "a" * 59),
    ],
)
def test_slug(path, slug):
    assert catalog.slug(Path(path)) == slug
