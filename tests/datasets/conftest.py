"""Fixtures shared by the tests of the dataset writers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from datasets import tfrecord

Examples = dict[str, tuple[bytes, int]]


@pytest.fixture
def read_split() -> Callable[[Path, str], Examples]:
    """Returns a function that reads a split of a dataset directory as id -> (image, label)."""

    def read(path: Path, split: str) -> Examples:
        examples: Examples = {}
        for shard in sorted((path / split).glob("*.tfrecord")):
            for record in tfrecord.read(shard):
                example = tfrecord.decode_example(record)
                (image,), (label,), (identity,) = example["image"], example["label"], example["id"]
                assert identity.decode() not in examples
                examples[identity.decode()] = image, label
        return examples

    return read


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Returns a function that reads all files of a directory as relative path -> bytes."""

    def read(path: Path) -> dict[str, bytes]:
        return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}

    return read
