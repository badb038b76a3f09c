import json
from collections import Counter

import pytest
import tensorflow as tf

from datasets import tfds, tfrecord
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
    return path


def _state(path):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.iterdir()}, path.stat().st_mtime_ns


def _write_metadata(path, features, splits):
    """Writes `features.json` and `dataset_info.json` as TFDS does."""
    types = {
        "image": "image_feature.Image",
        "classLabel": "class_label_feature.ClassLabel",
        "text": "text.Text",
    }
    nodes = {
        name: {"pythonClassName": f"tensorflow_datasets.core.features.{types[kind]}", kind: {}}
        for name, kind in features.items()
    }
    (path / "features.json").write_text(
        json.dumps(
            {
                "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
                "featuresDict": {"features": nodes},
            }
        )
    )
    info = [{"name": name, "shardLengths": [str(n) for n in lengths]} for name, lengths in splits.items()]
    (path / "dataset_info.json").write_text(json.dumps({"fileFormat": "tfrecord", "splits": info}))


def test_converts_every_record_and_leaves_the_source_unchanged(src, tmp_path, images, read_split):
    assert tfds.is_tfds(src)
    _write_metadata(
        src, {"id": "text", "image": "image", "label": "classLabel"}, {"train": [60, 40], "test": [20]}
    )
    before = _state(src)
    dataset = tfds.convert(src, tmp_path / "out", val_fraction=0.2)
    assert _state(src) == before
    assert dataset.class_names == NAMES
    assert dataset.image_size == (32, 32)
    train, val, test = (read_split(dataset.path, split) for split in ("train", "val", "test"))
    assert train | val == {f"train_{i:05d}": (images[i], i % 3) for i in range(100)}
    assert test == {f"test_{i:05d}": (images[100 + i], i % 3) for i in range(20)}
    assert Counter(label for _, label in val.values()) == {0: 7, 1: 7, 2: 7}


def test_identical_images_are_in_the_same_split(src, tmp_path, images, read_split):
    _write(
        src / "shapes3-train.tfrecord-00001-of-00002",
        [{"image": image, "label": i % 3, "id": f"copy_{i}".encode()} for i, image in enumerate(images[:60])],
    )
    tfds.convert(src, tmp_path / "out", val_fraction=0.5)
    train, val = (
        {image for image, _ in read_split(tmp_path / "out", split).values()} for split in ("train", "val")
    )
    assert not train & val
    ids = read_split(tmp_path / "out", "train").keys() | read_split(tmp_path / "out", "val").keys()
    assert len(ids) == 120


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
    shard = "shapes3-test.tfrecord-00000-of-00001"
    _write(src / shard, [{"image": image, "label": i} for i, image in enumerate(images[:3])])
    tfds.convert(src, tmp_path / "out")
    assert read_split(tmp_path / "out", "test").keys() == {f"{shard}:{i}" for i in range(3)}


def test_repeated_ids_are_made_unique(src, tmp_path, images, read_split):
    shard = "shapes3-test.tfrecord-00000-of-00001"
    _write(src / shard, [{"image": image, "label": i, "id": b"x"} for i, image in enumerate(images[:3])])
    tfds.convert(src, tmp_path / "out")
    assert read_split(tmp_path / "out", "test").keys() == {"x", f"x ({shard}:1)", f"x ({shard}:2)"}


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
        ({"label": 1}, r"expected one encoded image in 'image', found the features: label \(int64\)"),
        ({"image": b"x"}, "expected a label in 'label', found"),
        ({"image": 3, "label": 1}, "expected one encoded image"),
        ({"image": b"x", "label": b"cat"}, "found 'cat'"),
        ({}, "found the features: none"),
        ({"image": b"x", "label": 3}, "expected a label of the 3 classes, from 0 to 2; found 3"),
        ({"image": b"x", "label": -2}, "expected an integer from 0, .*, found -2"),
    ],
)
def test_a_record_with_other_features_is_an_error(src, tmp_path, images, record, message):
    _write(src / "shapes3-test.tfrecord-00000-of-00001", [{"image": images[0], "label": 1}, record])
    with pytest.raises(DatasetError, match=f"shapes3-test.*: record 1: .*{message}"):
        tfds.convert(src, tmp_path / "out")


def test_a_missing_shard_and_a_missing_split_are_errors(src, tmp_path):
    (src / "shapes3-train.tfrecord-00000-of-00002").rename(tmp_path / "away")
    with pytest.raises(DatasetError, match=r"expected 2 train shards, .*, found 1"):
        tfds.convert(src, tmp_path / "out")
    (tmp_path / "away").rename(src / "shapes3-train.tfrecord-00000-of-00002")
    _write_metadata(src, {}, {"train": [60, 40], "test": [20], "empty": []})
    (src / "shapes3-test.tfrecord-00000-of-00001").unlink()
    with pytest.raises(DatasetError, match=r"expected some test shards, as dataset_info\.json .* found none"):
        tfds.convert(src, tmp_path / "out")


def test_splits_that_are_missing_are_cut_from_train(src, tmp_path, images, read_split):
    (src / "shapes3-test.tfrecord-00000-of-00001").rename(src / "shapes3-validation.tfrecord-00000-of-00001")
    tfds.convert(src, tmp_path / "a", test_fraction=0.3)
    assert len(read_split(tmp_path / "a", "val")) == 20
    assert Counter(label for _, label in read_split(tmp_path / "a", "test").values()) == {0: 10, 1: 10, 2: 10}
    assert len(read_split(tmp_path / "a", "train")) == 70
    (src / "shapes3-validation.tfrecord-00000-of-00001").unlink()
    tfds.convert(src, tmp_path / "b")
    sizes = {split: len(read_split(tmp_path / "b", split)) for split in ("train", "val", "test")}
    assert sum(sizes.values()) == 100
    assert 8 <= sizes["val"] <= 12
    assert 8 <= sizes["test"] <= 12


def test_other_splits_are_left_out_and_listed(src, tmp_path, images, read_split, capsys):
    _write(src / "shapes3-unlabeled.tfrecord-00000-of-00001", [{"image": images[0], "label": -1}])
    tfds.convert(src, tmp_path / "out")
    assert len(read_split(tmp_path / "out", "train")) + len(read_split(tmp_path / "out", "val")) == 100
    assert "splits of TFDS: 1 (unlabeled)" in capsys.readouterr().out
    for path in src.glob("*-train*"):
        path.unlink()
    with pytest.raises(DatasetError, match="expected a split train, found only test, unlabeled"):
        tfds.convert(src, tmp_path / "out2")


def test_two_splits_of_one_meaning_are_an_error(src, tmp_path, images):
    for name in ("validation", "dev"):
        _write(src / f"shapes3-{name}.tfrecord-00000-of-00001", _records(name, images[:3]))
    with pytest.raises(DatasetError, match="expected one split for val, found dev and validation"):
        tfds.convert(src, tmp_path / "out")


def _rename_features(path, names):
    for shard in path.glob("*.tfrecord-*"):
        records = [tfrecord.decode_example(record) for record in tfrecord.read(shard)]
        _write(shard, [{names.get(n, n): values[0] for n, values in record.items()} for record in records])


def test_features_json_says_which_features_are_image_and_class(src, tmp_path, images, read_split):
    _rename_features(src, {"image": "picture", "label": "species", "id": "file_name"})
    (src / "label.labels.txt").rename(src / "species.labels.txt")
    kinds = {"file_name": "text", "picture": "image", "species": "classLabel"}
    _write_metadata(src, kinds, {"train": [60, 40], "test": [20]})
    dataset = tfds.convert(src, tmp_path / "out")
    assert dataset.class_names == NAMES
    assert read_split(dataset.path, "test") == {f"test_{i:05d}": (images[100 + i], i % 3) for i in range(20)}


def test_nested_features_in_the_form_of_old_versions(src, tmp_path):
    _rename_features(src, {"image": "photo/image", "label": "photo/kind"})
    (src / "label.labels.txt").rename(src / "photo-kind.labels.txt")
    prefix = "tensorflow_datasets.core.features"
    inner = {
        "image": {"type": f"{prefix}.image_feature.Image", "content": {"shape": [None, None, 3]}},
        "kind": {
            "type": f"{prefix}.class_label_feature.ClassLabel",
            "content": json.dumps({"numClasses": "3"}),
        },
    }
    folder = f"{prefix}.features_dict.FeaturesDict"
    outer = {"photo": {"type": folder, "content": inner}}
    old = {"type": folder, "content": json.dumps({"features": outer}), "proto_cls": "x"}
    (src / "features.json").write_text(json.dumps(old))
    assert tfds.convert(src, tmp_path / "out").class_names == NAMES


def test_several_class_features_have_to_be_chosen(src, tmp_path):
    records = [
        {"image": example["image"][0], "fine": example["label"][0], "coarse": example["label"][0] // 2}
        for path in sorted(src.glob("*-train*"))
        for example in map(tfrecord.decode_example, tfrecord.read(path))
    ]
    for path in src.glob("*"):
        path.unlink()
    _write(src / "shapes3-train.tfrecord-00000-of-00001", records)
    (src / "coarse.labels.txt").write_text("round\npointed\n")
    _write_metadata(src, {"image": "image", "fine": "classLabel", "coarse": "classLabel"}, {"train": [100]})
    with pytest.raises(
        DatasetError, match=r"found fine, coarse\. Choose one .*datasets\.tfds .* --label NAME"
    ):
        tfds.convert(src, tmp_path / "out")
    assert tfds.convert(src, tmp_path / "out", label="coarse").class_names == ("round", "pointed")


def test_another_file_format_is_an_error(src, tmp_path):
    (src / "dataset_info.json").write_text('{"fileFormat": "array_record"}')
    (src / "features.json").write_text("{}")
    assert tfds.is_tfds(src)
    with pytest.raises(DatasetError, match="expected files of the format tfrecord, found array_record"):
        tfds.convert(src, tmp_path / "out")


def test_damaged_metadata_is_an_error(src, tmp_path):
    (src / "features.json").write_text("{")
    with pytest.raises(DatasetError, match=r"cannot read .*features\.json"):
        tfds.convert(src, tmp_path / "out")


def test_versions_are_found(src):
    assert tfds.find_versions(src.parent) == [src]
    assert tfds.find_versions(src.parent.parent) == [src]
    assert tfds.find_versions(src) == []


def test_two_datasets_in_one_folder_are_an_error(src, tmp_path):
    (src / "other-test.tfrecord-00000-of-00001").hardlink_to(src / "shapes3-test.tfrecord-00000-of-00001")
    with pytest.raises(DatasetError, match=r"shards of one TFDS dataset.*found other, shapes3"):
        tfds.convert(src, tmp_path / "out")


def test_refuses_to_write_into_the_source(src):
    with pytest.raises(DatasetError, match="only read"):
        tfds.convert(src, src / "out")


def test_is_tfds(tiny_dataset, tmp_path):
    assert not tfds.is_tfds(tiny_dataset.path)
    assert not tfds.is_tfds(tmp_path / "none")
