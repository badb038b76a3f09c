"""Digests of this project's own code, for the cache and for the tag of the container image.

TFX answers a step from the cache when its inputs and parameters are the same. The code of a step is neither,
so each step gets a digest of its code as a parameter.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).resolve().parent.parent

# Folders of this project that the Dockerfile copies into the image.
PACKAGES = ("components", "datasets", "models", "pipeline", "settings")
# Other files that the content of the image depends on.
_IMAGE_RECIPE = ("Dockerfile", "pyproject.toml", "uv.lock")
_TAG_LENGTH = 12  # hexadecimal digits, also of the digest of one module


def digest(*entries: str) -> str:
    """Returns a SHA-256, in hexadecimal, of the code that a step runs.

    It covers the modules of `closure` and the templates that they name. Comments, docstrings and the
    descriptions of settings do not change it, since they do not change what a step computes.

    Args:
      entries: dotted names of the modules that TFX loads for the step.
    """
    sha = hashlib.sha256()
    for module in sorted(closure(*entries)):
        sha.update(f"{module}\0{_code(_path(module))}\0".encode())
        for template in _templates(_path(module)):
            sha.update(f"{template.name}\0".encode() + template.read_bytes() + b"\0")
    return sha.hexdigest()


def of_modules(*entries: str) -> dict[str, str]:
    """Returns the beginning of the SHA-256 of each module of `closure`, by its dotted name."""
    return {
        module: hashlib.sha256(_code(_path(module)).encode()).hexdigest()[:_TAG_LENGTH]
        for module in sorted(closure(*entries))
    }


def closure(*entries: str) -> set[str]:
    """Returns the modules of this project that are loaded when some of its modules run.

    The search follows imports, including those within functions, and strings that name a module or something
    in a module, such as `models.trainer.run_fn`. The packages around a module are included, since importing
    the module runs their `__init__`.

    Args:
      entries: dotted names of modules.

    Raises:
      FileNotFoundError: a name in `entries` is not a module of this project.
    """
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            parent = module.rpartition(".")[0]
            waiting += [*_named_modules(_path(module)), *([parent] if parent else [])]
    return found


def image_tag() -> str:
    """Returns a tag for the container image that changes with the image's content.

    Vertex and Kubeflow answer a step from their caches when image, command and inputs are the same. If the
    tag stayed the same, they would not run changed code.
    """
    sha = hashlib.sha256()
    for name in (*PACKAGES, *_IMAGE_RECIPE):
        path = _PROJECT / name
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" not in file.parts:
                sha.update(f"{file.relative_to(_PROJECT).as_posix()}\0".encode())
                sha.update(file.read_bytes() + b"\0")
    return sha.hexdigest()[:_TAG_LENGTH]


def _path(module: str) -> Path:
    path = _PROJECT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _named_modules(file: Path) -> Iterator[str]:
    """Yields the modules of this project that a file imports or names in a string."""
    for name in _names(_text(file)):
        parts = name.split(".")
        if parts[0] in PACKAGES and all(map(str.isidentifier, parts)) and _path(name).is_file():
            yield name


@functools.cache
def _names(text: str) -> list[str]:
    """Returns what may be modules in the text of a module: the imported names, and the strings."""
    names: list[str] = []
    for node in ast.walk(_parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # In `from package import name`, the name is a module or something within the package.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    for value in _strings(text):
        names += [value, value.rpartition(".")[0]]
    return names


@functools.cache
def _strings(text: str) -> set[str]:
    """Returns the strings in the text of a module."""
    constants = (node.value for node in ast.walk(_parse(text)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def _templates(file: Path) -> list[Path]:
    """Returns the files beside a module that it names in a string."""
    strings = _strings(_text(file))
    named = (path for path in file.parent.iterdir() if path.name in strings and path.suffix != ".py")
    return sorted(path for path in named if path.is_file())


def _code(file: Path) -> str:
    return _described(_text(file))


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


# The digests of all steps read most modules several times; each text is parsed and searched once only.
@functools.cache
def _described(text: str) -> str:
    return repr(_describe(_parse(text)))


def _describe(node: Any) -> Any:
    """Describes a syntax tree in the same way under every version of Python; `ast.dump` and `unparse` do not.

    Newer versions have more fields, which are empty where the code does not use them, and Python 3.12 adds an
    empty text to some f-strings.
    """
    if isinstance(node, ast.JoinedStr):
        node.values = [each for each in node.values if getattr(each, "value", None) != ""]
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return (type(node).__name__, *((name, _describe(value)) for name, value in fields))
    return [_describe(each) for each in node] if isinstance(node, list) else node


@functools.cache
def _parse(text: str) -> ast.Module:
    """Parses a module without its docstrings and its descriptions of settings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body[0] = ast.Pass()
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
    return tree
