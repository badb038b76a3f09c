from pathlib import Path

from pipeline import source

REPOSITORY = Path(__file__).resolve().parents[1]


def _lines(name):
    return (REPOSITORY / name).read_text().splitlines()


def test_the_image_holds_what_its_tag_is_made_of():
    copied = [line.split() for line in _lines("Dockerfile") if line.startswith("COPY")]
    code = [(src, to) for _, src, to in (words for words in copied if len(words) == 3)]
    assert code == [(name, f"/opt/pipeline/{name}") for name in source.IMAGE_CODE]
    assert ["COPY", "pyproject.toml", "uv.lock", "./"] in copied
    sent = {line.removeprefix("!") for line in _lines(".dockerignore") if line.startswith("!")}
    assert sent == {*source.IMAGE_CODE, "pyproject.toml", "uv.lock"}


def test_the_tag_follows_the_code_and_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_PROJECT", tmp_path)
    for name in source.IMAGE_CODE:
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.py").write_text("x = 1\n")
    for name in ("Dockerfile", "pyproject.toml", "uv.lock", "README.md"):
        (tmp_path / name).write_text("")
    first = source.image_tag()
    (tmp_path / "README.md").write_text("more\n")
    assert source.image_tag() == first
    (tmp_path / "uv.lock").write_text("newer\n")
    second = source.image_tag()
    (tmp_path / "models" / "code.py").write_text("x = 2\n")
    assert len({first, second, source.image_tag()}) == 3
