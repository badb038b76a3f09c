"""Digests of this project's own code, for the cache.

TFX decides by inputs and parameters whether a step may be answered from the cache; code that is named
by dotted path is neither, so its digest is handed to the step as a parameter.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_PROJECT = Path(__file__).resolve().parent.parent


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
