import hashlib
import os
import shutil
import subprocess

import pytest

from datasets import digest, directory


@pytest.fixture
def copy(tiny_dataset, tmp_path):
    return shutil.copytree(tiny_dataset.path, tmp_path / "copy")


def test_it_does_not_depend_on_the_place_the_times_or_other_files(tiny_dataset, copy):
    os.utime(copy / directory.SCHEMA_FILE, (1, 1))
    (copy / "README").write_text("notes")
    assert digest.of_directory(copy) == digest.of_directory(tiny_dataset.path)


def test_it_is_that_of_sha256sum(copy):
    command = (
        f"sha256sum */*.tfrecord {directory.LABELS_FILE} {directory.SCHEMA_FILE} | sort -k 2 | sha256sum"
    )
    listed = subprocess.run(
        command, shell=True, cwd=copy, capture_output=True, text=True, check=True, env={"LC_ALL": "C"}
    )
    assert digest.of_directory(copy) == listed.stdout.split()[0]


@pytest.mark.parametrize(
    "file", ["val/val-00000-of-00001.tfrecord", directory.SCHEMA_FILE, directory.LABELS_FILE]
)
def test_any_changed_byte_changes_it_even_if_size_and_time_are_the_same(copy, file):
    before = digest.of_directory(copy)
    times = (copy / file).stat()
    content = bytearray((copy / file).read_bytes())
    content[-1] ^= 1
    (copy / file).write_bytes(content)
    os.utime(copy / file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest.of_directory(copy) != before


def test_exchanged_files_change_it():
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"1", b"2"))
    assert digest.combine({"a": one, "b": two}) == digest.combine({"b": two, "a": one})
    assert digest.combine({"a": one, "b": two}) != digest.combine({"a": two, "b": one})


def test_a_directory_that_cannot_be_written_is_read_and_every_byte_is_reported(copy):
    for path in (*copy.rglob("*"), copy):
        path.chmod(0o555 if path.is_dir() else 0o444)
    read = []
    digest.of_directory(copy, read.append)
    assert sum(read) == sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())


def test_a_missing_shard_is_an_error(copy):
    (copy / "val" / "val-00000-of-00001.tfrecord").rename(copy / "val" / "val-00000-of-00002.tfrecord")
    with pytest.raises(directory.DatasetError, match="expected 2 shards, as their names say, found 1"):
        digest.of_directory(copy)
