import pytest
import tensorflow as tf

from components import tfrecords


def _write(path, compression):
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        writer.write(path.name.encode())
    return str(path)


def test_the_suffix_says_whether_files_are_compressed(tmp_path):
    plain = [_write(tmp_path / name, "") for name in ("a.tfrecord", "b.tfrecord")]
    packed = [_write(tmp_path / name, "GZIP") for name in ("a.gz", "b.gz")]
    assert list(tfrecords.read(plain).as_numpy_iterator()) == [b"a.tfrecord", b"b.tfrecord"]
    assert list(tfrecords.read(packed).as_numpy_iterator()) == [b"a.gz", b"b.gz"]
    assert list(tfrecords.read([]).as_numpy_iterator()) == []
    with pytest.raises(ValueError, match="found both"):
        tfrecords.read([*plain, *packed])
