"""The dataset directory, the one way into the pipeline: its layout, its schema, reading and writing it.

    train/ val/ test/   uncompressed TFRecord shards of tf.train.Example with `image` (encoded PNG or
                        JPEG bytes), `label` (int64) and `id` (bytes), as TFDS writes CIFAR-10
    schema.pbtxt        TensorFlow Metadata schema: the types, the label's domain, the class names
    labels.txt          class names, one a line; line number, from 0, is the label

Nothing here imports TensorFlow, so that a wrong directory is refused in a fraction of a second.
"""

from __future__ import annotations

import fcntl
import io
import os
import random
import re
import shutil
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from datasets import features, tfrecord

SPLITS = ("train", "val", "test")
SCHEMA_FILE = "schema.pbtxt"
LABELS_FILE = "labels.txt"
SHARD_PATTERN = "*.tfrecord"

# The schema's own string domain that carries the class names to steps that get the schema only.
_CLASS_NAMES_DOMAIN = "class_names"
# Enough shards to read a large dataset in parallel, few enough files for a small one.
_SHARD_BYTES = 32 * 2**20
# All shards of all splits are open while they are written; some systems allow 256 open files.
_MOST_SHARDS = 64
_SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<index>\d+)-of-(?P<count>\d+)\.tfrecord")


class DatasetError(ValueError):
    """A dataset that cannot be used; the message says what was expected, what found, and what to do."""


@dataclass(frozen=True)
class Dataset:
    """A complete dataset directory.

    Attributes:
      path: the directory, absolute.
      class_names: name of each label.
      image_size: height and width in pixels of the first training image.
      features: names of what the schema knows of each example, the image and its id apart.
    """

    path: Path
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    features: tuple[str, ...]


def read(path: Path) -> Dataset:
    """Checks that a directory is a complete dataset directory.

    Raises:
      DatasetError: something is missing, cannot be read, or contradicts something else.
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
    shards = {split: _find_shards(path / split) for split in SPLITS}
    names = read_labels(path / LABELS_FILE)
    schema = _read_schema(path / SCHEMA_FILE)
    _check_agreement(schema, names, path)
    described = tuple(f.name for f in schema.feature if f.name not in (features.IMAGE, features.ID))
    return Dataset(path, names, _image_size(shards["train"]), described)


def check_records(dataset: Dataset) -> None:
    """Reads every record of every split, which takes about a second for 60,000 small images.

    Raises:
      DatasetError: a shard is damaged; the message names it and the record.
    """
    for split in SPLITS:
        for shard in _find_shards(dataset.path / split):
            try:
                for _ in tfrecord.read(shard):
                    pass
            except tfrecord.RecordError as error:
                raise DatasetError(f"{error}. Write the dataset again") from None


def read_labels(path: Path) -> tuple[str, ...]:
    """Reads class names, one a line, and checks them."""
    names = tuple(_read_text(path).removesuffix("\n").split("\n"))
    _check_class_names(names, str(path))
    return names


def build_schema(class_names: Sequence[str]) -> schema_pb2.Schema:
    """Builds the schema: one image and one label in every example, the label within the classes.

    `shape {}` means exactly one value, and lets TensorFlow Transform parse both as scalars.
    """
    schema = schema_pb2.Schema()
    schema.string_domain.add(name=_CLASS_NAMES_DOMAIN, value=class_names)
    image = schema.feature.add(name=features.IMAGE, type=schema_pb2.BYTES)
    label = schema.feature.add(name=features.LABEL, type=schema_pb2.INT)
    label.int_domain.CopyFrom(schema_pb2.IntDomain(min=0, max=len(class_names) - 1, is_categorical=True))
    image.image_domain.SetInParent()  # so that statistics do not count the images as if they were words
    for feature in (image, label):
        feature.shape.SetInParent()
        feature.presence.CopyFrom(schema_pb2.FeaturePresence(min_fraction=1, min_count=1))
    identity = schema.feature.add(name=features.ID, type=schema_pb2.BYTES)
    identity.value_count.CopyFrom(schema_pb2.ValueCount(min=0, max=1))
    identity.presence.min_count = 0
    return schema


def class_names(schema: schema_pb2.Schema) -> tuple[str, ...]:
    """Returns the class names that a schema made by `build_schema` carries."""
    for domain in schema.string_domain:
        if domain.name == _CLASS_NAMES_DOMAIN:
            return tuple(domain.value)
    raise DatasetError(
        f"expected the class names in the schema, as `string_domain {{ name: {_CLASS_NAMES_DOMAIN!r} }}`; "
        "found none. Build the schema with datasets.directory.build_schema"
    )


@contextmanager
def create(
    path: Path,
    class_names: Sequence[str],
    expected_bytes: Mapping[str, int],
    seed: int,
    source: Path | None = None,
) -> Iterator[Writer]:
    """Writes a dataset directory, which appears under its name complete or not at all.

    Everything goes to a hidden directory beside it, renamed at the very end. What a killed process
    left behind is removed by the next one that writes to the same path.

    Args:
      path: the new directory; it may exist if it is empty.
      class_names: name of each label.
      expected_bytes: about how large the images of each split are together; decides the shards.
      seed: of the order in which the examples are written.
      source: a directory that must stay as it is; `path` may not be inside it.

    Yields:
      A writer, to which the body adds every example.

    Raises:
      DatasetError: the path is taken or inside the source, the class names cannot be used, or a
        split stayed empty.
    """
    path = Path(path).resolve()
    if source and path.is_relative_to(source.resolve()):
        raise DatasetError(f"{path} is inside {source}, which is only read; choose a place outside it")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DatasetError(f"{path} exists and is not an empty directory; remove it or choose another place")
    _check_class_names(class_names, "the class names")
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.partial-"
    _remove_abandoned(path.parent, prefix)
    partial = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=path.parent))
    # Held as long as this process lives, so that no other takes the directory for abandoned.
    lock = _lock(partial)
    try:
        with closing(Writer(partial, len(class_names), expected_bytes, seed)) as writer:
            yield writer
            writer.finish()
        (partial / LABELS_FILE).write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        schema = text_format.MessageToString(build_schema(class_names), as_utf8=True)
        (partial / SCHEMA_FILE).write_text(schema, encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp allows nobody but the owner
        try:
            partial.rename(path)
        except OSError as error:
            raise DatasetError(f"cannot put the finished dataset at {path}: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if lock is not None:
            os.close(lock)


class Writer:
    """Writes examples to shards in a random order, without holding them in memory.

    Each example goes to a random shard of its split; at the end each shard is put in random order.
    """

    def __init__(self, path: Path, num_classes: int, expected_bytes: Mapping[str, int], seed: int) -> None:
        self._num_classes = num_classes
        self._splits: dict[str, list[_Shard]] = {}
        self._random = {split: random.Random(f"{seed} {split}") for split in SPLITS}
        for split in SPLITS:
            (path / split).mkdir()
            count = min(_MOST_SHARDS, 1 + expected_bytes[split] // _SHARD_BYTES)
            names = (f"{split}-{index:05d}-of-{count:05d}.tfrecord" for index in range(count))
            self._splits[split] = [_Shard(path / split / name) for name in names]

    def add(self, split: str, *, image: bytes, label: int, id: bytes) -> None:
        """Adds an example.

        Args:
          split: one of SPLITS.
          image: an encoded PNG or JPEG.
          label: index of the class.
          id: where the image comes from.
        """
        if not 0 <= label < self._num_classes:
            raise DatasetError(
                f"{id.decode(errors='replace')}: expected a label from 0 to {self._num_classes - 1}, "
                f"found {label}"
            )
        shard = self._random[split].choice(self._splits[split])
        example: dict[str, bytes | int] = {features.IMAGE: image, features.LABEL: label, features.ID: id}
        shard.append(tfrecord.encode_example(example))

    def finish(self) -> None:
        """Puts every shard in its final order."""
        for split, shards in self._splits.items():
            if not any(shard.starts for shard in shards):
                raise DatasetError(f"expected at least one image in the {split} split, found none")
            for shard in shards:
                shard.finish(self._random[split])

    def close(self) -> None:
        """Closes the files, finished or not."""
        for shards in self._splits.values():
            for shard in shards:
                shard.close()


class _Shard:
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
            ordered.flush()
            os.fsync(ordered.fileno())
        self.close()
        self._unordered.unlink()

    def close(self) -> None:
        self._file.close()


def _find_shards(directory: Path) -> list[Path]:
    shards = sorted(p for p in directory.glob(SHARD_PATTERN) if p.is_file())
    if not any(shard.stat().st_size for shard in shards):
        found = "empty ones" if shards else "none"
        raise DatasetError(f"expected TFRecord shards {directory}/{SHARD_PATTERN}, found {found}")
    for shard in shards:
        if match := _SHARD_NAME.fullmatch(shard.name):
            number = sum(s.name.startswith(match["stem"] + "-") for s in shards)
            if number != int(match["count"]):
                raise DatasetError(
                    f"{directory}: expected {int(match['count'])} shards, as their names say, "
                    f"found {number}. Write the dataset again"
                )
    return shards


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path}: {error}") from None


def _check_class_names(names: Sequence[str], where: str) -> None:
    unusable = [name for name in names if not name.strip() or not name.isprintable()]
    if unusable:
        raise DatasetError(f"{where}: expected printable, non-empty names, found {unusable[0]!r}")
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise DatasetError(f"{where}: expected every class once, found more than once: {', '.join(repeated)}")
    if len(names) < 2:
        raise DatasetError(f"{where}: expected at least 2 classes, found {len(names)}")


def _read_schema(path: Path) -> schema_pb2.Schema:
    try:
        return text_format.Parse(_read_text(path), schema_pb2.Schema())
    except text_format.ParseError as error:
        raise DatasetError(f"{path} is no TensorFlow Metadata schema in text form: {error}") from None


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
            f"{path}: {LABELS_FILE} and {SCHEMA_FILE} name the classes differently: {', '.join(names)} and "
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
        with PIL.Image.open(io.BytesIO(image[0])) as opened:
            return opened.height, opened.width
    except OSError:
        raise DatasetError(f"{shard}: the image of record 0 is no PNG or JPEG") from None


def _lock(directory: Path) -> int | None:
    """Locks a directory for as long as this process lives; None where another process holds it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(parent: Path, prefix: str) -> None:
    for partial in parent.glob(f"{prefix}*"):
        with suppress(FileNotFoundError):
            lock = _lock(partial)
            if lock is not None:
                shutil.rmtree(partial, ignore_errors=True)
                os.close(lock)
