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


def test_decoding_leaves_out_features_of_floats():
    example = tf.train.Example()
    example.features.feature["label"].int64_list.value.extend([1, -1])
    example.features.feature["weight"].float_list.value.append(0.5)
    assert tfrecord.decode_example(example.SerializeToString()) == {"label": [1, -1]}


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
