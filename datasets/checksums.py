"""Checksums of the files of artifacts, by which a later look notices that they have changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Checksum:
    """The content of a folder or file.

    Attributes:
      sha256: SHA-256, in hexadecimal, of the names and the content of all files.
      files: number of files.
      size: bytes of all files.
    """

    sha256: str
    files: int
    size: int


def of_folder(place: Path) -> Checksum:
    """Computes the checksum of a folder or of a single file; a place where nothing is has no files.

    The SHA-256 is that of a list of the files, each with its own SHA-256, in the format of `sha256sum`.

    Raises:
      OSError: a file cannot be read.
    """
    whole = hashlib.sha256()
    files = list_files(place)
    size = 0
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as opened:
            while block := opened.read(1 << 22):
                digest.update(block)
                size += len(block)
        whole.update(f"{digest.hexdigest()}  {file.relative_to(place).as_posix()}\n".encode())
    return Checksum(whole.hexdigest(), len(files), size)


def list_files(place: Path) -> list[Path]:
    """Lists the files below a folder, sorted by name; a single file is its own list."""
    if place.is_file():
        return [place]
    return sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else []


def size_of(*places: Path) -> int:
    """Returns the bytes of the files below folders; a file with several names (hard links) counts once."""
    found = [file.stat() for place in places for file in list_files(place)]
    return sum({(each.st_dev, each.st_ino): each.st_size for each in found}.values())
