"""Foreign records in a dataset directory: copied as they are, or refused with the shard and the record."""

import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.example_gen import ingestion
from datasets import digest, directory, tfrecord
from datasets.directory import SPLITS
from tests.fuzzing import cases, changed_bytes


@pytest.fixture(scope="module")
def copy(tiny_dataset, tmp_path_factory):
    return shutil.copytree(tiny_dataset.path, tmp_path_factory.mktemp("foreign") / "data")


@cases(25)
@given(st.data())
def test_foreign_records_are_copied_or_named(copy, tiny_dataset, tmp_path_factory, data):
    (shard,) = (copy / "val").glob(directory.SHARD_PATTERN)
    original = next((tiny_dataset.path / "val").glob(directory.SHARD_PATTERN)).read_bytes()
    if data.draw(st.booleans()):
        shard.write_bytes(data.draw(changed_bytes(original)))
    else:  # a record whose checksum is right
        example = next(iter(tfrecord.read(tiny_dataset.path / "val" / shard.name)))
        with shard.open("wb") as file:
            tfrecord.write(file, data.draw(changed_bytes(example)))
    out = tmp_path_factory.mktemp("examples")
    try:
        found = ingestion.ingest(str(copy), {split: str(out / split) for split in SPLITS}, digest.ANY)
    except directory.DatasetError as error:
        assert re.search(r"val-00000-of-00001\.tfrecord: record \d+|at least one example in val/", str(error))
    else:
        assert found.counts["val"] >= 1
        assert (out / "val" / shard.name).read_bytes() == shard.read_bytes()
