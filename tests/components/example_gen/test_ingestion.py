import shutil

import pytest
import tensorflow as tf

from components.example_gen import ingestion
from datasets import digest, directory, tfrecord
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


def _append(shard, data):
    with shard.open("ab") as file:
        tfrecord.write(file, data)


def _example(**features):
    example = tf.train.Example()
    for name, (kind, value) in features.items():
        getattr(example.features.feature[name], f"{kind}_list").value.append(value)
    return example.SerializeToString()


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"\xff\xff no example", r"not a tf\.train\.Example"),
        (
            _example(image=("bytes", b"a"), label=("float", 1.0)),
            "expected int64 in 'label', as the schema says, found float",
        ),
        (
            _example(image=("int64", 3), label=("int64", 1)),
            "expected bytes in 'image', as the schema says, found int64",
        ),
    ],
    ids=["no example", "a label that is a float", "an image that is an integer"],
)
def test_a_record_that_no_step_could_read_is_named(ingest, copy, record, expected):
    _append(_shard(copy, "val"), record)
    with pytest.raises(directory.DatasetError, match=rf"val-00000-of-00001\.tfrecord: record 40: {expected}"):
        ingest()


def test_a_value_that_is_missing_or_out_of_range_is_left_to_the_validation(ingest, copy):
    _append(_shard(copy, "val"), _example(label=("int64", 99), weight=("float", 1.0)))
    assert ingest().counts["val"] == 41


def test_a_schema_that_is_none_is_named(ingest, copy):
    for content in (b"feature {", b"\xff\xfe"):
        (copy / directory.SCHEMA_FILE).write_bytes(content)
        with pytest.raises(directory.DatasetError, match=r"data \{SPAN\}/schema\.pbtxt"):
            ingest()
