"""Foreign bytes in place of the data that users bring: an answer, or one error that says why."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import resource
import tarfile
import time
from collections.abc import Iterator

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import (
    cifar10,
    class_labels,
    decoding,
    deduplication,
    directory,
    image_folder,
    inspection,
    manifest,
    overview,
    records,
    tfds,
    tfrecord,
    tfrecords,
)
from datasets.directory import DatasetError
from datasets.records import Shard
from tests.datasets import image_files
from tests.fuzzing import cases, changed_bytes, changed_values

_SECONDS, _MEGABYTES = 20, 700  # that one case may take


@contextlib.contextmanager
def bounded(*errors: type[Exception]) -> Iterator[None]:
    """Expects that the body ends, or raises one of some errors with a message, in bounded time and memory."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        yield
    except errors as error:
        assert str(error).strip()
        assert len(str(error)) < 20_000
    assert time.monotonic() - start < _SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1000 * _MEGABYTES


def _pixels(height=6, width=8, channels=3, dtype=np.uint8):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def _images() -> list[bytes]:
    picture = PIL.Image.fromarray(_pixels())
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return [
        image_files.encode(picture),
        image_files.encode(picture.convert("P"), transparency=3),
        image_files.encode(picture.convert("RGBA")),
        image_files.encode(_pixels(channels=1, dtype=np.uint16)),
        image_files.encode(picture, "JPEG", exif=exif),
        image_files.encode(picture, "JPEG", progressive=True),
        image_files.encode(picture.convert("CMYK"), "JPEG"),
        image_files.encode(picture, "GIF", save_all=True, append_images=[picture]),
        image_files.encode(picture, "BMP"),
        image_files.encode(picture, "WEBP", lossless=True),
        image_files.encode(picture, "TIFF", compression="tiff_lzw"),
        image_files.encode(picture, "JPEG2000"),
        image_files.encode(picture, "ICO"),
        image_files.encode(picture, "PPM"),
    ]


@cases(150)
@given(st.data())
def test_foreign_images_are_usable_everywhere_or_refused(data):
    image = data.draw(st.sampled_from(_images()).flatmap(changed_bytes))
    with bounded(inspection.UnusableError):
        found = inspection.inspect(image)
        if found.fingerprint is not None:
            stored = inspection.store(image, found.handling, {})
            # What an importer stores is decoded by both decoders, to the same size.
            assert decoding.decode(stored).size == (found.width, found.height)
            assert inspection._decode_with_tensorflow(stored).shape[:2] in (
                (found.height, found.width),
                (found.width, found.height),  # of a turned JPEG
            )
            assert decoding.count_pixels(stored) == found.width * found.height
    for read in (decoding.decode, decoding.identify, decoding.count_pixels, decoding.orientation):
        with bounded(decoding.ImageError):
            read(image)


def _archive() -> bytes:
    batch = np.zeros((10, 3073), np.uint8)
    batch[:, 0] = np.arange(10)
    files = {f"data_batch_{number}.bin": batch.tobytes() for number in range(1, 6)}
    files |= {
        "test_batch.bin": batch.tobytes(),
        "batches.meta.txt": b"\n".join(b"c%d" % i for i in range(10)),
    }
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


_ARCHIVE = _archive()


@cases(40)
@given(changed_bytes(_ARCHIVE), changed_bytes(gzip.compress(_ARCHIVE)), st.booleans())
def test_foreign_archives_are_converted_or_refused(tmp_path_factory, tar, compressed, is_tar):
    folder = tmp_path_factory.mktemp("archive")
    (folder / "a.tar.gz").write_bytes(gzip.compress(tar, 1) if is_tar else compressed)
    with bounded(DatasetError):
        cifar10.convert(folder / "a.tar.gz", folder / "out", md5=None)
    assert (folder / "out").exists() or [path.name for path in folder.iterdir()] == ["a.tar.gz"]


def _example(image: bytes, label: int, **more: bytes) -> bytes:
    return tfrecord.encode_example({"image": image, "label": label, "id": b"name", **more})


def _records(examples: list[bytes]) -> bytes:
    content = io.BytesIO()
    for example in examples:
        tfrecord.write(content, example)
    return content.getvalue()


_PNG = image_files.encode(_pixels())
_EXAMPLES = [_example(_PNG, label % 3) for label in range(6)]


@cases(100)
@given(changed_bytes(_records(_EXAMPLES)), st.sampled_from([None, gzip.compress]))
def test_foreign_records_are_read_or_refused(tmp_path_factory, content, compress):
    folder = tmp_path_factory.mktemp("records")
    path = folder / "a.tfrecord"
    path.write_bytes(compress(content) if compress else content)
    assert tfrecord.compression(path) in ("", "GZIP", "ZLIB", None)
    assert tfrecord.count(path) >= 0
    tfrecords.is_tfrecords(folder)
    with bounded(tfrecord.RecordError):
        list(tfrecord.scan(path))
    with bounded(tfrecord.RecordError):
        tfrecord.decompress(path, folder / "plain")
        list(tfrecord.scan(folder / "plain"))


@st.composite
def _foreign_examples(draw: st.DrawFn) -> list[bytes]:
    """Draws records, whose checksums will be right, of examples with features of any kind."""
    examples = list(_EXAMPLES)
    for index in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            examples[index] = draw(changed_bytes(examples[index]))
            continue
        example = tfrecord._Example()
        for name in draw(st.lists(st.sampled_from(["image", "label", "id", "other", ""]), max_size=4)):
            feature = example.features.feature[name]
            kind = draw(st.sampled_from(["bytes", "float", "int64", "none"]))
            if kind == "bytes":
                feature.bytes_list.value.extend(draw(st.lists(st.binary(max_size=9), max_size=2)))
            elif kind == "float":
                feature.float_list.value.extend(draw(st.lists(st.floats(width=32), max_size=2)))
            elif kind == "int64":
                numbers = st.integers(-(2**63), 2**63 - 1)
                feature.int64_list.value.extend(draw(st.lists(numbers, max_size=2)))
        examples[index] = example.SerializeToString()
    return examples


@cases(100)
@given(_foreign_examples(), st.booleans())
def test_foreign_examples_are_listed_or_refused(tmp_path_factory, examples, named):
    path = tmp_path_factory.mktemp("examples") / "a.tfrecord"
    path.write_bytes(_records(examples))
    shards = [Shard(path, path.name, "", path)]
    with bounded(DatasetError):
        image, label = ("image", "label") if named else records.find_features(shards, None, None)
        listed = records.list_images(shards, image, label)
        for item in listed.items:
            item.place.read()


@pytest.fixture(scope="module")
def dataset_files(tiny_dataset):
    """Content of the files of a small dataset directory, by their path in it."""
    root = tiny_dataset.path
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {name: _records(_EXAMPLES) if name.endswith(".tfrecord") else data for name, data in files.items()}


@cases(80)
@given(st.data())
def test_foreign_dataset_directories_are_opened_or_refused(tmp_path_factory, dataset_files, data):
    root = tmp_path_factory.mktemp("dataset")
    changed = data.draw(st.sampled_from(sorted(dataset_files)))
    foreign = changed_bytes(dataset_files[changed])
    if changed.endswith(".tfrecord"):
        foreign |= _foreign_examples().map(_records)
    for name, content in {**dataset_files, changed: data.draw(foreign)}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    with bounded(DatasetError):
        dataset = directory.read(root)
        directory.count_examples(dataset)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            overview.show(dataset)
    for _, shard in [("train", path) for path in root.rglob("*.tfrecord")]:
        with bounded(DatasetError):
            deduplication._look(("train", shard))


@cases(50)
@given(changed_bytes("\n".join(["cat", "dog", "owl"]).encode()) | changed_bytes(b"0:cat\n1:dog\n"))
def test_foreign_class_names_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    path.write_bytes(content)
    with bounded(DatasetError):
        assert len(class_labels.read_names(path)) >= 2


_NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=12)
_FILE_NAMES = st.sampled_from(["a.png", "b.jpg", "c.txt", ".hidden", "Thumbs.db", "x.webp"])


@cases(60)
@given(
    st.lists(
        st.tuples(
            st.lists(_NAMES | st.sampled_from(["train", "test", "cat", "dog"]), max_size=4), _FILE_NAMES
        ),
        max_size=8,
    )
)
def test_foreign_folders_of_images_are_listed_or_refused(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("folder")
    for folders, name in files:
        path = root.joinpath(*(folder for folder in folders if folder not in (".", "..")), name)
        with contextlib.suppress(OSError, UnicodeEncodeError):  # names that are too long, or those of files
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_PNG)
    image_folder.is_image_folder(root)
    with bounded(DatasetError):
        names, items, _ = image_folder._find_images(root, None)
        assert all(item.label < len(names) for item in items)


def _table(suffix: str) -> bytes:
    rows = [{"path": f"{i}.png", "label": "cat", "split": "train"} for i in range(4)]
    if suffix == ".jsonl":
        return "\n".join(map(json.dumps, rows)).encode()
    if suffix == ".parquet":
        import pandas as pd  # noqa: PLC0415

        return pd.DataFrame(rows).to_parquet()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@cases(60)
@given(st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]), st.data())
def test_foreign_tables_are_refused(tmp_path_factory, suffix, data):
    """The images of the tables are missing, so that each table ends in an error."""
    file = tmp_path_factory.mktemp("table") / f"table{suffix}"
    file.write_bytes(data.draw(changed_bytes(_table(suffix))))
    with bounded(DatasetError), contextlib.redirect_stderr(io.StringIO()):
        manifest.convert(file, file.parent / "out")
        raise AssertionError("expected an error")


_FEATURES = {
    "pythonClassName": "tfds.core.features.FeaturesDict",
    "featuresDict": {
        "features": {
            "image": {"pythonClassName": "tfds.core.features.Image"},
            "label": {"pythonClassName": "tfds.core.features.ClassLabel"},
        }
    },
}
_INFO = {"fileFormat": "tfrecord", "splits": [{"name": "train", "shardLengths": ["6"]}]}


@cases(60)
@given(changed_values(_FEATURES), changed_values(_INFO), st.booleans())
def test_foreign_descriptions_of_tfds_are_read_or_refused(tmp_path_factory, features, info, raw):
    src = tmp_path_factory.mktemp("tfds")
    (src / tfds.FEATURES_FILE).write_text(json.dumps(features) if raw else json.dumps(features)[:-3])
    (src / tfds.INFO_FILE).write_text(json.dumps(info))
    (src / "a-train.tfrecord-00000-of-00001").write_bytes(_records(_EXAMPLES))
    assert tfds.is_tfds(src)
    with bounded(DatasetError):
        tfds._read_features(src)
    with bounded(DatasetError):
        tfds._find_shards(src)
