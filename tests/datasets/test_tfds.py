import os

import pytest
import tensorflow as tf

from datasets import tfds
from datasets.directory import DatasetError

NAMES = ("circle", "square", "star")


@pytest.fixture
def images(tiny_dataset, read_split):
    """120 different PNG images."""
    examples = read_split(tiny_dataset.path, "train")
    return [examples[identity][0] for identity in sorted(examples)][:120]


def _write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for features in records:
            example = tf.train.Example()
            for name, value in features.items():
                feature = example.features.feature[name]
                (feature.bytes_list if isinstance(value, bytes) else feature.int64_list).value.append(value)
            writer.write(example.SerializeToString())


def _records(split, images):
    return [
        {"id": f"{split}_{i:05d}".encode(), "image": image, "label": i % 3} for i, image in enumerate(images)
    ]


@pytest.fixture
def src(tmp_path, images):
    path = tmp_path / "shapes3/1.0.0"
    path.mkdir(parents=True)
    train = _records("train", images[:100])
    _write(path / "shapes3-train.tfrecord-00000-of-00002", train[:60])
    _write(path / "shapes3-train.tfrecord-00001-of-00002", train[60:])
    _write(path / "shapes3-test.tfrecord-00000-of-00001", _records("test", images[100:]))
    (path / "label.labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (path / "features.json").write_text("{}")
    (path / "dataset_info.json").write_text("{}")
    return path


def _state(path):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.iterdir()}, path.stat().st_mtime_ns


def test_converts_every_record_and_leaves_the_source_unchanged(src, tmp_path, images, read_split):
    before = _state(src)
    assert tfds.is_tfds(src)
    dataset = tfds.convert(src, tmp_path / "out", val_fraction=0.2)
    assert _state(src) == before
    assert dataset.class_names == NAMES
    assert dataset.image_size == (32, 32)
    train, val, test = (read_split(dataset.path, split) for split in ("train", "val", "test"))
    assert train | val == {f"train_{i:05d}": (images[i], i % 3) for i in range(100)}
    assert test == {f"test_{i:05d}": (images[100 + i], i % 3) for i in range(20)}
    assert 8 < len(val) < 35
    assert len(train) + len(val) == 100


def test_identical_images_are_in_the_same_split(src, tmp_path, images, read_split):
    _write(
        src / "shapes3-train.tfrecord-00001-of-00002",
        [{"image": image, "label": 0, "id": f"copy_{i}".encode()} for i, image in enumerate(images[:60])],
    )
    tfds.convert(src, tmp_path / "out", val_fraction=0.5)
    train, val = (
        {image for image, _ in read_split(tmp_path / "out", split).values()} for split in ("train", "val")
    )
    assert not train & val
    assert len(train) + len(val) == 60


def test_the_same_folder_gives_the_same_bytes(src, tmp_path, contents):
    tfds.convert(src, tmp_path / "a")
    tfds.convert(src, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_validation_split_becomes_val(src, tmp_path, images, read_split):
    _write(src / "shapes3-validation.tfrecord-00000-of-00001", _records("validation", images[:7]))
    tfds.convert(src, tmp_path / "out")
    assert len(read_split(tmp_path / "out", "train")) == 100
    assert len(read_split(tmp_path / "out", "val")) == 7


def test_missing_class_names_are_generated(src, tmp_path, capsys):
    (src / "label.labels.txt").unlink()
    assert tfds.convert(src, tmp_path / "out").class_names == ("class_0", "class_1", "class_2")
    assert "has no label.labels.txt" in capsys.readouterr().err


def test_unreadable_class_names_are_an_error(src, tmp_path):
    (src / "label.labels.txt").write_bytes(b"caf\xe9\nb\n")
    with pytest.raises(DatasetError, match=r"cannot read .*label\.labels\.txt"):
        tfds.convert(src, tmp_path / "out")


def test_missing_ids_are_generated(src, tmp_path, images, read_split):
    _write(
        src / "shapes3-test.tfrecord-00000-of-00001", [{"image": image, "label": 0} for image in images[:2]]
    )
    tfds.convert(src, tmp_path / "out")
    assert read_split(tmp_path / "out", "test").keys() == {"test_00000", "test_00001"}


def test_a_damaged_record_is_an_error(src, tmp_path):
    path = src / "shapes3-train.tfrecord-00001-of-00002"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"shapes3-train\.tfrecord-00001-of-00002: record 39 is damaged"):
        tfds.convert(src, tmp_path / "out")
    path.write_bytes(data[:-50])
    with pytest.raises(DatasetError, match="record 39 is cut off"):
        tfds.convert(src, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"label": 1}, "expected one encoded image in 'image' and one integer in 'label'; .*1 in 'label'"),
        ({"image": b"x"}, "one integer in 'label'; .*1 in 'image'"),
        ({"image": 3, "label": 1}, "expected one encoded image"),
        ({"image": b"x", "label": b"cat"}, "one integer in 'label'"),
        ({}, "numbers of values found: nothing"),
        ({"image": b"x", "label": 3}, "expected a label of 0 to 2, found 3"),
        ({"image": b"x", "label": -1}, "expected a label of 0 to 2, found -1"),
    ],
)
def test_a_record_with_other_features_is_an_error(src, tmp_path, images, record, message):
    _write(src / "shapes3-test.tfrecord-00000-of-00001", [{"image": images[0], "label": 1}, record])
    with pytest.raises(DatasetError, match=f"shapes3-test.*: record 1: .*{message}"):
        tfds.convert(src, tmp_path / "out")


def test_a_missing_shard_and_a_missing_split_are_errors(src, tmp_path):
    (src / "shapes3-train.tfrecord-00000-of-00002").rename(tmp_path / "away")
    with pytest.raises(DatasetError, match="train shards say that there are 2, found 1"):
        tfds.convert(src, tmp_path / "out")
    (tmp_path / "away").rename(src / "shapes3-train.tfrecord-00000-of-00002")
    (src / "shapes3-test.tfrecord-00000-of-00001").unlink()
    with pytest.raises(DatasetError, match="expected the splits train and test, found only train"):
        tfds.convert(src, tmp_path / "out")


def test_two_datasets_in_one_folder_are_an_error(src, tmp_path):
    os.link(src / "shapes3-test.tfrecord-00000-of-00001", src / "other-test.tfrecord-00000-of-00001")
    with pytest.raises(DatasetError, match=r"shards of one TFDS dataset.*found other, shapes3"):
        tfds.convert(src, tmp_path / "out")


def test_refuses_to_write_into_the_source(src):
    with pytest.raises(DatasetError, match="only read"):
        tfds.convert(src, src / "out")


def test_is_tfds(tiny_dataset, tmp_path):
    assert not tfds.is_tfds(tiny_dataset.path)
    assert not tfds.is_tfds(tmp_path / "none")
