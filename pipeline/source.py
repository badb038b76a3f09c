"""Digests of this project's own code, for the cache and for the tag of the container image.

TFX decides by inputs and parameters whether a step may be answered from the cache; code that is named
by dotted path is neither, so its digest is handed to the step as a parameter.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_PROJECT = Path(__file__).resolve().parent.parent

# What the Dockerfile copies of this project, and what else the image depends on.
IMAGE_CODE = ("components", "datasets", "models", "pipeline")
_IMAGE_RECIPE = ("Dockerfile", "pyproject.toml", "uv.lock")
_TAG_LENGTH = 12


def digest(*packages: str) -> str:
    """Returns a SHA-256, in hexadecimal, of all files of packages or modules of this project."""
    sha = hashlib.sha256()
    for package in packages:
        path = _PROJECT / package
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" not in file.parts:
                sha.update(f"{file.relative_to(_PROJECT).as_posix()}\0".encode())
                sha.update(file.read_bytes() + b"\0")
    return sha.hexdigest()


def image_tag() -> str:
    """Returns a tag for the container image that changes with its content.

    Vertex and Kubeflow take a step from the cache when image, command and inputs are the same: code that
    has changed under an old tag would not run.
    """
    return digest(*IMAGE_CODE, *_IMAGE_RECIPE)[:_TAG_LENGTH]
