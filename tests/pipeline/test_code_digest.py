"""Tests that the digest of a step covers all code that the step runs, and nothing else."""

import ast
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import code_digest
from pipeline.pipeline import ENTRY_MODULES

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's packages, which a test may change."""
    for package in code_digest.PACKAGES:
        shutil.copytree(
            REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    monkeypatch.setattr(code_digest, "_PROJECT", tmp_path)
    return tmp_path


def _file(project: Path, module: str) -> Path:
    path = project / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _all_modules(project: Path) -> set[str]:
    files = (file for package in code_digest.PACKAGES for file in (project / package).rglob("*.py"))
    return {
        ".".join(file.relative_to(project).with_suffix("").parts).removesuffix(".__init__") for file in files
    }


@pytest.mark.parametrize("step", ENTRY_MODULES)
def test_the_digest_of_a_step_changes_exactly_with_the_modules_of_the_step(project, step):
    entries = ENTRY_MODULES[step]
    before = code_digest.digest(*entries)
    closure = code_digest.closure(*entries)
    for module in _all_modules(project):
        file = _file(project, module)
        original = file.read_text()
        file.write_text(f"{original}\nCHANGED = True\n")
        assert (code_digest.digest(*entries) != before) == (module in closure), module
        file.write_text(original)


@pytest.mark.parametrize("step", ENTRY_MODULES)
def test_the_closure_contains_all_modules_that_python_loads(step):
    program = (
        f"import importlib, sys\nfor module in {ENTRY_MODULES[step]!r}: importlib.import_module(module)\n"
        f"print(*(name for name in sys.modules if name.partition('.')[0] in {code_digest.PACKAGES!r}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.splitlines()[-1].split())
    assert loaded
    assert loaded <= code_digest.closure(*ENTRY_MODULES[step])


@pytest.mark.parametrize(
    ("step", "module"),
    [
        ("Trainer", "models.networks.layers.mirror"),
        ("Trainer", "datasets.directory"),
        ("Trainer", "datasets.tfrecord"),
        ("Tuner", "models.training.loop"),
        ("Tuner", "datasets.directory"),
        ("Transform", "datasets.features"),
        ("Evaluator", "datasets.decoding"),
        ("Evaluator", "components.evaluator.tfma_metrics"),
        ("Evaluator", "models.reliability"),
        ("ModelReport", "components.data_gate.gate"),
        ("ModelReport", "components.evaluator.gates"),
        ("ServingCheck", "components.serving_check.client"),
        ("ServingCheck", "datasets.tfrecord"),
    ],
)
def test_the_closure_contains_modules_that_the_step_runs(step, module):
    assert module in code_digest.closure(*ENTRY_MODULES[step])


def test_steps_that_do_not_train_do_not_depend_on_training():
    for step in ("DataGate", "Transform", "Evaluator", "ModelReport", "ServingCheck"):
        closure = code_digest.closure(*ENTRY_MODULES[step])
        assert not [module for module in closure if module.startswith("models.training")], step


def test_comments_docstrings_and_descriptions_of_settings_do_not_change_digests(project):
    before = {step: code_digest.digest(*entries) for step, entries in ENTRY_MODULES.items()}
    for module in _all_modules(project):
        file = _file(project, module)
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body[0] = ast.Expr(ast.Constant("Another docstring."))
            if isinstance(node, ast.keyword) and node.arg == "description":
                node.value = ast.Constant("Another description.")
        file.write_text(f"# A comment.\n{ast.unparse(tree)}\n")
    assert {step: code_digest.digest(*entries) for step, entries in ENTRY_MODULES.items()} == before


def test_a_description_outside_of_settings_changes_the_digest(project):
    file = _file(project, "datasets.cifar10")
    before = code_digest.digest("datasets.cifar10")
    text = file.read_text()
    assert '"Converting CIFAR-10"' in text
    file.write_text(text.replace('"Converting CIFAR-10"', '"Writing CIFAR-10"'))
    assert code_digest.digest("datasets.cifar10") != before


@pytest.mark.parametrize("template", ["index.html.j2", "report.md.j2"])
def test_a_template_changes_only_the_digest_of_the_step_that_loads_it(project, template):
    before = {step: code_digest.digest(*entries) for step, entries in ENTRY_MODULES.items()}
    with (project / "components" / "model_report" / template).open("a") as file:
        file.write("one more line\n")
    changed = {
        step for step, entries in ENTRY_MODULES.items() if code_digest.digest(*entries) != before[step]
    }
    assert changed == {"ModelReport"}


def test_imports_within_functions_and_modules_named_in_strings_are_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(code_digest, "_PROJECT", tmp_path)
    models = tmp_path / "models"
    models.mkdir()
    files = {
        "__init__": "",
        "entry": "def run():\n    from models import inner\n    return 'models.named.function'\n",
        "inner": "import models.deepest\n",
        "deepest": "",
        "named": "",
        "other": "",
    }
    for name, text in files.items():
        (models / f"{name}.py").write_text(text)
    names = {"models", "models.entry", "models.inner", "models.deepest", "models.named"}
    assert code_digest.closure("models.entry") == names


def test_a_module_that_does_not_exist_is_an_error():
    with pytest.raises(FileNotFoundError):
        code_digest.digest("models.none")


SNIPPET = '''
"""A docstring."""
from typing import Annotated

Pair = tuple[int, str]
rows: dict[str, Pair] = {f"{name!r:>{3}} {'x'}": (1, b"a") for name in ["b", None]}


@decorator(1.5, key=...)
def function(a, /, b=None, *, c: int | None = 0, **d):
    with open(a) as x, open(b) as y:
        return lambda z: (x[1:, 2], *y, not z)
'''


def test_every_version_of_python_describes_code_in_the_same_way():
    described = code_digest._described(SNIPPET)
    assert hashlib.sha256(described.encode()).hexdigest() == (
        "f708c4fb6de6ae0d014a40c864fe5cd24faaedbaa3c767d719f8152f2f6c70da"
    )
