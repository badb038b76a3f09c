"""Reads and writes dataset directories, the only form of data that the pipeline accepts. Their layout:

    train/ val/ test/   uncompressed TFRecord shards of tf.train.Example with `image` (encoded PNG or
                        JPEG bytes), `label` (int64) and `id` (bytes), as TFDS writes CIFAR-10
    schema.pbtxt        TensorFlow Metadata schema: types, range of the labels, class names
    labels.txt          class names, one per line; the line number, from 0, is the label

Nothing here imports TensorFlow, so that an unusable directory is reported in a fraction of a second.
"""

from __future__ import annotations

import random
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from datasets import atomic_directory, decoding, features, limited, tfrecord

SPLITS = ("train", "val", "test")
SCHEMA_FILE = "schema.pbtxt"
LABELS_FILE = "labels.txt"
SHARD_PATTERN = "*.tfrecord"

# String domain of the schema that passes the class names to steps whose only input is the schema.
_CLASS_NAMES_DOMAIN = "class_names"
# Approximate size of a shard, so that large datasets can be read in parallel and small ones have few files.
_SHARD_BYTES = 32 * 2**20
# Per split. All shards of all splits are open while they are written, and some systems allow only 256 open
# files.
_MAX_SHARDS = 64
_SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<index>\d+)-of-(?P<count>\d+)\.tfrecord")


class DatasetError(ValueError):
    """An unusable dataset; the message says what was expected, what was found, and what to do."""


@dataclass(frozen=True)
class Dataset:
    """A complete dataset directory.

    Attributes:
      path: absolute path of the directory.
      class_names: name of each label, in the order of the labels.
      image_size: (height, width) of the first training image, in pixels.
      features: names of the examples' features in the schema, except the image and its id.
    """

    path: Path
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    features: tuple[str, ...]


def read(path: Path) -> Dataset:
    """Opens a dataset directory and checks that it is complete and consistent.

    Only the first image is read; ImportExampleGen verifies all records.

    Args:
      path: the dataset directory.

    Returns:
      The dataset.

    Raises:
      DatasetError: a file or directory is missing or unreadable, or the schema and the class names disagree.
    """
    path = Path(path).resolve()
    if not path.is_dir():
        raise DatasetError(f"expected a dataset directory, found no directory {path}")
    expected = [f"{split}/" for split in SPLITS] + [SCHEMA_FILE, LABELS_FILE]
    missing = [name for name in expected if not (path / name).exists()]
    if missing:
        raise DatasetError(
            f"{path} is not a complete dataset directory: expected {', '.join(expected)}; "
            f"missing: {', '.join(missing)}. Write it again"
        )
    shards = {split: find_shards(path / split) for split in SPLITS}
    names = read_labels(path / LABELS_FILE)
    schema = parse_schema(_read_text(path / SCHEMA_FILE), str(path / SCHEMA_FILE))
    _check_agreement(schema, names, path)
    feature_names = tuple(f.name for f in schema.feature if f.name not in (features.IMAGE, features.ID))
    return Dataset(path, names, _image_size(shards["train"]), feature_names)


def find_shards(folder: Path) -> list[Path]:
    """Lists the shards of a split, in the order of their names.

    Raises:
      DatasetError: there is none that is not empty, or not as many as their names say.
    """
    shards = sorted(path for path in folder.glob(SHARD_PATTERN) if path.is_file())
    check_shards([shard.name for shard in shards], str(folder))
    if not any(shard.stat().st_size for shard in shards):
        raise DatasetError(f"expected TFRecord shards {folder}/{SHARD_PATTERN}, found empty ones")
    return shards


def check_shards(names: Sequence[str], folder: str) -> None:
    """Checks that the shards of a split are complete.

    Args:
      names: file names of the shards.
      folder: where they are, for messages.

    Raises:
      DatasetError: there are no shards, or not as many as their names say.
    """
    if not names:
        raise DatasetError(f"expected TFRecord shards {folder}/{SHARD_PATTERN}, found none")
    for name in names:
        if match := _SHARD_NAME.fullmatch(name):
            number = sum(other.startswith(match["stem"] + "-") for other in names)
            if number != int(match["count"]):
                raise DatasetError(
                    f"{folder}: expected {int(match['count'])} shards, as their names say, "
                    f"found {number}. Write the dataset again"
                )


def count_examples(dataset: Dataset) -> dict[str, int]:
    """Counts the examples of each split, without reading them: 600,000 take about a second.

    A damaged shard is not noticed, and counted wrongly.
    """
    return {
        split: sum(tfrecord.count(shard) for shard in find_shards(dataset.path / split)) for split in SPLITS
    }


def read_labels(path: Path) -> tuple[str, ...]:
    """Reads and checks a file of class names.

    Args:
      path: UTF-8 text file with one class name per line.

    Returns:
      The class names, in the order of the labels.

    Raises:
      DatasetError: the file cannot be read, has fewer than 2 names, or has an empty, unprintable or repeated
        name.
    """
    names = tuple(_read_text(path).removesuffix("\n").split("\n"))
    check_class_names(names, str(path))
    return names


def build_schema(class_names: Sequence[str]) -> schema_pb2.Schema:
    """Builds the schema of a dataset: every example has one image, one label and at most one id.

    The empty `shape {}` of image and label means exactly one value, so that TensorFlow Transform parses them
    as scalars.

    Args:
      class_names: name of each label; labels range from 0 to the number of names - 1.

    Returns:
      The schema, which also contains the class names.
    """
    schema = schema_pb2.Schema()
    schema.string_domain.add(name=_CLASS_NAMES_DOMAIN, value=class_names)
    image = schema.feature.add(name=features.IMAGE, type=schema_pb2.BYTES)
    label = schema.feature.add(name=features.LABEL, type=schema_pb2.INT)
    label.int_domain.CopyFrom(schema_pb2.IntDomain(min=0, max=len(class_names) - 1, is_categorical=True))
    image.image_domain.SetInParent()  # keeps StatisticsGen from treating image bytes as text
    for feature in (image, label):
        feature.shape.SetInParent()
        feature.presence.CopyFrom(schema_pb2.FeaturePresence(min_fraction=1, min_count=1))
    identity = schema.feature.add(name=features.ID, type=schema_pb2.BYTES)
    identity.value_count.CopyFrom(schema_pb2.ValueCount(min=0, max=1))
    identity.presence.min_count = 0
    return schema


def class_names(schema: schema_pb2.Schema) -> tuple[str, ...]:
    """Returns the class names in a schema that `build_schema` made.

    Raises:
      DatasetError: the schema contains no class names.
    """
    for domain in schema.string_domain:
        if domain.name == _CLASS_NAMES_DOMAIN:
            return tuple(domain.value)
    raise DatasetError(
        f"expected the class names in the schema, as `string_domain {{ name: {_CLASS_NAMES_DOMAIN!r} }}`; "
        "found none. Build the schema with datasets.directory.build_schema"
    )


def check_destination(path: Path, source: Path | None = None) -> None:
    """Checks that a dataset directory can be written; importers call it before they read much.

    It also removes what killed importers have left in the parent: one that was killed after the directory had
    got its name is not run again.

    Args:
      path: the new directory.
      source: directory that is being converted and must not be changed.

    Raises:
      DatasetError: the path is not empty, or inside the source.
    """
    path = Path(path).resolve()
    if source and path.is_relative_to(source.resolve()):
        raise DatasetError(f"{path} is inside {source}, which is only read; choose a directory outside it")
    atomic_directory.remove_abandoned(path.parent)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DatasetError(f"{path} exists and is not an empty directory; remove it or choose another place")


@contextmanager
def create(
    path: Path,
    class_names: Sequence[str],
    expected_bytes: Mapping[str, int],
    seed: int,
    source: Path | None = None,
) -> Iterator[Writer]:
    """Creates a dataset directory atomically, as a context manager.

    Args:
      path: the new directory; it must be empty if it exists.
      class_names: name of each label, in the order of the labels.
      expected_bytes: approximate total size of the images of each split in bytes, which determines the number
        of shards.
      seed: seed of the order of the examples.
      source: directory that is being converted and must not be changed; `path` must not be inside it.

    Yields:
      A writer, to which the body adds every example.

    Raises:
      DatasetError: the path is not empty or inside the source, the class names are invalid, or a split is
        empty.
    """
    with (
        stage(path, class_names, source) as partial,
        closing(Writer(partial, len(class_names), expected_bytes, seed)) as writer,
    ):
        yield writer
        writer.finish()


@contextmanager
def stage(path: Path, class_names: Sequence[str], source: Path | None = None) -> Iterator[Path]:
    """Creates a dataset directory atomically, as a context manager whose body writes the shards.

    The files are written to a hidden directory beside `path`, which is renamed to `path` at the end of the
    body. If a process is killed before that, the next one that writes to the same path removes its hidden
    directory.

    Args:
      path: the new directory; it must be empty if it exists.
      class_names: name of each label, in the order of the labels.
      source: directory that is being converted and must not be changed; `path` must not be inside it.

    Yields:
      The hidden directory, with an empty folder for each split.

    Raises:
      DatasetError: the path is not empty or inside the source, or the class names are invalid.
    """
    path = Path(path).resolve()
    check_destination(path, source)
    check_class_names(class_names, "the class names")
    with atomic_directory.create(path) as partial:
        for split in SPLITS:
            (partial / split).mkdir()
        yield partial
        (partial / LABELS_FILE).write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        schema = text_format.MessageToString(build_schema(class_names), as_utf8=True)
        (partial / SCHEMA_FILE).write_text(schema, encoding="utf-8")


def shard_names(split: str, expected_bytes: int) -> list[str]:
    """Returns the names of a split's shards.

    Args:
      split: one of SPLITS.
      expected_bytes: approximate total size of the split's images in bytes.
    """
    count = min(_MAX_SHARDS, 1 + expected_bytes // _SHARD_BYTES)
    return [f"{split}-{index:05d}-of-{count:05d}.tfrecord" for index in range(count)]


def encode_example(image: bytes, label: int, id: bytes) -> bytes:
    """Serialises an example of a dataset directory.

    Args:
      image: bytes of a PNG or JPEG file.
      label: index of the class, from 0.
      id: origin of the image, such as its path in the source.
    """
    return tfrecord.encode_example({features.IMAGE: image, features.LABEL: label, features.ID: id})


class Writer:
    """Writes examples to shards in random order without holding all examples in memory.

    Each example is appended to a random shard of its split; at the end the examples of each shard are
    shuffled.
    """

    def __init__(self, path: Path, num_classes: int, expected_bytes: Mapping[str, int], seed: int) -> None:
        self._num_classes = num_classes
        self._splits: dict[str, list[_Shard]] = {}
        self._random = {split: random.Random(f"{seed} {split}") for split in SPLITS}
        for split in SPLITS:
            names = shard_names(split, expected_bytes[split])
            self._splits[split] = [_Shard(path / split / name) for name in names]

    def add(self, split: str, *, image: bytes, label: int, id: bytes) -> None:
        """Adds an example.

        Args:
          split: one of SPLITS.
          image: bytes of a PNG or JPEG file.
          label: index of the class, from 0.
          id: origin of the image, such as its path in the source.

        Raises:
          DatasetError: the label is out of range.
        """
        if not 0 <= label < self._num_classes:
            raise DatasetError(
                f"{id.decode(errors='replace')}: expected a label from 0 to {self._num_classes - 1}, "
                f"found {label}"
            )
        shard = self._random[split].choice(self._splits[split])
        shard.append(encode_example(image, label, id))

    def finish(self) -> None:
        """Shuffles the examples of every shard.

        Raises:
          DatasetError: a split has no example.
        """
        for split, shards in self._splits.items():
            if not any(shard.starts for shard in shards):
                raise DatasetError(f"expected at least one image in the {split} split, found none")
            for shard in shards:
                shard.finish(self._random[split])

    def close(self) -> None:
        """Closes all files, whether or not the shards were finished."""
        for shards in self._splits.values():
            for shard in shards:
                shard.close()


class _Shard:
    """A shard that is first written in arrival order and then copied in random order.

    Attributes:
      starts: offset in bytes of each record in the file of unordered records.
    """

    def __init__(self, path: Path) -> None:
        self.starts = array("Q")
        self._path = path
        self._unordered = path.with_suffix(".unordered")
        self._file = self._unordered.open("w+b")

    def append(self, data: bytes) -> None:
        self.starts.append(self._file.tell())
        tfrecord.write(self._file, data)

    def finish(self, random_order: random.Random) -> None:
        ends = array("Q", [*self.starts[1:], self._file.tell()])
        order = list(range(len(self.starts)))
        random_order.shuffle(order)
        with self._path.open("wb") as ordered:
            for index in order:
                self._file.seek(self.starts[index])
                ordered.write(self._file.read(ends[index] - self.starts[index]))
        self.close()
        self._unordered.unlink()

    def close(self) -> None:
        self._file.close()


def _read_text(path: Path) -> str:
    try:
        return limited.read_text(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {path}: {error}") from None


def check_class_names(names: Sequence[str], where: str) -> None:
    """Checks the names of classes.

    Args:
      names: name of each label.
      where: where the names are from, for the message.

    Raises:
      DatasetError: there are fewer than 2 names, or one is empty, unprintable or repeated.
    """
    unusable = [name for name in names if not name.strip() or not name.isprintable()]
    if unusable:
        raise DatasetError(f"{where}: expected printable, non-empty names, found {unusable[0]!r}")
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise DatasetError(f"{where}: expected every class once, found more than once: {', '.join(repeated)}")
    if len(names) < 2:
        raise DatasetError(f"{where}: expected at least 2 classes, found {len(names)}")


def parse_schema(text: str, where: str) -> schema_pb2.Schema:
    """Parses a schema in text form.

    Args:
      text: content of the file.
      where: path of the file, for the message.

    Raises:
      DatasetError: the text is not a schema.
    """
    try:
        return text_format.Parse(text, schema_pb2.Schema())
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise DatasetError(f"{where} is not a TensorFlow Metadata schema in text form: {error}") from None


def _check_agreement(schema: schema_pb2.Schema, names: tuple[str, ...], path: Path) -> None:
    by_name = {feature.name: feature for feature in schema.feature}
    for name in (features.IMAGE, features.LABEL):
        if name not in by_name:
            raise DatasetError(f"{path / SCHEMA_FILE}: expected a feature {name!r}, found {sorted(by_name)}")
    domain = by_name[features.LABEL].int_domain
    if (domain.min, domain.max) != (0, len(names) - 1):
        raise DatasetError(
            f"{path}: {LABELS_FILE} has {len(names)} names, so {SCHEMA_FILE} should allow labels from 0 to "
            f"{len(names) - 1}; it allows {domain.min} to {domain.max}. Write the dataset again"
        )
    if class_names(schema) != names:
        raise DatasetError(
            f"{path}: {LABELS_FILE} and {SCHEMA_FILE} have different class names: {', '.join(names)} and "
            f"{', '.join(class_names(schema))}. Write the dataset again"
        )


def _image_size(shards: Sequence[Path]) -> tuple[int, int]:
    shard = next(shard for shard in shards if shard.stat().st_size)
    try:
        example = tfrecord.decode_example(next(tfrecord.read(shard)))
    except tfrecord.RecordError as error:
        raise DatasetError(f"{shard}: {error}. Write the dataset again") from None
    image = example.get(features.IMAGE) or [None]
    if not isinstance(image[0], bytes):
        raise DatasetError(
            f"{shard}: expected encoded bytes in {features.IMAGE!r} of record 0, found the features "
            f"{sorted(example)}"
        )
    try:
        _, (width, height) = decoding.identify(image[0])
        return height, width
    except decoding.ImageError as error:
        raise DatasetError(
            f"{shard}: expected a PNG or JPEG in record 0, found an image that cannot be used: {error}"
        ) from None
