"""Reads and writes TFRecord files of tf.train.Example without TensorFlow.

Importing TensorFlow would take longer than most of the commands that use this module.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, message_factory, text_format
from google.protobuf.message import DecodeError

# From tensorflow/core/example/{example,feature}.proto, without the lists of floats.
_EXAMPLE_PROTO = """
name: "example.proto" package: "tensorflow" syntax: "proto3"
message_type {
  name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES }
}
message_type {
  name: "Int64List"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
}
message_type {
  name: "Feature"
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE
          type_name: ".tensorflow.BytesList" oneof_index: 0 }
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
_MAX_RECORD_BYTES = 2**31


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
    """Yields the records of a file, with only one in memory at a time, and verifies their checksums.

    Raises:
      RecordError: a checksum is wrong, or the file ends in the middle of a record.
    """
    with path.open("rb") as file:
        number = 0
        while header := file.read(_HEADER_BYTES):
            where = f"{path}: record {number}"
            length, crc = header[: _LENGTH.size], header[_LENGTH.size :]
            if len(header) < _HEADER_BYTES:
                raise RecordError(f"{where} is cut off")
            if crc != _masked_crc(length) or _LENGTH.unpack(length)[0] > _MAX_RECORD_BYTES:
                raise RecordError(f"{where} is damaged or not a TFRecord (wrong checksum of its length)")
            size = _LENGTH.unpack(length)[0]
            data, crc = file.read(size), file.read(_CRC.size)
            if len(data) < size or len(crc) < _CRC.size:
                raise RecordError(f"{where} is cut off")
            if crc != _masked_crc(data):
                raise RecordError(f"{where} is damaged (wrong checksum)")
            yield data
            number += 1


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


def decode_example(data: bytes) -> dict[str, list[bytes] | list[int]]:
    """Parses a tf.train.Example.

    Args:
      data: the serialised example.

    Returns:
      Name -> values of each feature, except features that are neither bytes nor integers.

    Raises:
      RecordError: the bytes are not a tf.train.Example.
    """
    try:
        example = _Example.FromString(data)
    except DecodeError as error:
        raise RecordError(f"not a tf.train.Example: {error}") from None
    return {
        name: list(getattr(feature, kind).value)
        for name, feature in example.features.feature.items()
        if (kind := feature.WhichOneof("kind"))
    }


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return _CRC.pack((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _example_class() -> Any:
    # In a pool of its own, so that TensorFlow can later register its own messages of the same names.
    file = text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto())
    return message_factory.GetMessages([file])["tensorflow.Example"]


_Example = _example_class()
