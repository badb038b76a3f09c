import pytest

from datasets import folders
from datasets.folders import Ignored


@pytest.fixture
def root(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("2.png", "10.PNG", "1.jpg"):
        (tmp_path / "cat" / name).touch()
    return tmp_path


def _names(folder, root, ignored=None) -> list[str]:
    return [str(path.relative_to(root)) for path in folders.list_images(folder, root, ignored or Ignored())]


def test_images_are_listed_in_a_fixed_order(root):
    (root / "cat/b").mkdir()
    (root / "cat/b/x.webp").touch()
    assert _names(root / "cat", root) == ["cat/1.jpg", "cat/10.PNG", "cat/2.png", "cat/b/x.webp"]


def test_other_files_are_counted_by_suffix(root):
    for name in ("notes.txt", "more.TXT", "Makefile", ".hidden.png", "photo"):
        (root / "cat" / name).write_bytes(b"x")
    (root / "cat/really_a_jpeg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(20))
    ignored = Ignored()
    assert "cat/really_a_jpeg" in _names(root / "cat", root, ignored)
    assert ignored.by_reason() == {
        "files that are no images, .txt": 2,
        "files that are no images, no suffix": 2,
        "hidden files and folders": 1,
    }


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found"])
def test_folders_of_storage_devices_are_left_out_and_listed(root, name):
    (root / "cat" / name / "1.jpg").mkdir(parents=True)
    (root / "cat" / name / "1.jpg/SYNOPHOTO_THUMB_M.jpg").touch()
    (root / name).mkdir()
    ignored = Ignored()
    assert len(_names(root / "cat", root, ignored)) == 3
    assert ignored.by_reason() == {"folders of storage devices and systems": [f"cat/{name}"]}
    assert folders.subfolders(root) == [root / "cat"]


def test_links_are_followed_but_not_in_circles(root):
    (root / "more").mkdir()
    (root / "more/3.png").touch()
    (root / "cat/linked").symlink_to(root / "more")
    (root / "cat/linked.png").symlink_to(root / "more/3.png")
    (root / "cat/circle").symlink_to(root)
    (root / "cat/gone.png").symlink_to(root / "nothing")
    ignored = Ignored()
    found = _names(root / "cat", root, ignored)
    assert found == ["cat/1.jpg", "cat/10.PNG", "cat/2.png", "cat/linked/3.png", "cat/linked.png"]
    assert ignored.loops == ["cat/circle"]
    assert ignored.broken == ["cat/gone.png"]


def test_what_lies_beside_the_class_folders_is_counted(root):
    for name in ("1.png", "labels.csv", ".DS_Store"):
        (root / name).touch()
    ignored = Ignored()
    folders.note_loose(root, root, ignored)
    assert ignored.by_reason() == {
        "files that are no images, .csv": 1,
        "hidden files and folders": 1,
        "images outside of class folders": 1,
    }


def test_only_two_levels_are_searched_for_images(root):
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/c/1.png").touch()
    assert folders.has_images(root / "cat")
    assert folders.has_images(root / "a/b")
    assert not folders.has_images(root / "a")
    assert folders.has_own_images(root / "cat")
    assert not folders.has_own_images(root)
