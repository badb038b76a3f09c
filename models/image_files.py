"""Reads, in a graph, what image files say about their pixels: transparency of PNG, orientation of JPEG.

No function here raises an error, whatever the bytes are: damaged files are left to the decoder.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

UPRIGHT = 1

# A PNG is a signature and then chunks: four bytes with the length of the content, the type, the content, and
# a checksum of four bytes. The chunk tRNS makes single colours transparent; it comes before the pixels, IDAT.
_FIRST_CHUNK = 8
_CHUNK_FRAME = 12
_TRANSPARENT_COLORS = b"tRNS"
_LAST_CHUNKS = (_TRANSPARENT_COLORS, b"IDAT", b"")  # an empty type is the end of the file

# A JPEG is a sequence of segments: 0xFF, a byte that says what follows, two bytes with the length from there
# on, and the content. Cameras record in EXIF how they were held. The pixels follow the "start of scan".
_FIRST_SEGMENT = 2
_MARKER = 0xFF
_START_OF_SCAN = 0xDA
_SEGMENT_HEAD = 4
_EXIF_SEGMENT = b"\xff\xe1"
_EXIF_HEADER = b"Exif\0\0"

# EXIF is a TIFF structure: the byte order, the position of a directory, and there a count and the entries,
# each with a tag, the type of its values, their number, and the value.
_ORIENTATION = 0x0112  # the tag
_SHORT, _LONG = 3, 4  # types of values: 2 and 4 bytes
_ENTRY_BYTES = 12

# Chunks or segments to look at. Files have fewer before what is looked for; the limit bounds the time that a
# file made with malice can take.
_MOST_PARTS = 100


def has_transparent_colors(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether a PNG, scalar string, has a chunk that makes some colours transparent: bool scalar."""

    def chunk_type(position: tf.Tensor) -> tf.Tensor:
        return _bytes_at(encoded, position + 4, 4)

    def next_chunk(position: tf.Tensor) -> tf.Tensor:
        return position + _CHUNK_FRAME + _number_at(encoded, position, 4)

    position = _walk(
        _FIRST_CHUNK, lambda position: tf.reduce_all(chunk_type(position) != _LAST_CHUNKS), next_chunk
    )
    return tf.equal(chunk_type(position), _TRANSPARENT_COLORS)


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the orientation of a JPEG; `datasets.decoding.orientation` does the same without TensorFlow.

    Args:
      encoded: a JPEG file, scalar string.

    Returns:
      int32 scalar from 1 to 8, as EXIF counts them; 1, which is upright, if there is no valid orientation.
    """
    tiff = _exif(encoded)
    size = tf.strings.length(tiff)
    # All numbers have their most significant byte first ("MM", as Motorola) or last ("II", as Intel).
    byte_order = _bytes_at(tiff, 0, 4)
    big_endian = tf.equal(byte_order, b"MM\0*")
    is_tiff = big_endian | tf.equal(byte_order, b"II*\0")
    directory = tf.minimum(_number_at(tiff, 4, 4, big_endian), tf.cast(size, tf.int64))
    start = tf.cast(directory, tf.int32) + 2
    complete = tf.maximum(size - start, 0) // _ENTRY_BYTES
    count = tf.minimum(tf.cast(_number_at(tiff, directory, 2, big_endian), tf.int32), complete)
    count = tf.where(is_tiff, count, 0)
    raw_entries = tf.io.decode_raw(_bytes_at(tiff, start, count * _ENTRY_BYTES), tf.uint8)
    entries = tf.reshape(raw_entries, [-1, _ENTRY_BYTES])
    types = number(entries[:, 2:4], big_endian)
    values = tf.where(
        types == _SHORT, number(entries[:, 8:10], big_endian), number(entries[:, 8:12], big_endian)
    )
    valid = (
        (number(entries[:, :2], big_endian) == _ORIENTATION)
        & ((types == _SHORT) | (types == _LONG))
        & (number(entries[:, 4:8], big_endian) == 1)
        & (values >= UPRIGHT)
        & (values <= 8)
    )
    return tf.cast(tf.concat([values[valid], [UPRIGHT]], axis=0)[0], tf.int32)


def _exif(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the TIFF structure in the EXIF segment of a JPEG, scalar string; empty if there is none."""
    header = _SEGMENT_HEAD + len(_EXIF_HEADER)

    def is_exif(position: tf.Tensor) -> tf.Tensor:
        has_header = tf.equal(_bytes_at(encoded, position + _SEGMENT_HEAD, len(_EXIF_HEADER)), _EXIF_HEADER)
        return has_header & tf.equal(_bytes_at(encoded, position, 2), _EXIF_SEGMENT)

    def is_other_segment(position: tf.Tensor) -> tf.Tensor:
        is_segment = _number_at(encoded, position, 1) == _MARKER
        return is_segment & (_number_at(encoded, position + 1, 1) != _START_OF_SCAN) & ~is_exif(position)

    def next_segment(position: tf.Tensor) -> tf.Tensor:
        # The first byte of a segment may be repeated.
        is_repeated = _number_at(encoded, position + 1, 1) == _MARKER
        return position + tf.where(is_repeated, tf.constant(1, tf.int64), 2 + length(position))

    def length(position: tf.Tensor) -> tf.Tensor:
        return _number_at(encoded, position + 2, 2)

    position = _walk(_FIRST_SEGMENT, is_other_segment, next_segment)
    rest = tf.maximum(2 + length(position) - header, 0)
    return _bytes_at(encoded, position + header, tf.where(is_exif(position), rest, tf.zeros_like(rest)))


def _walk(
    start: int, continues: Callable[[tf.Tensor], tf.Tensor], advance: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Advances a position, int64 scalar, while a condition on it holds, but not through too many parts."""
    (position,) = tf.while_loop(
        continues,
        lambda position: [advance(position)],
        [tf.constant(start, tf.int64)],
        maximum_iterations=_MOST_PARTS,
    )
    return position


def _bytes_at(data: tf.Tensor, position: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """Returns bytes of a scalar string; fewer than `count`, if it ends before."""
    # `substr` raises an error if the position is behind the end.
    start = tf.minimum(tf.cast(position, tf.int64), tf.cast(tf.strings.length(data), tf.int64))
    return tf.strings.substr(data, start, tf.cast(count, tf.int64))


def _number_at(
    data: tf.Tensor, position: tf.Tensor | int, length: int, big_endian: tf.Tensor | bool = True
) -> tf.Tensor:
    """Reads an unsigned number of a scalar string, as int64; bytes behind the end count as zeros."""
    return number(
        tf.io.decode_raw(_bytes_at(data, position, length), tf.uint8, fixed_length=length), big_endian
    )


def number(data: tf.Tensor, big_endian: tf.Tensor | bool) -> tf.Tensor:
    """Reads unsigned numbers of up to seven bytes.

    Args:
      data: uint8 [..., bytes].
      big_endian: whether the most significant byte comes first.

    Returns:
      int64 [...].
    """
    weights = [256**power for power in range(data.shape[-1])]
    ordered = tf.where(big_endian, tf.constant(weights[::-1], tf.int64), tf.constant(weights, tf.int64))
    return tf.reduce_sum(tf.cast(data, tf.int64) * ordered, axis=-1)
