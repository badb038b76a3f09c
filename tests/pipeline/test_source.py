import pytest

from pipeline import source


def test_a_digest_follows_content_and_name(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_PROJECT", tmp_path)
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("x = 1\n")
    first = source.digest("package")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    assert source.digest("package") == first
    (package / "a.py").write_text("x = 2\n")
    second = source.digest("package")
    (package / "a.py").rename(package / "b.py")
    assert len({first, second, source.digest("package")}) == 3


def test_a_misspelt_path_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_PROJECT", tmp_path)
    with pytest.raises(FileNotFoundError):
        source.digest("none.py")
