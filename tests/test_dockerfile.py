import re
from importlib import metadata
from pathlib import Path

from pipeline import code_digest

REPOSITORY = Path(__file__).resolve().parents[1]


def _lines(name):
    return (REPOSITORY / name).read_text().splitlines()


def test_the_image_contains_the_files_that_determine_its_tag():
    copied = [line.split() for line in _lines("Dockerfile") if line.startswith("COPY")]
    code = [(src, to) for _, src, to in (words for words in copied if len(words) == 3)]
    assert code == [(name, f"/opt/pipeline/{name}") for name in code_digest.PACKAGES]
    assert ["COPY", "pyproject.toml", "uv.lock", "./"] in copied
    sent = {line.removeprefix("!") for line in _lines(".dockerignore") if line.startswith("!")}
    assert sent == {*code_digest.PACKAGES, "pyproject.toml", "uv.lock"}


def test_the_image_has_the_locked_versions_of_beam_and_python():
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    (python, beam) = re.search(r"^FROM apache/beam_python(\S+)_sdk:(\S+) AS beam$", dockerfile, re.M).groups()
    locked = re.findall(
        r'^name = "apache-beam"\nversion = "(.*)"$', (REPOSITORY / "uv.lock").read_text(), re.M
    )
    # The lock file has a version for Python 3.10, and a newer one for the Pythons of the image.
    assert beam == max(locked, key=lambda version: [int(part) for part in version.split(".")])
    assert metadata.version("apache-beam") in locked
    assert set(re.findall(r"^FROM python:(\d+\.\d+)-", dockerfile, re.M)) == {python}
    assert python in ("3.11", "3.12", "3.13")


def test_the_image_can_start_beam_workers():
    lines = _lines("Dockerfile")
    assert "COPY --from=beam /opt/apache/beam /opt/apache/beam" in lines
    assert 'ENTRYPOINT ["/opt/apache/beam/boot"]' in lines
    assert any("RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1" in line for line in lines)
    # Beam's `boot` calls pip to find out whether Beam is installed.
    assert any("uv sync" in line and "--group image" in line for line in lines)
    assert re.search(r'^image = \["pip', (REPOSITORY / "pyproject.toml").read_text(), re.M)


def test_the_tag_changes_with_the_code_and_with_the_locked_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(code_digest, "_PROJECT", tmp_path)
    for name in code_digest.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.py").write_text("x = 1\n")
    for name in ("Dockerfile", "pyproject.toml", "uv.lock", "README.md"):
        (tmp_path / name).write_text("")
    first = code_digest.image_tag()
    (tmp_path / "README.md").write_text("more\n")
    assert code_digest.image_tag() == first
    (tmp_path / "uv.lock").write_text("newer\n")
    second = code_digest.image_tag()
    (tmp_path / "models" / "code.py").write_text("x = 2\n")
    assert len({first, second, code_digest.image_tag()}) == 3
