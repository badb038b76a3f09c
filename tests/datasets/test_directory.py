import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_transform.tf_metadata import schema_utils

from datasets import directory, tfrecord
from datasets.directory import SPLITS, DatasetError

ROOT = Path(__file__).parents[2]
NAMES = ("cat", "dog", "großer Fisch")
ONE_SHARD = dict.fromkeys(SPLITS, 0)  # expected bytes that give every split a single shard


def _png(width: int = 6, height: int = 4) -> bytes:
    png = io.BytesIO()
    PIL.Image.new("RGB", (width, height)).save(png, "PNG")
    return png.getvalue()


def _write(path: Path, names=NAMES, count=30, expected_bytes=ONE_SHARD, seed=0) -> None:
    with directory.create(path, names, expected_bytes, seed) as writer:
        for split in SPLITS:
            for i in range(count):
                writer.add(split, image=_png(), label=i % len(names), id=f"{split}_{i:05d}".encode())


@pytest.fixture
def written(tmp_path):
    _write(tmp_path / "data")
    return tmp_path / "data"


def test_read_returns_names_size_and_features(written):
    assert directory.read(written) == directory.Dataset(written, NAMES, (4, 6), ("label",))
    with (written / "schema.pbtxt").open("a") as schema:
        schema.write('feature { name: "camera" type: BYTES }\n')
    assert directory.read(written).features == ("label", "camera")


def test_read_does_not_import_tensorflow(written):
    code = (
        "import sys; from datasets import catalog, directory; directory.read(sys.argv[1]); "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, written], cwd=ROOT, check=True)


def test_tensorflow_parses_the_records_with_the_features_of_tfds(written, read_split):
    files = sorted(str(p) for p in (written / "train").iterdir())
    assert files == [f"{written}/train/train-00000-of-00001.tfrecord"]
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "id": tf.io.FixedLenFeature([], tf.string),
    }
    parsed = tf.data.TFRecordDataset(files).map(lambda record: tf.io.parse_single_example(record, features))
    found = {e["id"].decode(): (e["image"], int(e["label"])) for e in parsed.as_numpy_iterator()}
    assert found == read_split(written, "train")
    assert found["train_00004"] == (_png(), 1)
    assert len(found) == 30


def test_the_same_seed_gives_the_same_bytes(tmp_path, contents):
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        _write(tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_examples_are_shuffled_over_shards_and_within(tmp_path, read_split):
    _write(tmp_path / "data", count=300, expected_bytes=dict.fromkeys(SPLITS, 70 * 2**20))
    shards = sorted((tmp_path / "data/train").iterdir())
    assert [p.name for p in shards] == [f"train-{i:05d}-of-00003.tfrecord" for i in range(3)]
    for shard in shards:
        ids = [tfrecord.decode_example(record)["id"][0] for record in tfrecord.read(shard)]
        assert 60 < len(ids) < 140
        assert ids != sorted(ids)
    assert len(read_split(tmp_path / "data", "train")) == 300


def test_a_failed_write_leaves_no_files(tmp_path):
    with (
        pytest.raises(RuntimeError, match="broken"),
        directory.create(tmp_path / "data", NAMES, ONE_SHARD, 0) as writer,
    ):
        writer.add("train", image=_png(), label=0, id=b"a")
        raise RuntimeError("broken")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_dataset_and_the_next_one_cleans_up(tmp_path):
    code = """
import sys, time
from datasets import directory
with directory.create(sys.argv[1], ["a", "b"], {"train": 0, "val": 0, "test": 0}, 0) as writer:
    for split in directory.SPLITS:
        writer.add(split, image=b"x", label=0, id=b"y")
    print("ready", flush=True)
    time.sleep(60)
"""
    out = tmp_path / "data"
    process = subprocess.Popen([sys.executable, "-c", code, out], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".data.partial-")
    _write(tmp_path / "other")
    with pytest.raises(RuntimeError), directory.create(out, NAMES, ONE_SHARD, 0):
        assert partial.exists()  # the process that writes it is still running
        raise RuntimeError
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert partial.exists()
    with pytest.raises(DatasetError, match="found no directory"):
        directory.read(out)
    _write(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "other"]
    directory.read(out)


def test_refuses_a_directory_that_is_not_empty(written, contents):
    before = contents(written)
    # What an importer leaves that is killed after the directory has got its name.
    left = written.parent / f".{written.name}.partial-abcdefgh"
    left.mkdir()
    with pytest.raises(DatasetError, match=r"data exists and is not an empty directory; remove it"):
        _write(written)
    assert contents(written) == before
    assert not left.exists()


def test_refuses_a_path_that_was_created_while_writing(tmp_path):
    out = tmp_path / "data"
    with (
        pytest.raises(OSError, match="the finished folder cannot get its name"),
        directory.create(out, NAMES, ONE_SHARD, 0) as writer,
    ):
        for split in SPLITS:
            writer.add(split, image=_png(), label=0, id=b"a")
        out.mkdir()
        (out / "mine").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    assert [p.name for p in out.iterdir()] == ["mine"]


def test_writes_to_an_empty_directory(tmp_path):
    (tmp_path / "data").mkdir()
    _write(tmp_path / "data")
    directory.read(tmp_path / "data")


def test_refuses_to_write_into_the_source(tmp_path):
    with (
        pytest.raises(DatasetError, match="only read"),
        directory.create(tmp_path / "a/b", NAMES, ONE_SHARD, 0, source=tmp_path / "a"),
    ):
        pass


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "at least 2 classes, found 1"),
        (["a", "b", "a"], "more than once: a"),
        (["a", " "], "non-empty names, found ' '"),
        (["a", "b\nc"], r"found 'b\\nc'"),
    ],
)
def test_refuses_invalid_class_names(tmp_path, names, message):
    with pytest.raises(DatasetError, match=message):
        _write(tmp_path / "data", names)
    assert list(tmp_path.iterdir()) == []


def test_refuses_an_empty_split_and_a_label_out_of_range(tmp_path):
    with (
        pytest.raises(DatasetError, match="at least one image in the val split"),
        directory.create(tmp_path / "data", NAMES, ONE_SHARD, 0) as writer,
    ):
        writer.add("train", image=_png(), label=0, id=b"a")
    with (
        pytest.raises(DatasetError, match="photo 7: expected a label from 0 to 2, found 3"),
        directory.create(tmp_path / "data", NAMES, ONE_SHARD, 0) as writer,
    ):
        writer.add("train", image=_png(), label=3, id=b"photo 7")


@pytest.mark.parametrize("missing", ["train", "val", "test", "schema.pbtxt", "labels.txt"])
def test_read_names_the_missing_file_or_directory(written, missing):
    path = written / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DatasetError, match=f"missing: {missing}"):
        directory.read(written)


def _append_label(path):
    with (path / "labels.txt").open("a") as file:
        file.write("bird\n")


def _rename_label(path):
    text = (path / "labels.txt").read_text()
    (path / "labels.txt").write_text(text.replace("cat", "cow"))


def _drop_names(path):
    text = (path / "schema.pbtxt").read_text()
    (path / "schema.pbtxt").write_text(text.replace('"class_names"', '"colours"'))


def _replace_first_image(path):
    (path / "train").joinpath("train-00000-of-00001.tfrecord").unlink()
    with (path / "train/a.tfrecord").open("wb") as file:
        tfrecord.write(file, tfrecord.encode_example({"image": b"text", "label": 0}))


def _replace_first_example(path):
    _replace_first_image(path)
    with (path / "train/a.tfrecord").open("wb") as file:
        tfrecord.write(file, tfrecord.encode_example({"image": 3, "label": 0}))


def _shards(path):
    return sorted((path / "train").iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_append_label, "has 4 names, so schema.pbtxt should allow labels from 0 to 3; it allows 0 to 2"),
        (_rename_label, "have different class names: cow, dog"),
        (_drop_names, "expected the class names in the schema"),
        (_replace_first_image, "expected a PNG or JPEG in record 0, found an image that cannot"),
        (_replace_first_example, "expected encoded bytes in 'image' of record 0"),
        (lambda path: (path / "schema.pbtxt").write_text("feature {"), "not a TensorFlow Metadata schema"),
        (lambda path: (path / "schema.pbtxt").write_text(""), r"expected a feature 'image', found \[\]"),
        (lambda path: (path / "labels.txt").write_text("cat\ncat\n"), "more than once: cat"),
        (lambda path: (path / "labels.txt").write_bytes(b"\xff\n"), "cannot read .*labels.txt"),
        (lambda path: _shards(path)[0].unlink(), "expected TFRecord shards .*train/.*, found none"),
        (lambda path: _shards(path)[0].write_bytes(b""), "found empty ones"),
        (lambda path: _shards(path)[0].write_bytes(bytes(50)), "record 0 is damaged"),
        (
            lambda path: _shards(path)[0].rename(path / "train/train-00000-of-00002.tfrecord"),
            "expected 2 shards, as their names say, found 1",
        ),
    ],
)
def test_read_refuses_damaged_and_inconsistent_directories(written, damage, message):
    damage(written)
    with pytest.raises(DatasetError, match=message):
        directory.read(written)


def test_transform_parses_image_and_label_as_scalars():
    spec = schema_utils.schema_as_feature_spec(directory.build_schema(NAMES)).feature_spec
    assert spec["image"] == tf.io.FixedLenFeature([], tf.string)
    assert spec["label"] == tf.io.FixedLenFeature([], tf.int64)


def test_class_names_are_read_from_the_schema():
    assert directory.class_names(directory.build_schema(NAMES)) == NAMES


def _example(image=(b"\xff",), label=(1,)) -> bytes:
    example = tf.train.Example()
    if image is not None:
        example.features.feature["image"].bytes_list.value.extend(image)
    if label is not None:
        example.features.feature["label"].int64_list.value.extend(label)
    return example.SerializeToString()


@pytest.mark.parametrize(
    ("invalid", "anomalies"),
    [
        (_example(), set()),
        (_example(image=None, label=(3,)), {"image", "label"}),
        (_example(image=(b"a", b"b"), label=None), {"image", "label"}),
        (_example(label=(-1,)), {"label"}),
    ],
    ids=["good", "no image, label 3", "two images, no label", "label -1"],
)
def test_data_validation_finds_each_violation(tmp_path, invalid, anomalies):
    schema = directory.build_schema(NAMES)
    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for record in [_example()] * 20 + [invalid]:
            writer.write(record)
    options = tfdv.StatsOptions(schema=schema)
    statistics = tfdv.generate_statistics_from_tfrecord(path, stats_options=options)
    found = tfdv.validate_statistics(statistics, schema)
    assert set(found.anomaly_info) == anomalies
    assert found.dataset_anomaly_info.description == ""


def test_examples_are_counted(tiny_dataset):
    assert directory.count_examples(tiny_dataset) == {"train": 160, "val": 40, "test": 40}
