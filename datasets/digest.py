"""Digests of the content of dataset directories, by which the pipeline notices changed data.

The digest is the SHA-256 of a list of the files, each with its own SHA-256, in the format of `sha256sum`. It
does not depend on where the directory is or on the times of its files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datasets import directory

# Stands for the digest of any data where a digest is expected.
ANY = "any"

# Bytes that each thread reads at a time. A large block lets the threads compute at the same time.
_BLOCK_BYTES = 4 * 2**20


def of_directory(path: Path, advance: Callable[[int], None] = lambda count: None) -> str:
    """Computes the digest of a dataset directory, of which only a few megabytes are in memory at a time.

    Args:
      path: the dataset directory; nothing is written to it.
      advance: called from several threads with the number of bytes read since the last call.

    Returns:
      The digest, in hexadecimal.

    Raises:
      DatasetError: a split has no shards, or not as many as the names of its shards say.
      OSError: a file cannot be read.
    """
    paths = files(path)
    # hashlib and the file system work outside of Python's global lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(lambda file: _sha256(file, advance), paths)
        names = (file.relative_to(path).as_posix() for file in paths)
        return combine(dict(zip(names, digests, strict=True)))


def files(path: Path) -> list[Path]:
    """Lists the files that belong to a dataset directory; others in it do not change its digest.

    Raises:
      DatasetError: a split has no shards, or not as many as the names of its shards say.
    """
    shards = [shard for split in directory.SPLITS for shard in directory.find_shards(path / split)]
    return [path / directory.SCHEMA_FILE, path / directory.LABELS_FILE, *shards]


def combine(digests: Mapping[str, str]) -> str:
    """Returns the digest of a dataset directory.

    Args:
      digests: path of each file, relative to the directory -> the SHA-256 of its content, in hexadecimal.
    """
    lines = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: Path, advance: Callable[[int], None]) -> str:
    sha = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            sha.update(block)
            advance(len(block))
    return sha.hexdigest()
