"""Copies the shards of a dataset directory, on a file system or in a bucket, and verifies their records."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import logging
import posixpath
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2

from datasets import digest, directory, tfrecord
from models import durations

# Shards that are copied at the same time, each with a block of its data in memory. Reading from a bucket
# needs more of them than there are cores.
_THREADS = 8
_BLOCK_BYTES = 4 * 2**20
# Type of a feature in the schema -> what an example holds then.
_KINDS = {schema_pb2.BYTES: "bytes", schema_pb2.FLOAT: "float", schema_pb2.INT: "int64"}
_MAX_TEXT_BYTES = 2**26  # of the schema and of the class names

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ingested:
    """What was copied.

    Attributes:
      counts: number of examples of each split.
      digest: digest of the dataset directory, see `datasets.digest`.
      schema: content of the schema file.
    """

    counts: Mapping[str, int]
    digest: str
    schema: bytes


def ingest(source: str, destinations: Mapping[str, str], expected_digest: str) -> Ingested:
    """Copies all shards of a dataset directory.

    Args:
      source: path or URI of the dataset directory.
      destinations: split -> the folder for its shards, which is created.
      expected_digest: the digest that the dataset directory must have; `digest.ANY` accepts any.

    Returns:
      What was copied.

    Raises:
      DatasetError: the directory is incomplete; a record is damaged, is no example, or has a feature of
        another type than in the schema (the message names the shard and the record); a split has no examples;
        or the digest is another one.
    """
    texts = {
        name: _read(posixpath.join(source, name)) for name in (directory.SCHEMA_FILE, directory.LABELS_FILE)
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in texts.items()}
    kinds = _expected_kinds(texts[directory.SCHEMA_FILE], posixpath.join(source, directory.SCHEMA_FILE))
    shards = {
        posixpath.join(split, name): posixpath.join(destinations[split], name)
        for split in directory.SPLITS
        for name in _list_shards(posixpath.join(source, split))
    }
    for folder in destinations.values():
        tf.io.gfile.makedirs(folder)
    counts = dict.fromkeys(directory.SPLITS, 0)
    pace = durations.Pace()
    with ThreadPoolExecutor(_THREADS) as pool:
        copies = {
            pool.submit(_copy, posixpath.join(source, name), target, kinds): name
            for name, target in shards.items()
        }
        try:
            for finished, copy in enumerate(as_completed(copies), start=1):
                name = copies[copy]
                count, digests[name] = copy.result()
                counts[posixpath.dirname(name)] += count
                if pace.is_due():
                    _LOG.info("copied %d of %d shards", finished, len(shards))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for split, count in counts.items():
        if not count:
            raise directory.DatasetError(f"{source}: expected at least one example in {split}/, found none")
    found = digest.combine(digests)
    if expected_digest not in (digest.ANY, found):
        raise directory.DatasetError(
            f"{source}: expected the dataset directory whose digest is {expected_digest}, found {found}. Its "
            "files are not those that the pipeline was started or compiled with: run or compile again, or "
            "upload the directory again"
        )
    return Ingested(counts, found, texts[directory.SCHEMA_FILE])


def _list_shards(folder: str) -> list[str]:
    # Not by a pattern, in which some characters of the folder's path would have a meaning of their own.
    try:
        names = tf.io.gfile.listdir(folder)
    except tf.errors.NotFoundError:
        raise directory.DatasetError(f"expected a folder with TFRecord shards, found no {folder}") from None
    shards = sorted(name for name in names if fnmatch.fnmatchcase(name, directory.SHARD_PATTERN))
    directory.check_shards(shards, folder)
    return shards


def _read(path: str) -> bytes:
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            size = file.size()
            if size > _MAX_TEXT_BYTES:
                most = f"{_MAX_TEXT_BYTES / 1e6:.0f} MB"
                raise directory.DatasetError(f"{path}: expected at most {most}, found {size / 1e6:,.0f} MB")
            return file.read()
    except tf.errors.NotFoundError:
        raise directory.DatasetError(
            f"expected a dataset directory with {posixpath.basename(path)}, found no {path}"
        ) from None


def _expected_kinds(schema: bytes, path: str) -> dict[str, str]:
    """Returns the features of a schema with what they hold, in the words of `tfrecord.kinds`."""
    try:
        parsed = directory.parse_schema(schema.decode(), path)
    except UnicodeDecodeError as error:
        raise directory.DatasetError(f"{path}: expected text in UTF-8 ({error})") from None
    return {feature.name: _KINDS[feature.type] for feature in parsed.feature if feature.type in _KINDS}


def _check(record: bytes, expected: Mapping[str, str]) -> None:
    """Checks that a record is an example whose features have the types of the schema.

    A step that parses the examples would fail without the name of the shard and of the record. Whether a
    value is missing or out of range is left to the ExampleValidator.
    """
    found = tfrecord.kinds(record)
    for name, kind in found.items():
        if kind != expected.get(name, kind):
            raise tfrecord.RecordError(
                f"expected {expected[name]} in {name!r}, as the schema says, found {kind}"
            )


def _copy(source: str, target: str, kinds: Mapping[str, str]) -> tuple[int, str]:
    """Copies a shard and verifies its records; returns their number and the SHA-256 of the file."""
    count = 0
    sha = hashlib.sha256()
    with tf.io.gfile.GFile(source, "rb") as opened, tf.io.gfile.GFile(target, "wb") as copy:

        def receive(block: bytes) -> None:
            sha.update(block)
            copy.write(block)

        records = tfrecord.parse(io.BufferedReader(_Tee(opened.read, receive), _BLOCK_BYTES), source)
        try:
            for _, record in records:
                try:
                    _check(record, kinds)
                except tfrecord.RecordError as error:
                    raise tfrecord.RecordError(f"{source}: record {count}: {error}") from None
                count += 1
        except tfrecord.RecordError as error:
            raise directory.DatasetError(f"{error}. Write the dataset again") from None
    return count, sha.hexdigest()


class _Tee(io.RawIOBase):
    """A file that hands every block that is read from it to a receiver, too."""

    def __init__(self, read: Callable[[int], bytes], receive: Callable[[bytes], None]) -> None:
        self._read = read
        self._receive = receive

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        block = self._read(len(buffer))
        self._receive(block)
        buffer[: len(block)] = block
        return len(block)
