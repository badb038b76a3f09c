import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from datasets import corrections, digest, directory, tfrecord
from datasets.directory import DatasetError

NAMES = ("cat", "dog", "fish")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def picture() -> bytes:
    return tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8)).numpy()


@pytest.fixture
def data(tmp_path, picture):
    """Two images of each class and split, with one id in both train and test; only one of fish in train."""
    out = tmp_path / "data"
    with directory.create(out, NAMES, dict.fromkeys(directory.SPLITS, 2**26), seed=0) as writer:
        for split in directory.SPLITS:
            for label, name in enumerate(NAMES):
                for number in range(2):
                    if (split, name, number) != ("train", "fish", 1):
                        image = picture + f"{split} {name} {number}".encode()
                        writer.add(split, image=image, label=label, id=f"{split}/{name}/{number}".encode())
        for split in ("train", "test"):
            writer.add(split, image=picture, label=0, id=b"twice")
    return out


def _write(path, entries):
    path.write_text(json.dumps({"format": "corrections/1", "corrections": entries}))
    return path


def _apply(data, entries):
    out = data.parent / "out"
    file = _write(data.parent / "corrections.json", entries)
    return corrections.apply(data, corrections.read([file]), out)


def _records(path):
    return {
        (shard.relative_to(path).as_posix(), number): tfrecord.decode_example(record)
        for shard in sorted(path.rglob("*.tfrecord"))
        for number, record in enumerate(tfrecord.read(shard))
    }


def test_relabels_removes_and_keeps_and_leaves_all_else_as_it_was(data, contents, read_split):
    before = contents(data)
    dataset, changes = _apply(
        data,
        [
            {"id": "train/cat/0", "split": "train", "action": "relabel", "label": "fish"},
            {"id": "val/dog/1", "action": "remove"},
            {"id": "twice", "split": "test", "action": "relabel", "label": "dog"},
            {"id": "test/cat/0", "split": "test", "action": "keep", "label": "cat"},
            {"id": "test/cat/1", "split": "test", "action": "relabel", "label": "cat"},
        ],
    )
    assert (changes.relabelled, changes.removed, changes.kept) == (2, 1, 2)
    assert contents(data) == before
    assert dataset == directory.read(data.parent / "out")
    expected = read_split(data, "train")
    expected["train/cat/0"] = expected["train/cat/0"][0], 2
    assert read_split(dataset.path, "train") == expected
    expected = read_split(data, "val")
    del expected["val/dog/1"]
    assert read_split(dataset.path, "val") == expected
    expected = read_split(data, "test")
    expected["twice"] = expected["twice"][0], 1
    assert read_split(dataset.path, "test") == expected
    assert digest.of_directory(dataset.path) != digest.of_directory(data)


def test_the_order_and_the_other_bytes_of_every_shard_stay(data):
    dataset, _ = _apply(data, [{"id": "train/dog/0", "action": "relabel", "label": "cat"}])
    before, after = _records(data), _records(dataset.path)
    assert len({shard for shard, _ in before}) > 3
    (changed,) = [place for place in before if before[place] != after[place]]
    assert before.keys() == after.keys()
    assert after[changed] == before[changed] | {"label": [0]}
    for name in ("labels.txt", "schema.pbtxt", *(shard for shard, _ in before if shard != changed[0])):
        assert (dataset.path / name).read_bytes() == (data / name).read_bytes()


def test_features_that_users_added_stay(data):
    schema = (data / "schema.pbtxt").read_text() + 'feature { name: "weight" type: FLOAT }\n'
    (data / "schema.pbtxt").write_text(schema)
    shard = next(shard for shard in sorted((data / "train").iterdir()) if shard.stat().st_size)
    example = tf.train.Example.FromString(next(tfrecord.read(shard)))
    example.features.feature["weight"].float_list.value.append(0.5)
    records = [example.SerializeToString(), *list(tfrecord.read(shard))[1:]]
    with shard.open("wb") as file:
        for record in records:
            tfrecord.write(file, record)
    identity = example.features.feature["id"].bytes_list.value[0].decode()
    dataset, _ = _apply(data, [{"id": identity, "split": "train", "action": "relabel", "label": "fish"}])
    assert (dataset.path / "schema.pbtxt").read_text() == schema
    changed = tfrecord.decode_example(next(tfrecord.read(dataset.path / "train" / shard.name)))
    assert changed["weight"] == [0.5]
    assert changed["label"] == [2]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"id": "no", "action": "remove"}], "Found:\n  remove 'no': there is no such id"),
        (
            [{"id": "val/cat/0", "split": "test", "action": "remove"}],
            "remove 'val/cat/0': there is no such id in test, but one in val",
        ),
        (
            [{"id": "twice", "action": "remove"}],
            "only one image has.*\n  remove 'twice': 1 in train, 1 in test",
        ),
        (
            [{"id": "val/cat/0", "action": "relabel", "label": "bird"}],
            r"expected the classes of .*\(cat, dog, fish\), found:\n  relabel 'val/cat/0' as 'bird'",
        ),
        (
            [{"id": "val/cat/0", "action": "remove"}, {"id": "val/cat/0", "split": "val", "action": "keep"}],
            "expected corrections that agree.*\n  remove 'val/cat/0', and keep 'val/cat/0'",
        ),
        (
            [
                {"id": "val/cat/0", "action": "relabel", "label": "dog"},
                {"id": "val/cat/0", "action": "relabel", "label": "fish"},
            ],
            "relabel 'val/cat/0' as 'dog', and relabel 'val/cat/0' as 'fish'",
        ),
        (
            [{"id": "train/fish/0", "action": "relabel", "label": "cat"}],
            "expected every class to keep a training image; none would be left of fish",
        ),
        (
            [{"id": f"val/{name}/{i}", "action": "remove"} for name in NAMES for i in range(2)],
            "every split to keep an image; none would be left in val",
        ),
        ([{"id": "val/cat/0", "action": "keep"}], "change nothing .*1 kept.*use .*data as it is"),
        ([{"id": "val/cat/0", "action": "relabel", "label": "cat"}], "change nothing"),
        ([], "change nothing"),
        ([{"id": str(i), "action": "remove"} for i in range(12)], "'9': there is no such id\n  and 2 more"),
    ],
)
def test_unusable_corrections_are_an_error_and_write_nothing(data, entries, message):
    with pytest.raises(DatasetError, match=f"(?s){message}"):
        _apply(data, entries)
    assert {path.name for path in data.parent.iterdir()} == {"data", "corrections.json"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "expected JSON"),
        ("[]", "expected corrections of a report.*found the format None"),
        ('{"format": "corrections/2", "corrections": []}', "found the format 'corrections/2'"),
        ('{"format": "corrections/1"}', "expected corrections of a report"),
        ('{"format": "corrections/1", "corrections": [3]}', "correction 0: expected an object, found 3"),
        ('{"format": "corrections/1", "corrections": [{"action": "keep"}]}', "expected a text in 'id'"),
        ('{"format": "corrections/1", "corrections": [{"id": 3, "action": "keep"}]}', "text in 'id'"),
        ('{"format": "corrections/1", "corrections": [{"id": "a", "action": "drop"}]}', "found 'drop'"),
        (
            '{"format": "corrections/1", "corrections": [{"id": "a", "action": "keep", "split": "dev"}]}',
            "splits train, val, test, found 'dev'",
        ),
        (
            '{"format": "corrections/1", "corrections": [{"id": "a", "action": "relabel"}]}',
            "expected the class in 'label'",
        ),
    ],
)
def test_a_file_of_another_format_is_an_error(tmp_path, text, message):
    path = tmp_path / "corrections.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=f"{path}.*{message}"):
        corrections.read([path])


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read the corrections .*none\.json: No such file"):
        corrections.read([tmp_path / "none.json"])


def test_the_command_takes_several_files_that_may_agree(data, tmp_path):
    first = _write(tmp_path / "a.json", [{"id": "val/cat/0", "action": "remove"}])
    second = _write(
        tmp_path / "b.json",
        [{"id": "val/cat/0", "action": "remove"}, {"id": "val/dog/0", "action": "relabel", "label": "cat"}],
    )
    command = [sys.executable, "-m", "datasets.corrections", data, first, second, tmp_path / "out"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "corrected images: 1 relabelled, 1 removed, 0 kept\n" in result.stderr
    assert re.search(r"cat +3 +2 +3 +8\s", result.stdout)


def test_damaged_data_is_an_error(data, tmp_path):
    shard = next(shard for shard in sorted((data / "val").iterdir()) if shard.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DatasetError, match=r"val-.*\.tfrecord: record \d+ is damaged"):
        _apply(data, [{"id": "train/cat/0", "action": "remove"}])
    assert not (tmp_path / "out").exists()
