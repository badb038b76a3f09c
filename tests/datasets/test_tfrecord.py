import gzip
import io
import struct
import zlib
from pathlib import Path

import pytest
import tensorflow as tf

from datasets import tfrecord


def _write(path: Path, *records: bytes) -> Path:
    with path.open("wb") as file:
        for record in records:
            tfrecord.write(file, record)
    return path


def test_tensorflow_reads_the_written_records(tmp_path):
    records = [b"", b"one", bytes(100_000)]
    path = _write(tmp_path / "a.tfrecord", *records)
    assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == records


def test_records_written_by_tensorflow_are_read(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a")) as writer:
        writer.write(b"one")
        writer.write(b"two")
    assert list(tfrecord.read(tmp_path / "a")) == [b"one", b"two"]


def test_tensorflow_parses_an_encoded_example():
    features = {"image": b"\xff\x00", "label": 7, "id": b"train_00042"}
    example = tf.train.Example.FromString(tfrecord.encode_example(features))
    assert example.features.feature["image"].bytes_list.value == [b"\xff\x00"]
    assert example.features.feature["label"].int64_list.value == [7]
    assert example.features.feature["id"].bytes_list.value == [b"train_00042"]


def test_examples_of_tensorflow_are_decoded():
    example = tf.train.Example()
    example.features.feature["label"].int64_list.value.extend([1, -1])
    example.features.feature["weight"].float_list.value.extend([0.5, 0.25])
    example.features.feature["image"].bytes_list.value.append(b"\x00\xff")
    example.features.feature["no list"].SetInParent()
    example.features.feature["empty"].float_list.SetInParent()
    assert tfrecord.decode_example(example.SerializeToString()) == {
        "label": [1, -1],
        "weight": [0.5, 0.25],
        "image": [b"\x00\xff"],
        "empty": [],
    }


def test_an_integer_is_replaced_and_other_features_stay():
    example = tf.train.Example()
    example.features.feature["label"].int64_list.value.append(3)
    example.features.feature["weight"].float_list.value.extend([0.5, 0.25])
    example.features.feature["id"].bytes_list.value.append(b"one")
    replaced = tf.train.Example.FromString(tfrecord.replace_integer(example.SerializeToString(), "label", 7))
    example.features.feature["label"].int64_list.value[:] = [7]
    assert replaced == example


def test_offsets_are_those_of_the_contents(tmp_path):
    records = [b"first", b"", b"third"]
    path = _write(tmp_path / "a", *records)
    data = path.read_bytes()
    offsets = [offset for offset, _ in tfrecord.scan(path)]
    assert [data[offset : offset + len(r)] for offset, r in zip(offsets, records, strict=True)] == records
    assert offsets[0] == 12


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_compression_is_found_out_and_removed(tmp_path, compression):
    records = [b"first", bytes(3_000_000), b"third"]
    with tf.io.TFRecordWriter(str(tmp_path / "a"), compression) as writer:
        for record in records:
            writer.write(record)
    assert tfrecord.compression(tmp_path / "a") == compression
    if compression:
        tfrecord.decompress(tmp_path / "a", tmp_path / "plain")
        assert list(tfrecord.read(tmp_path / "plain")) == records


def test_gzip_files_that_were_joined_are_one_file(tmp_path):
    joined = b"".join(gzip.compress(_write(tmp_path / "a", record).read_bytes()) for record in (b"1", b"2"))
    (tmp_path / "joined").write_bytes(joined)
    tfrecord.decompress(tmp_path / "joined", tmp_path / "plain")
    assert list(tfrecord.read(tmp_path / "plain")) == [b"1", b"2"]


@pytest.mark.parametrize("level", [0, 9])
@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_damaged_compressed_files_are_an_error(tmp_path, compress, level):
    data = compress(_write(tmp_path / "a", bytes(10_000) + b"some data" * 5).read_bytes(), level)
    (tmp_path / "cut").write_bytes(data[:-20])
    with pytest.raises(tfrecord.RecordError, match="cut is cut off"):
        tfrecord.decompress(tmp_path / "cut", tmp_path / "plain")
    flipped = bytearray(data)
    flipped[-6] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    with pytest.raises(tfrecord.RecordError, match="flipped is damaged"):
        tfrecord.decompress(tmp_path / "flipped", tmp_path / "plain2")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"image,label\n1.png,cat\n", id="text"),
        pytest.param(gzip.compress(b"no records"), id="gzip"),
        pytest.param(zlib.compress(b"no records"), id="zlib"),
        pytest.param(b"x", id="short"),
        pytest.param(b"x\x9c?", id="like zlib"),
    ],
)
def test_other_files_are_no_records(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert tfrecord.compression(tmp_path / "a") is None


def test_an_empty_file_holds_no_records(tmp_path):
    (tmp_path / "a").touch()
    assert tfrecord.compression(tmp_path / "a") == ""
    assert list(tfrecord.read(tmp_path / "a")) == []


@pytest.mark.parametrize("length", [5, 12, 14, 18])
def test_a_truncated_record_is_an_error(tmp_path, length):
    path = _write(tmp_path / "a", b"first")
    second = _write(tmp_path / "b", b"second").read_bytes()
    path.write_bytes(path.read_bytes() + second[:length])
    with pytest.raises(tfrecord.RecordError, match="a: record 1 is cut off"):
        list(tfrecord.read(path))


@pytest.mark.parametrize("position", [0, 7, 9, 13, 20])
def test_a_flipped_bit_is_an_error(tmp_path, position):
    path = _write(tmp_path / "a", b"some data")
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(tfrecord.RecordError, match="record 0 is damaged"):
        list(tfrecord.read(path))


def test_bytes_that_are_not_an_example_are_an_error():
    with pytest.raises(tfrecord.RecordError, match=r"not a tf\.train\.Example"):
        tfrecord.decode_example(b"\xff\xff\xff")


def test_records_are_counted_by_their_lengths(tmp_path):
    path = tmp_path / "a.tfrecord"
    with path.open("wb") as file:
        for size in (0, 1, 70_000):
            tfrecord.write(file, b"x" * size)
    assert tfrecord.count(path) == 3
    path.write_bytes(b"")
    assert tfrecord.count(path) == 0
    path.write_bytes(b"\xff" * 100)  # no records: only that it ends matters
    assert tfrecord.count(path) == 1


def test_a_file_that_was_made_to_fill_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "_SMALL_BYTES", 1000)
    source = tmp_path / "bomb.gz"
    source.write_bytes(gzip.compress(bytes(50_000_000)))
    with pytest.raises(tfrecord.RecordError, match=r"bomb\.gz: expected images.*found more than"):
        tfrecord.decompress(source, tmp_path / "plain")
    assert (tmp_path / "plain").stat().st_size < 2 * 100 * source.stat().st_size


def test_a_length_that_promises_more_than_the_file_has_needs_no_memory(tmp_path):
    length = struct.pack("<Q", tfrecord._MAX_RECORD_BYTES)
    header = length + tfrecord._masked_crc(length)

    class Counting(io.BytesIO):
        most = 0

        def read(self, size=-1):
            self.most = max(self.most, size)
            return super().read(size)

    file = Counting(header + b"few bytes")
    with pytest.raises(tfrecord.RecordError, match="record 0 is cut off"):
        list(tfrecord.parse(file, "name"))
    assert file.most <= 2**24


def test_the_kinds_of_features_are_told_without_their_values():
    example = tf.train.Example()
    example.features.feature["a"].bytes_list.value.append(b"x")
    example.features.feature["b"].float_list.value.append(1)
    example.features.feature["c"].int64_list.value.append(1)
    example.features.feature["d"].SetInParent()
    assert tfrecord.kinds(example.SerializeToString()) == {"a": "bytes", "b": "float", "c": "int64"}
