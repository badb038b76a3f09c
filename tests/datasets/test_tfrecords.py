import gzip
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from datasets import tfrecords
from datasets.directory import DatasetError

NAMES = ("cat", "dog", "fish")


@pytest.fixture(scope="session")
def images():
    """120 different PNG images."""
    pixels = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3), np.uint8)
    return [tf.io.encode_png(image).numpy() for image in pixels]


def _example(**features):
    """Serialises an example; `__` in a name stands for a slash."""
    example = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = example.features.feature[name.replace("__", "/")]
        lists = {bytes: feature.bytes_list, int: feature.int64_list, float: feature.float_list}
        lists[type(values[0])].value.extend(values)
    return example.SerializeToString()


def _write(path, records, compression=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)


def _records(images, label):
    """Records as the scripts of TF-Slim write them."""
    return [
        _example(image__encoded=image, image__class__label=label(i), image__height=8, image__format=b"png")
        for i, image in enumerate(images)
    ]


def _labels(examples):
    return dict(examples.values())


@pytest.fixture
def src(tmp_path, images):
    """Shards of train and validation, in the layout of TF-Slim, with labels from 1."""
    path = tmp_path / "src"
    records = _records(images, lambda i: 1 + i % 3)
    _write(path / "train-00000-of-00002", records[:60])
    _write(path / "train-00001-of-00002", records[60:90])
    _write(path / "validation-00000-of-00001", records[90:])
    (path / "labels.txt").write_text("0:cat\n1:dog\n2:fish\n")
    return path


def test_every_record_is_converted(src, tmp_path, images, read_split, capsys):
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in src.iterdir()}
    dataset = tfrecords.convert(
        [str(src)],
        tmp_path / "out",
        image="image/encoded",
        label="image/class/label",
        labels=src / "labels.txt",
        test_fraction=0.2,
    )
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in src.iterdir()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"src", "out"}
    assert dataset.class_names == NAMES
    train, val, test = (read_split(dataset.path, split) for split in ("train", "val", "test"))
    assert _labels(train | test) == {image: i % 3 for i, image in enumerate(images[:90])}
    assert _labels(val) == {image: (90 + i) % 3 for i, image in enumerate(images[90:])}
    assert Counter(label for _, label in test.values()) == {0: 6, 1: 6, 2: 6}
    assert (train | test)["train-00001-of-00002:7"] == (images[67], 67 % 3)
    out, err = capsys.readouterr()
    assert "labels are 1 to 3: label 1 is 'cat', class 0 of the dataset" in err
    assert "files that are no images, .txt: 1" in out


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
@pytest.mark.parametrize("form", ["integer", "one-hot", "one-hot floats", "text"])
def test_compression_features_and_labels_are_found_out(
    tmp_path, images, read_split, capsys, compression, form
):
    names = ["9", "10", "11"]
    labels = {
        "integer": lambda i: i % 3,
        "one-hot": lambda i: [int(i % 3 == j) for j in range(3)],
        "one-hot floats": lambda i: [float(i % 3 == j) for j in range(3)],
        "text": lambda i: names[i % 3].encode(),
    }
    _write(tmp_path / "all.tfrecord", _records(images, labels[form]), compression)
    dataset = tfrecords.convert([str(tmp_path / "all.tfrecord")], tmp_path / "out")
    splits = {split: read_split(dataset.path, split) for split in ("train", "val", "test")}
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 96,
        "val": 12,
        "test": 12,
    }
    assert _labels(splits["train"] | splits["val"] | splits["test"]) == {
        image: i % 3 for i, image in enumerate(images)
    }
    assert dataset.class_names == (tuple(names) if form == "text" else ("class_0", "class_1", "class_2"))
    assert ("named after their labels" in capsys.readouterr().err) == (form != "text")
    assert {p.name for p in tmp_path.iterdir()} == {"all.tfrecord", "out"}


def test_ids_are_those_of_the_records_and_are_made_unique(tmp_path, images, read_split):
    records = [
        _example(
            image=image, label=i % 3, **({"image/filename": b"\xff %d.png" % (i % 40)} if i < 80 else {})
        )
        for i, image in enumerate(images)
    ]
    _write(tmp_path / "a.tfrecord", records)
    tfrecords.convert([str(tmp_path / "a.tfrecord")], tmp_path / "out")
    found: dict = {}
    for split in ("train", "val", "test"):
        for shard in (tmp_path / "out" / split).iterdir():
            for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
                feature = tf.train.Example.FromString(record).features.feature
                found[feature["id"].bytes_list.value[0]] = feature["image"].bytes_list.value[0]
    expected = {b"\xff %d.png" % i: images[i] for i in range(40)}
    expected |= {b"\xff %d.png (a.tfrecord:%d)" % (i, 40 + i): images[40 + i] for i in range(40)}
    expected |= {b"a.tfrecord:%d" % i: images[i] for i in range(80, 120)}
    assert found == expected


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Training/0.tfrec", "Testing/0.tfrec"), ("train", "test")),
        (("TRAIN/x/0.tfrec", "dev/x/0.tfrec"), ("train", "val")),
        (("pets_train.record", "pets_val.record"), ("train", "val")),
        (("pets_holdout.record.gz", "pets_train.record.gz"), ("test", "train")),
        (("train/eval-0", "train/train-0"), ("val", "train")),
    ],
)
def test_names_of_files_and_folders_say_the_split(tmp_path, images, read_split, names, splits):
    src = tmp_path / "src [v1]"
    halves = images[:60], images[60:]
    for name, half in zip(names, halves, strict=True):
        records = _records(half, lambda i: i % 3)
        _write(src / name, records, "GZIP" if name.endswith("gz") else "")
    (src / ".hidden.tfrecord").write_bytes(b"x")
    tfrecords.convert([str(src)], tmp_path / "out")
    for split, half in zip(splits, halves, strict=True):
        found = _labels(read_split(tmp_path / "out", split))
        if split == "train":
            found |= {image: label for image, label in _all(tmp_path, read_split).items() if image in half}
        assert found.keys() == set(half)


def _all(tmp_path, read_split):
    return {
        k: v
        for split in ("train", "val", "test")
        for k, v in _labels(read_split(tmp_path / "out", split)).items()
    }


def test_files_folders_and_patterns_are_sources(tmp_path, images, read_split):
    for number in range(4):
        part = images[30 * number : 30 * (number + 1)]
        _write(tmp_path / f"fold{number}/part.tfrecord", _records(part, lambda i: i % 3))
    (tmp_path / "link").symlink_to(tmp_path / "fold2")
    sources = [str(tmp_path / "fold[0-1]/*"), str(tmp_path / "link"), str(tmp_path / "fold3/part.tfrecord")]
    tfrecords.convert(
        sources,
        tmp_path / "out",
        splits={"train": ["fold0/*", "fold1/*"], "test": ["link/*"]},
    )
    test = read_split(tmp_path / "out", "test")
    assert set(_labels(test)) == set(images[60:90])
    assert "link/part.tfrecord:0" in test
    assert set(_all(tmp_path, read_split)) == set(images[:90])


def test_records_without_a_label_are_left_out_and_counted(tmp_path, images, capsys):
    _write(tmp_path / "a.tfrecord", _records(images, lambda i: i % 4 - 1))
    assert len(tfrecords.convert([str(tmp_path / "a.tfrecord")], tmp_path / "out").class_names) == 3
    assert "records without a label (-1): 30" in capsys.readouterr().out


def test_links_that_loop_are_listed(src, tmp_path, capsys):
    (src / "loop").symlink_to(src)
    tfrecords.convert([str(src)], tmp_path / "out")
    assert "links to a folder that contains them: 1 (loop)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"image__class__label": 1},
            "one encoded image in 'image/encoded', found the features: image/class/label",
        ),
        (
            {"image__encoded": b"x"},
            r"a label in 'image/class/label', found the features: image/encoded \(bytes\)",
        ),
        ({}, "found the features: none"),
        ({"image__encoded": [b"x", b"y"], "image__class__label": 1}, "one encoded image"),
        ({"image__encoded": 7, "image__class__label": 1}, r"one encoded image .*image/encoded \(int64\)"),
        ({"image__encoded": b"x", "image__class__label": [0.5, 0.5]}, "2 values that is not one-hot"),
        ({"image__encoded": b"x", "image__class__label": -2}, "an integer from 0, .*, found -2"),
        (
            {"image__encoded": b"x", "image__class__label": b"cat"},
            "like the one of .*: record 0 in .*found 'cat'",
        ),
    ],
)
def test_a_record_with_other_features_is_named(src, tmp_path, images, record, message):
    records = _records(images[90:99], lambda i: 1 + i % 3)
    _write(src / "validation-00000-of-00001", [*records, _example(**record)])
    with pytest.raises(DatasetError, match=f"(?s)validation-00000-of-00001: record 9: expected .*{message}"):
        tfrecords.convert([str(src)], tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"src"}


def test_a_record_that_is_no_example_is_named(src, tmp_path):
    with (src / "train-00001-of-00002").open("ab") as file:
        tfrecord_bytes = tmp_path / "one"
        _write(tfrecord_bytes, [b"\xff\xff\xff"])
        file.write(tfrecord_bytes.read_bytes())
    with pytest.raises(DatasetError, match=r"train-00001-of-00002: record 30: not a tf\.train\.Example"):
        tfrecords.convert([str(src)], tmp_path / "out")


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_damaged_files_are_named(src, tmp_path, images, compression):
    path = src / "train-00001-of-00002"
    _write(path, _records(images[:30], lambda i: 1 + i % 3), compression)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        DatasetError, match=r"train-00001-of-00002.* is damaged.*Copy or write the file again"
    ):
        tfrecords.convert([str(src)], tmp_path / "out")
    path.write_bytes(data[:-50])
    with pytest.raises(DatasetError, match=r"src/train-00001-of-00002.* is cut off"):
        tfrecords.convert([str(src)], tmp_path / "out")
    path.write_bytes(b"<html>please log in</html>")
    with pytest.raises(DatasetError, match=r"train-00001-of-00002 is no TFRecord file"):
        tfrecords.convert([str(src)], tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"src"}


def test_missing_shards_of_a_folder_are_an_error(src, tmp_path):
    (src / "train-00000-of-00002").rename(tmp_path / "away")
    with pytest.raises(DatasetError, match=r"expected 2 files train-\*-of-00002, found 1"):
        tfrecords.convert([str(src)], tmp_path / "out")
    tfrecords.convert([str(src / "*-of-*")], tmp_path / "out")


def test_features_that_cannot_be_found_are_listed(tmp_path, images):
    records = [
        _example(
            image=image, thumbnail=image, label=1, label_2=[0.5, 1.0], weights=[1.0, 2.0], note=b"x" * 200
        )
        for image in images
    ]
    _write(tmp_path / "a.tfrecord", records)
    with pytest.raises(
        DatasetError,
        match=r"with --image NAME and --label NAME, because 2 features look like an encoded image: image, "
        r"thumbnail\. "
        r"The first record has: image \(bytes, an image\), label \(int64\), label_2 \(2 float\), "
        r"note \(bytes\), thumbnail \(bytes, an image\), weights \(2 float\)",
    ):
        tfrecords.convert([str(tmp_path / "a.tfrecord")], tmp_path / "out")
    _write(tmp_path / "a.tfrecord", [_example(image=b"\xff\x00", x=1, y=2)])
    with pytest.raises(
        DatasetError, match="no features look like an encoded image; 2 features look like a label: x, y"
    ):
        tfrecords.convert([str(tmp_path / "a.tfrecord")], tmp_path / "out")


def test_a_feature_that_is_no_class_is_an_error(tmp_path, images):
    _write(tmp_path / "a.tfrecord", [_example(image=image, size=i) for i, image in enumerate(images)])
    with pytest.raises(DatasetError, match="120 different values of 'size' in 120 records: is it the label"):
        tfrecords.convert([str(tmp_path / "a.tfrecord")], tmp_path / "out")


def test_files_whose_split_is_unclear_are_an_error(src, tmp_path, images):
    records = _records(images[:9], lambda i: 1 + i % 3)
    _write(src / "more.tfrecord", records)
    with pytest.raises(DatasetError, match=r"1 of 4 do not, such as more\.tfrecord.*--split-train"):
        tfrecords.convert([str(src)], tmp_path / "out")
    (src / "more.tfrecord").rename(src / "train_test.tfrecord")
    with pytest.raises(
        DatasetError, match=r"train_test\.tfrecord: .* one split .* found those of test and train"
    ):
        tfrecords.convert([str(src)], tmp_path / "out")
    with pytest.raises(DatasetError, match="expected files of train, found only val"):
        tfrecords.convert([str(src / "validation*")], tmp_path / "out")
    with pytest.raises(DatasetError, match="matched those of train and val"):
        tfrecords.convert([str(src)], tmp_path / "out", splits={"train": ["train*"], "val": ["*_test*"]})


@pytest.mark.parametrize("name", ["nothing", "nothing/*.tfrecord"])
def test_a_source_without_files_is_an_error(tmp_path, name):
    with pytest.raises(DatasetError, match=r"found nothing at .*nothing"):
        tfrecords.convert([str(tmp_path / name)], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"expected TFRecord files in .*empty, found none"):
        tfrecords.convert([str(tmp_path / "empty")], tmp_path / "out")


def test_is_tfrecords(src, tmp_path):
    assert tfrecords.is_tfrecords(src)
    assert tfrecords.is_tfrecords(tmp_path)
    assert tfrecords.is_tfrecords(src / "train-00000-of-00002")
    assert not tfrecords.is_tfrecords(src / "labels.txt")
    assert not tfrecords.is_tfrecords(tmp_path / "none")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.tar.gz").write_bytes(gzip.compress(bytes(10_000)))
    assert not tfrecords.is_tfrecords(tmp_path / "other")
