"""Reads and writes TFRecord files of tf.train.Example without TensorFlow.

Importing TensorFlow would take longer than most of the commands that use this module.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, message_factory, text_format
from google.protobuf.message import DecodeError

# From tensorflow/core/example/{example,feature}.proto.
_EXAMPLE_PROTO = """
name: "example.proto" package: "tensorflow" syntax: "proto3"
message_type {
  name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES }
}
message_type {
  name: "FloatList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT }
}
message_type {
  name: "Int64List"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
}
message_type {
  name: "Feature"
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE
          type_name: ".tensorflow.BytesList" oneof_index: 0 }
  field { name: "float_list" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE
          type_name: ".tensorflow.FloatList" oneof_index: 0 }
  field { name: "int64_list" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE
          type_name: ".tensorflow.Int64List" oneof_index: 0 }
  oneof_decl { name: "kind" }
}
message_type {
  name: "Features"
  nested_type {
    name: "FeatureEntry"
    options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE
            type_name: ".tensorflow.Feature" }
  }
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE
          type_name: ".tensorflow.Features.FeatureEntry" }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE
          type_name: ".tensorflow.Features" }
}
"""

# A record is the length of the data (uint64), the masked CRC-32C of the length, the data, and the masked
# CRC-32C of the data. All numbers are little-endian.
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CRC.size
# In bytes. No real record is as large as this, so that a greater length means damage; without the limit, a
# damaged file could make the reader allocate terabytes.
_MAX_RECORD_BYTES = 2**29
# Bytes of a record that are asked for at a time. A damaged length may promise more than the file has, and
# TensorFlow's files allocate as much as they are asked for.
_PART_BYTES = 2**24
_MAX_OFFSET = 2**62  # in a file; the system takes no larger one
_START_BYTES = 2**12  # of a file; enough to decompress the header of the first record
# Bytes of compressed data that are read, and of decompressed data that are in memory, at a time.
_BLOCK_BYTES = 2**20
# A compressed file may become this many times as large, or this many bytes. Encoded images hardly shrink, so
# that a file that grows more was made to fill the disk: GZIP can shrink zeros to a thousandth.
_MAX_EXPANSION = 100
_SMALL_BYTES = 2**28
_GZIP_MAGIC = b"\x1f\x8b"

# The values of one feature, and of all features of an example by name.
Values = Sequence[bytes] | Sequence[int] | Sequence[float]
Features = dict[str, Values]


class RecordError(ValueError):
    """A damaged file or record; messages of `read` name the file and the record, counted from 0."""


def write(file: BinaryIO, data: bytes) -> None:
    """Appends a record to an open file.

    Args:
      file: the file, opened for writing in binary mode.
      data: content of the record.
    """
    length = _LENGTH.pack(len(data))
    file.write(length + _masked_crc(length))
    file.write(data)
    file.write(_masked_crc(data))


def read(path: Path) -> Iterator[bytes]:
    """Yields the records of an uncompressed file, one at a time, and verifies their checksums.

    Raises:
      RecordError: a checksum is wrong, or the file ends in the middle of a record.
    """
    for _, data in scan(path):
        yield data


def scan(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, content) of the records of an uncompressed file, as `parse` does."""
    with path.open("rb") as file:
        yield from parse(file, str(path))


def count(path: Path) -> int:
    """Counts the records of an uncompressed file by their lengths, without reading or checking them."""
    number = offset = 0
    with path.open("rb") as file:
        while len(header := os.pread(file.fileno(), _LENGTH.size, offset)) == _LENGTH.size:
            number += 1
            offset += _HEADER_BYTES + _LENGTH.unpack(header)[0] + _CRC.size
            if offset > _MAX_OFFSET:  # a damaged length
                break
    return number


def parse(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, content) of the records of an open, uncompressed file, and verifies their checksums.

    Only one record is in memory at a time. The offset is that of the content in the file, in bytes.

    Args:
      file: the file, opened for reading in binary mode; `read` returns fewer bytes only at its end.
      name: name of the file for messages.

    Raises:
      RecordError: a checksum is wrong, or the file ends in the middle of a record.
    """
    number = offset = 0
    while header := file.read(_HEADER_BYTES):
        where = f"{name}: record {number}"
        if len(header) < _HEADER_BYTES:
            raise RecordError(f"{where} is cut off")
        if not _is_header(header):
            raise RecordError(f"{where} is damaged or not a TFRecord (wrong checksum of its length)")
        size = _LENGTH.unpack_from(header)[0]
        data, crc = _read(file, size), file.read(_CRC.size)
        if len(data) < size or len(crc) < _CRC.size:
            raise RecordError(f"{where} is cut off")
        if crc != _masked_crc(data):
            raise RecordError(f"{where} is damaged (wrong checksum)")
        yield offset + _HEADER_BYTES, data
        number += 1
        offset += _HEADER_BYTES + size + _CRC.size


def compression(path: Path) -> str | None:
    """Finds out from the first bytes of a file whether it holds records and how they are compressed.

    Returns:
      `""` for uncompressed records and for an empty file; `"GZIP"` or `"ZLIB"` for compressed records, which
      `decompress` reads; None if the file does not begin with a record.
    """
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if not start or _is_header(start[:_HEADER_BYTES]):
        return ""
    engine = _decompressor()
    try:
        header = engine.decompress(start, _HEADER_BYTES)
    except zlib.error:
        return None
    # The start of what other compressed files hold, such as a .tar.gz, does not look like a record.
    if not _is_header(header) and not (engine.eof and not header):
        return None
    return "GZIP" if start.startswith(_GZIP_MAGIC) else "ZLIB"


def decompress(source: Path, target: Path) -> None:
    """Writes the content of a GZIP or ZLIB file to a new file, with only a few megabytes of it in memory.

    Raises:
      RecordError: the file is damaged, ends too soon, or becomes more than 100 times as large.
    """
    engine = _decompressor()
    most = max(_MAX_EXPANSION * source.stat().st_size, _SMALL_BYTES)
    with source.open("rb") as compressed, target.open("xb") as plain:
        try:
            while data := compressed.read(_BLOCK_BYTES):
                while data:
                    if engine.eof:  # GZIP files that were joined one after the other are one GZIP file
                        engine = _decompressor()
                    plain.write(engine.decompress(data, _BLOCK_BYTES))
                    if plain.tell() > most:
                        raise RecordError(
                            f"{source}: expected images, which hardly shrink when they are compressed; found "
                            f"more than {most:,} bytes in {source.stat().st_size:,}"
                        )
                    data = engine.unused_data if engine.eof else engine.unconsumed_tail
            plain.write(engine.flush())
        except zlib.error as error:
            raise RecordError(f"{source} is damaged: {error}") from None
        if not engine.eof:
            raise RecordError(f"{source} is cut off")


def encode_example(features: dict[str, bytes | int]) -> bytes:
    """Serialises a tf.train.Example with one value per feature.

    Args:
      features: name -> value of each feature.

    Returns:
      The serialised example; equal features give equal bytes.
    """
    example = _Example()
    for name, value in features.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return example.SerializeToString(deterministic=True)


def decode_example(data: bytes) -> Features:
    """Parses a tf.train.Example.

    Args:
      data: the serialised example.

    Returns:
      Name -> values of each feature; features without a list of values are left out.

    Raises:
      RecordError: the bytes are not a tf.train.Example.
    """
    return {
        name: list(getattr(feature, kind).value)
        for name, feature in _parse(data).features.feature.items()
        if (kind := feature.WhichOneof("kind"))
    }


def kinds(data: bytes) -> dict[str, str]:
    """Returns what the features of a tf.train.Example hold, without copying their values.

    Args:
      data: the serialised example.

    Returns:
      Name -> `bytes`, `float` or `int64` of each feature; features without a list of values are left out.

    Raises:
      RecordError: the bytes are not a tf.train.Example.
    """
    return {
        name: kind.removesuffix("_list")
        for name, feature in _parse(data).features.feature.items()
        if (kind := feature.WhichOneof("kind"))
    }


def replace_integer(data: bytes, name: str, value: int) -> bytes:
    """Returns a tf.train.Example with another integer in one feature; all other features stay as they are.

    Raises:
      RecordError: the bytes are not a tf.train.Example.
    """
    example = _parse(data)
    example.features.feature[name].int64_list.value[:] = [value]
    return bytes(example.SerializeToString(deterministic=True))


def _parse(data: bytes) -> Any:
    try:
        return _Example.FromString(data)
    except (DecodeError, SystemError, UnicodeDecodeError) as error:
        # Some versions of protobuf raise a SystemError if the name of a feature is not UTF-8.
        raise RecordError(f"not a tf.train.Example: {error}") from None


def _read(file: BinaryIO, size: int) -> bytes:
    """Reads a number of bytes, or those up to the end of the file."""
    parts = []
    while size and (part := file.read(min(size, _PART_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _is_header(header: bytes) -> bool:
    """Returns whether the checksum of a record's length is right and the length is plausible."""
    length, crc = header[: _LENGTH.size], header[_LENGTH.size :]
    return crc == _masked_crc(length) and _LENGTH.unpack(length)[0] <= _MAX_RECORD_BYTES


def _decompressor() -> Any:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: the header says whether it is GZIP or ZLIB


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return _CRC.pack((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _example_class() -> Any:
    # In a pool of its own, so that TensorFlow can later register its own messages of the same names.
    file = text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto())
    return message_factory.GetMessages([file])["tensorflow.Example"]


_Example = _example_class()
