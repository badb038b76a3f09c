import shutil

import pytest

from components.example_gen import ingestion
from datasets import digest, directory
from datasets.directory import SPLITS


@pytest.fixture
def copy(tiny_dataset, tmp_path):
    """A dataset directory at a path with characters that patterns of paths are made of."""
    return shutil.copytree(tiny_dataset.path, tmp_path / "b [v1]*?" / "data {SPAN}")


@pytest.fixture
def ingest(copy, tmp_path):
    def ingest_(expected_digest=digest.ANY):
        folders = {split: str(tmp_path / "examples" / f"Split-{split}") for split in SPLITS}
        return ingestion.ingest(str(copy), folders, expected_digest)

    return ingest_


def _shard(dataset, split):
    (shard,) = (dataset / split).glob(directory.SHARD_PATTERN)
    return shard


def test_shards_are_copied_byte_by_byte_counted_and_digested(ingest, copy, tmp_path):
    found = ingest(digest.of_directory(copy))
    assert found.counts == {"train": 160, "val": 40, "test": 40}
    assert found.digest == digest.of_directory(copy)
    assert found.schema == (copy / directory.SCHEMA_FILE).read_bytes()
    for split in SPLITS:
        (written,) = (tmp_path / "examples" / f"Split-{split}").iterdir()
        assert written.read_bytes() == _shard(copy, split).read_bytes()
        assert written.suffix == ".tfrecord"  # readers take other suffixes for compressed files


@pytest.mark.parametrize(
    ("position", "expected"),
    [(20, "record 0 is damaged"), (-1, "record 39 is damaged"), (None, "record 39 is cut off")],
)
def test_a_damaged_record_is_named(ingest, copy, position, expected):
    shard = _shard(copy, "val")
    content = bytearray(shard.read_bytes())
    if position is None:
        del content[-1]
    else:
        content[position] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(directory.DatasetError, match=rf"val-00000-of-00001\.tfrecord: {expected}"):
        ingest()


def test_another_digest_than_the_expected_one_is_an_error(ingest, copy):
    with pytest.raises(directory.DatasetError, match=f"digest is 0123, found {digest.of_directory(copy)}"):
        ingest("0123")


@pytest.mark.parametrize(
    ("remove", "expected"),
    [
        ("schema.pbtxt", r"expected a dataset directory with schema\.pbtxt, found no .*schema\.pbtxt"),
        ("val", "expected a folder with TFRecord shards, found no .*/val"),
        ("test/test-00000-of-00001.tfrecord", r"expected TFRecord shards .*/test/\*\.tfrecord, found none"),
    ],
)
def test_an_incomplete_directory_is_an_error(ingest, copy, remove, expected):
    if (copy / remove).is_dir():
        shutil.rmtree(copy / remove)
    else:
        (copy / remove).unlink()
    with pytest.raises(directory.DatasetError, match=expected):
        ingest()


def test_a_split_without_examples_is_an_error(ingest, copy):
    _shard(copy, "test").write_bytes(b"")
    with pytest.raises(directory.DatasetError, match="expected at least one example in test/, found none"):
        ingest()
