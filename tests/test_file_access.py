"""What runs in a step may find its files in a bucket: it opens them through TFX's fileio or `tf.io.gfile`."""

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
IN_STEPS = ("components", "models", "pipeline/evaluation.py", "pipeline/metrics.py", "pipeline/slices.py")
NOT_IN_STEPS = (REPOSITORY / "components/model_report/compare.py",)  # a command
# Whose methods may be called like those of a Path; images are opened from memory.
_FILE_ACCESS = ("fileio", "tf.io.gfile", "Image", "PIL.Image")
_PATH_METHODS = {
    *("open", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "unlink", "rename"),
    *("exists", "is_file", "is_dir", "iterdir", "glob", "rglob", "mkdir", "rmdir", "stat"),
}
_MODULES = ("os.", "shutil.", "glob.")
# Of the machine itself, or none of whose business it is where artifacts lie.
_HARMLESS = {"os.sched_getaffinity", "os.environ.get"}
# Where -> what is opened there: always a local file.
LOCAL = {
    "components/model_report/component.py ModelReport": "the temporary folder of the report",
    "components/model_report/report.py write": "the temporary folder of the report",
    "components/serving_check/check.py ask": "a request in a temporary folder",
    "components/serving_check/client.py main": "a request in a temporary folder",
    "models/environment.py _git": "whether the code is in a repository",
    "models/mobilenetv2.py _load": "the weights that `locate` found",
    "models/weights.py locate": "weights on this machine",
}


def _direct_access(file: Path) -> Iterator[tuple[str, int, str]]:
    """Yields where files are opened directly: the place as in LOCAL, the line, and the call."""
    for top in ast.parse(file.read_text()).body:
        for node in ast.walk(top):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            base, _, method = called.rpartition(".")
            opens = called == "open" or called.startswith(_MODULES)
            if base and base not in _FILE_ACCESS and method in _PATH_METHODS:
                opens = True
            if opens and called not in _HARMLESS:
                name = getattr(top, "name", "")
                yield f"{file.relative_to(REPOSITORY).as_posix()} {name}", node.lineno, called


def _files() -> Iterator[Path]:
    for name in IN_STEPS:
        path = REPOSITORY / name
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        yield from (file for file in files if file not in NOT_IN_STEPS)


def test_what_runs_in_a_step_opens_no_file_directly():
    found = {
        (place, line, call)
        for file in _files()
        for place, line, call in _direct_access(file)
        if place not in LOCAL
    }
    assert not found


def test_every_exception_is_needed():
    assert LOCAL.keys() == {place for file in _files() for place, _, _ in _direct_access(file)} & LOCAL.keys()


def test_direct_access_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.REPOSITORY", tmp_path)
    source = tmp_path / "step.py"
    source.write_text(
        "def run(path):\n"
        "    open(path)\n"
        "    Path(path).read_text()\n"
        "    os.makedirs(path)\n"
        "    fileio.open(path)\n"
        "    tf.io.gfile.exists(path)\n"
    )
    assert [line for _, line, _ in _direct_access(source)] == [2, 3, 4]
