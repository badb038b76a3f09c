"""Checks that code of the steps opens files only through TFX's fileio or `tf.io.gfile`, which reach buckets.

tests/end_to_end/test_bucket.py runs the steps on such a file system. The tests here analyse the source code
of all steps, including branches that a run seldom takes.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.code_digest import PACKAGES

REPOSITORY = Path(__file__).resolve().parents[1]
# Modules that TFX or Beam loads in a step; the modules that they import run there, too.
ENTRY_POINTS = (
    "components.data_gate.component",
    "components.evaluator.component",
    "components.evaluator.slices",
    "components.evaluator.tfma_metrics",
    "components.example_gen.component",
    "components.model_report.component",
    "components.pusher.executor",
    "components.serving_check.client",
    "components.serving_check.component",
    "components.tuner.component",
    "models.preprocessing",
    "models.trainer",
    "models.tuner",
    "pipeline.baseline",
    "pipeline.kubeflow.container_entrypoint",
)
# Modules for local files -> the names in them that steps may use, which open no files.
NOT_FOR_STEPS = {
    # Steps use it for folders on their machine only.
    "datasets.atomic_directory": {"create", "write_through"},
    "datasets.digest": {"ANY", "combine"},
    "datasets.directory": {
        *("SCHEMA_FILE", "LABELS_FILE", "SHARD_PATTERN", "SPLITS"),
        *("DatasetError", "check_shards", "class_names", "parse_schema"),
    },
    "datasets.tfrecord": {"RecordError", "kinds", "parse"},
}
# Functions that access a file by its path, with their modules.
_FUNCTIONS = re.compile(
    r"open|io\.open|codecs\.open|gzip\..*|bz2\..*|lzma\..*|zipfile\..*|tarfile\..*|shutil\..*|glob\..*"
    r"|os\.(?!environ\.get$|sched_getaffinity$|path\.(join|basename|dirname|splitext)$).*"
    r"|sqlite3\..*|shelve\..*|dbm\..*|logging\.FileHandler|logging\.handlers\..*|h5py\.File"
    r"|numpy\.(save.*|load.*|genfromtxt|fromfile|memmap|DataSource)|pandas\.(read_.*|ExcelWriter|HDFStore)"
    r"|pyarrow\.(parquet|csv|feather|orc|json|dataset|fs)\..*|pyarrow\.(OSFile|memory_map|output_stream)"
    r"|PIL\.Image\.open|PIL\.ImageFont\..*|matplotlib\.pyplot\.(savefig|imread|imsave)|matplotlib\.image\..*"
    r"|scipy\.io\..*|joblib\.(dump|load)|jinja2\.(FileSystem|Package|Module)Loader"
    r"|keras\.(models|saving)\.(save|load).*"
)
# Names of methods that access a file by its path, on objects of any type.
_METHODS = re.compile(
    r"open|(read|write)_(text|bytes|table)|touch|unlink|rename|exists|is_file|is_dir|iterdir|r?glob"
    r"|mkdir|rmdir|stat|symlink_to|hardlink_to|chmod|tofile|dump|savefig|save|save_weights|load_weights"
    r"|to_(csv|excel|feather|hdf|html|json|latex|markdown|orc|parquet|pickle|stata|xml)"
)
# Functions that may open files in a step; their names can look like those of _METHODS.
_ALLOWED = re.compile(r"tfx\.dsl\.io\.fileio\..*|tensorflow\.(io|saved_model)\..*")
# File and top-level name with direct access -> what it accesses: a file that is always local, or no file.
LOCAL = {
    "components/pusher/destinations.py ": "the text of an error number",
    "components/pusher/destinations.py _Folder": "a folder on this machine or a mounted volume",
    "components/pusher/destinations.py _describe_full_disk": "the disk of that folder",
    "components/data_gate/pictures.py _thumbnail": "bytes in memory",
    "components/data_gate/pictures.py describe": "a value, not a file",
    "components/evaluator/robustness.py read": "bytes in memory",
    "components/evaluator/robustness.py write": "bytes in memory",
    "components/model_report/component.py ModelReport": "the temporary folder of the report",
    "components/model_report/images.py _data_uri": "bytes in memory",
    "datasets/checksums.py list_files": "artifacts on this machine; those of buckets have no checksum",
    "datasets/checksums.py of_folder": "the same",
    "datasets/checksums.py size_of": "the same",
    "datasets/decoding.py count_pixels": "bytes in memory",
    "datasets/decoding.py decode": "bytes in memory",
    "datasets/decoding.py identify": "bytes in memory",
    "datasets/duplicates.py Findings": "a value, not a file",
    "components/model_report/page.py _environment": "the templates beside the code",
    "components/model_report/predictions.py read": "predictions on this machine; only `compare` calls it",
    "components/model_report/predictions.py write": "the temporary folder of the report",
    "components/model_report/report.py write": "the temporary folder of the report",
    "components/model_report/review.py read_parts": "the style and script beside the code",
    "components/serving_check/check.py _run_client": "a pipe to the process of the client",
    "components/serving_check/check.py ask": "a request in a temporary folder",
    "components/serving_check/client.py _end_with_parent": "that pipe",
    "components/serving_check/client.py _peak_memory_mb": "the kernel's description of the process",
    "components/serving_check/client.py main": "a request in a temporary folder",
    "components/serving_check/formats/conversion.py _write_onnx": "the temporary folder of `writing.write`",
    "components/serving_check/formats/conversion.py _write_tflite": "the same folder",
    "components/serving_check/formats/conversion.py _write_tflite_int8": "the same folder",
    "components/serving_check/formats/program.py main": "the same folder",
    "components/serving_check/formats/writing.py _run": "the same folder",
    "components/serving_check/pushed_model.py _link_or_copy": "links folders on this machine only",
    "components/serving_check/reference.py write": "a buffer in memory",
    "models/corruptions.py jpeg": "bytes in memory",
    "models/training/atomic_write.py replace": "a file on this machine; TensorFlow writes those of buckets",
    "models/training/checkpoint.py _parse": "bytes in memory",
    "models/training/checkpoint.py Checkpoint": "bytes in memory",
    "models/training/environment.py _git": "the Git repository of the code",
    "models/data/images.py _reserve": "a temporary file",
    "models/data/images.py Images": "files in a temporary folder, for processes of the Tuner",
    "models/data/images.py collect": "a temporary file",
    "models/networks/pretrained.py _load": "pretrained weights on this machine",
    "models/search/results.py read": "bytes in memory",
    "models/search/results.py write": "a buffer in memory",
    "models/search/parallel.py Workers": "values, not files",
    "models/search/worker.py _read": "the process itself",
    "models/search/worker.py serve": "pipes to the process of the Tuner",
    "models/tuner.py Search": "`SearchOracle.save`, which writes through `atomic_write`",
    "models/tuner.py create": "a value, not a file",
    "models/training/monitor.py Monitor": "`Run.save`, which writes through TensorFlow",
    "models/training/run.py Run": "`Checkpoint.save`, which writes through TensorFlow",
    "models/training/precision.py resolve": "the kernel's description of the CPU",
    "models/networks/weights.py check": "pretrained weights on this machine",
    "models/networks/weights.py cached": "pretrained weights on this machine",
    "models/networks/weights.py find": "pretrained weights on this machine",
    **{
        f"pipeline/code_digest.py {name}": "the code of the steps"
        for name in ("_named_modules", "_path", "_templates", "_text", "digest", "image_tag")
    },
    "pipeline/kubeflow/local_copies.py restore": "the step's report to Kubeflow's launcher on this machine",
    "pipeline/kubeflow/local_copies.py use": "local copies of artifacts",
}


def _path(module: str) -> Path | None:
    """Returns the file of a module of this project; None for other modules."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    path = REPOSITORY / module.replace(".", "/")
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((each for each in candidates if each.is_file()), None)


def _imports(tree: ast.AST) -> dict[str, str]:
    """Returns imported name -> its full dotted name; includes imports within functions."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _files() -> set[Path]:
    """Returns the source files of all code that runs in a step."""
    found: set[Path] = set()
    waiting = list(ENTRY_POINTS)
    while waiting:
        module = waiting.pop()
        path = _path(module)
        if path and path not in found and module not in NOT_FOR_STEPS:
            found.add(path)
            imported = _imports(ast.parse(path.read_text())).values()
            # In `from package import name`, the name is a module or something in a module.
            waiting += [each for name in imported for each in (name, name.rpartition(".")[0])]
    return found


def _direct_access(file: Path) -> Iterator[tuple[str, int, str]]:
    """Yields each direct access to a file: its place as in LOCAL, its line, and the called function."""
    tree = ast.parse(file.read_text())
    names = _imports(tree)
    for top in tree.body:
        for node in ast.walk(top):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            first, dot, rest = called.partition(".")
            resolved = names.get(first, first) + dot + rest
            if _ALLOWED.fullmatch(resolved):
                continue
            is_method = isinstance(node.func, ast.Attribute)
            if _FUNCTIONS.fullmatch(resolved) or (is_method and _METHODS.fullmatch(node.func.attr)):
                yield (
                    f"{file.relative_to(REPOSITORY).as_posix()} {getattr(top, 'name', '')}",
                    node.lineno,
                    called,
                )


def test_code_of_the_steps_does_not_open_files_directly():
    found = {access for file in _files() for access in _direct_access(file) if access[0] not in LOCAL}
    assert not found


def test_every_exception_in_local_is_needed():
    assert LOCAL.keys() == {place for file in _files() for place, _, _ in _direct_access(file)} & LOCAL.keys()


def test_imported_modules_are_analysed_too():
    analysed = {file.relative_to(REPOSITORY).as_posix() for file in _files()}
    assert {
        "components/artifacts.py",
        "components/model_report/images.py",
        "models/data/images.py",
        "components/evaluator/gates.py",
    } <= analysed
    assert (
        not {"components/model_report/compare.py", "datasets/cifar10.py", "pipeline/local/runner.py"}
        & analysed
    )


def test_steps_use_only_the_allowed_names_of_modules_for_local_files():
    used: dict[str, set[str]] = {module: set() for module in NOT_FOR_STEPS}
    for file in _files():
        tree = ast.parse(file.read_text())
        names = _imports(tree)
        dotted = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        resolved = {names.get(each.partition(".")[0], "") + "." + each.partition(".")[2] for each in dotted}
        for name in resolved | {f"{name}." for name in names.values()}:
            for module in NOT_FOR_STEPS:
                if name.startswith(f"{module}."):
                    used[module].add(name.removeprefix(f"{module}.").partition(".")[0])
    for module, names_used in used.items():
        assert names_used - {""} <= NOT_FOR_STEPS[module]
        assert names_used


@pytest.mark.parametrize(
    ("line", "is_direct"),
    [
        ("open(path)", True),
        ("io.open(path)", True),
        ("Path(path).read_text()", True),
        ("path.write_bytes(b'')", True),
        ("(folder / name).exists()", True),
        ("os.makedirs(path)", True),
        ("os.path.exists(path)", True),
        ("remove(path)", True),
        ("shutil.copy(path, other)", True),
        ("copytree(path, other)", True),
        ("np.save(path, array)", True),
        ("np.savez_compressed(path, array)", True),
        ("numpy.load(path)", True),
        ("array.tofile(path)", True),
        ("parquet.write_table(table, path)", True),
        ("pq.read_table(path)", True),
        ("pq.ParquetFile(path)", True),
        ("pd.read_csv(path)", True),
        ("frame.to_parquet(path)", True),
        ("image.save(path)", True),
        ("Image.open(path)", True),
        ("PIL.Image.open(path)", True),
        ("figure.savefig(path)", True),
        ("plt.savefig(path)", True),
        ("jinja2.FileSystemLoader(path)", True),
        ("FileSystemLoader(path)", True),
        ("gzip.open(path)", True),
        ("h5py.File(path)", True),
        ("model.save_weights(path)", True),
        ("keras.models.load_model(path)", True),
        ("fileio.open(path)", False),
        ("fileio.exists(path)", False),
        ("tf.io.gfile.exists(path)", False),
        ("tf.io.gfile.GFile(path)", False),
        ("tf.saved_model.save(model, path)", False),
        ("tempfile.TemporaryDirectory()", False),
        ("os.path.join(path, name)", False),
        ("np.asarray(values)", False),
    ],
)
def test_direct_access_is_found(line, is_direct, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.REPOSITORY", tmp_path)
    step = tmp_path / "step.py"
    step.write_text(
        "import gzip, h5py, io, jinja2, keras, numpy, os, PIL.Image, shutil, tempfile\n"
        "import matplotlib.pyplot as plt, numpy as np, pandas as pd, pyarrow.parquet as pq\n"
        "import tensorflow as tf\n"
        "from jinja2 import FileSystemLoader\n"
        "from os import remove\n"
        "from PIL import Image\n"
        "from pyarrow import parquet\n"
        "from shutil import copytree\n"
        "from tfx.dsl.io import fileio\n"
        f"def run(path):\n    {line}\n"
    )
    assert list(_direct_access(step)) == ([("step.py run", 11, line.rpartition("(")[0])] if is_direct else [])
