"""Tests with Beam's direct runner, on local paths and on a file system with URIs."""

import io
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from datasets import image_folder, remote
from datasets.directory import DatasetError
from pipeline import import_images
from settings.pipeline import PipelineConfig
from tests.fake_store import FakeStore

assert FakeStore.scheme() == "fake"  # Beam finds the class when it is imported


@pytest.fixture
def src(tmp_path):
    for number, name in enumerate(("train/cat", "train/dog", "Testing/cat", "Testing/dog")):
        (tmp_path / "src" / name).mkdir(parents=True)
        for i in range(12):
            encoded = io.BytesIO()
            pixels = np.random.default_rng([number, i]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(encoded, ("PNG", "BMP")[i % 2])
            (tmp_path / f"src/{name}/{i:02d}.{('png', 'bmp')[i % 2]}").write_bytes(encoded.getvalue())
    return tmp_path / "src"


def _contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("scheme", ["", "fake:/"])
def test_beam_writes_the_same_bytes_as_one_machine(src, tmp_path, capsys, scheme):
    (src / "train/cat/notes.txt").touch()
    (src / "train/@eaDir").mkdir()
    (src / "train/@eaDir/1.png").touch()
    image_folder.convert(src, tmp_path / "one")
    import_images.convert(f"{scheme}{src}", f"{scheme}{tmp_path}/beam", PipelineConfig())
    assert _contents(tmp_path / "beam") == _contents(tmp_path / "one")
    assert {p.name for p in tmp_path.iterdir() if p.is_dir() and any(p.rglob("*.*"))} == {
        "src",
        "one",
        "beam",
    }
    printed = capsys.readouterr().out
    assert "24 BMP converted to PNG" in printed
    assert "files that are no images, .txt: 1" in printed
    assert "hidden files and folders of storage devices: 1" in printed


def test_nothing_is_left_after_an_error(src, tmp_path):
    (src / "train/cat/bad.png").write_bytes(b"text")
    with pytest.raises(
        DatasetError, match=r"1 of 49 images cannot be used.*\n  train/cat/bad\.png: not an image"
    ):
        import_images.convert(str(src), str(tmp_path / "beam"), PipelineConfig())
    assert [p.name for p in tmp_path.iterdir()] == ["src"]
    import_images.convert(str(src), str(tmp_path / "beam"), PipelineConfig(), skip_bad=True)
    with pytest.raises(DatasetError, match="beam exists and is not an empty directory"):
        import_images.convert(str(src), str(tmp_path / "beam"), PipelineConfig())


def test_a_failed_shard_removes_the_dataset(tmp_path):
    with pytest.raises(RuntimeError), remote.stage(str(tmp_path / "out"), ["a", "b"]):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/x").touch()
        raise RuntimeError
    assert not (tmp_path / "out").exists()


def test_other_layouts_are_refused(src):
    with pytest.raises(DatasetError, match="found no files"):
        import_images.list_images(str(src / "nothing"))
    shutil.move(src / "train/dog", src / "dog")
    with pytest.raises(DatasetError, match="found Testing, dog, train"):
        import_images.list_images(str(src))


def test_class_folders_without_splits(src):
    names, items, ignored = import_images.list_images(str(src / "train"))
    assert names == ["cat", "dog"]
    assert {item.split for item in items} == {""}
    assert (items[0].id, items[-1].id) == ("cat/00.png", "dog/11.bmp")
    assert ignored == {}
