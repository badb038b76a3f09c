"""Decodes images upright and opaque, in a graph; `datasets.decoding` does the same with Pillow."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from datasets.decoding import MAX_PIXELS
from models import image_files
from settings.images import WHITE, Color

CHANNELS = 3

# Ways to decode an image.
_PLAIN, _PNG, _JPEG = range(3)

# The first bytes of files, and the positions of further bytes that tell how to decode them.
_HEAD_BYTES = 48
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_SIDES = 16  # position of width and height, four bytes each
_PNG_COLOR_TYPE = 25
_ALPHA_COLOR_TYPES = (4, 6)  # grey and RGB with an alpha channel
_PNG_SECOND_CHUNK = 37
_PNG_PIXELS = b"IDAT"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_JPEG_JFIF = b"\xe0\x00\x10"  # the segment that most encoders write first; it ends at the position below
_JPEG_AFTER_JFIF = 20
_GIF_SIGNATURE = b"GIF8"
_GIF_SIDES = 6  # position of width and height, two bytes each
_JPEG_TABLES = 0xDB  # the segment that follows those with metadata


def map_decoded(
    image_bytes: tf.Tensor,
    function: Callable[[tf.Tensor], tf.Tensor],
    signature: tf.TensorSpec,
    background: Color = WHITE,
    max_pixels: int = MAX_PIXELS,
) -> tf.Tensor:
    """Decodes images and applies a function to each of them.

    Transparent pixels are composed on the background, and JPEG images are turned as their EXIF says. Images
    with more than 8 bits per channel are reduced to the highest 8. GIF files have their first frame decoded,
    in which TensorFlow makes transparent pixels black.

    Args:
      image_bytes: encoded images, string [batch]: PNG, JPEG, or another format that TensorFlow decodes.
      function: maps an image, uint8 [height, width, 3], to a tensor.
      signature: shape and type of the tensor that `function` returns, the same for all images.
      background: colour behind transparent pixels.
      max_pixels: largest number of pixels of an image; larger ones are not decoded.

    Returns:
      The results of `function`, [batch, ...].

    Raises:
      tf.errors.InvalidArgumentError: the bytes are not an image that TensorFlow can decode, or one of too
        many pixels; the message then names the position of the first such image in the batch.
    """
    image_bytes = _check_sizes(image_bytes, max_pixels)

    def plain(encoded: tf.Tensor) -> tf.Tensor:
        return function(_decode_opaque(encoded))

    def any_way(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        encoded, way = inputs
        ways = {
            _PLAIN: lambda: _decode_opaque(encoded),
            _PNG: lambda: _decode_png(encoded, background),
            _JPEG: lambda: _turn_upright(_decode_opaque(encoded), image_files.orientation(encoded)),
        }
        image = tf.switch_case(way, ways)
        return function(tf.ensure_shape(image, [None, None, CHANNELS]))

    ways = _ways(image_bytes)
    # Most batches have only opaque images without EXIF, for which the choice would take longer than the test.
    return tf.cond(
        tf.reduce_all(ways == _PLAIN),
        lambda: tf.map_fn(plain, image_bytes, fn_output_signature=signature, name="decode"),
        lambda: tf.map_fn(any_way, (image_bytes, ways), fn_output_signature=signature, name="decode_any"),
    )


def check(image_bytes: tf.Tensor) -> tf.Tensor:
    """Checks that images can be decoded.

    Args:
      image_bytes: encoded images, string [batch].

    Returns:
      `image_bytes`. Evaluating it raises an InvalidArgumentError, which names the position of the first
      image that cannot be decoded. Files that begin and end as a PNG or a JPEG does are not tried: if one
      is damaged in between, `map_decoded` raises the error, which names no position.
    """
    doubtful = tf.where(~_looks_complete(image_bytes))[:, 0]

    def try_one(encoded: tf.Tensor) -> tf.Tensor:
        return _decode_opaque(_check_sizes(encoded[tf.newaxis], MAX_PIXELS)[0])

    def try_doubtful() -> tf.Tensor:
        # Only tf.data can go on after an error. It takes a millisecond, more than a small network needs.
        tried = tf.data.Dataset.from_tensor_slices(tf.gather(image_bytes, doubtful)).enumerate()
        decoded = tried.map(lambda number, encoded: (number, try_one(encoded))).ignore_errors()
        # The number of images before the first one that cannot be decoded.
        good = decoded.reduce(
            tf.constant(0, tf.int64), lambda good, each: tf.where(each[0] == good, good + 1, good)
        )
        position = tf.concat([doubtful, [-1]], 0)[good] + 1
        message = tf.strings.format(
            "image {} of {} cannot be decoded: expected a whole PNG, JPEG, BMP or GIF file",
            (position, tf.size(image_bytes)),
        )
        with tf.control_dependencies([tf.debugging.Assert(position == 0, [message])]):
            return tf.identity(image_bytes)

    return tf.cond(tf.size(doubtful) > 0, try_doubtful, lambda: tf.identity(image_bytes))


def _check_sizes(image_bytes: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Returns images, string [batch], if the headers of all promise few enough pixels.

    A few bytes can promise billions of pixels, for which TensorFlow reserves memory before it decodes them.
    Only a BMP cannot be smaller than its pixels.
    """
    head = tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=_HEAD_BYTES)
    is_jpeg = _has(head, _JPEG_SIGNATURE)

    def area(position: int, length: int, big_endian: bool) -> tf.Tensor:
        sides = [
            image_files.number(head[:, start : start + length], big_endian)
            for start in (position, position + length)
        ]
        # Not as integers: the product of two sides of four bytes does not fit.
        return tf.cast(sides[0], tf.float64) * tf.cast(sides[1], tf.float64)

    def jpeg_area(encoded: tf.Tensor) -> tf.Tensor:
        shape = tf.cast(tf.image.extract_jpeg_shape(encoded), tf.float64)
        return shape[0] * shape[1]

    def areas() -> tf.Tensor:
        jpegs = tf.where(is_jpeg)
        found = tf.map_fn(jpeg_area, tf.gather_nd(image_bytes, jpegs), fn_output_signature=tf.float64)
        return tf.tensor_scatter_nd_update(others, jpegs, found)

    others = tf.where(
        _has(head, _PNG_SIGNATURE),
        area(_PNG_SIDES, 4, big_endian=True),
        tf.where(_has(head, _GIF_SIGNATURE), area(_GIF_SIDES, 2, big_endian=False), 0),
    )
    found = tf.cond(tf.reduce_any(is_jpeg), areas, lambda: others)
    is_large = found > max_pixels
    position = tf.where(tf.concat([is_large, [True]], 0))[0, 0] + 1
    message = tf.strings.format(
        f"image {{}} of {{}} has more than {max_pixels} pixels", (position, tf.size(image_bytes))
    )

    def refuse() -> tf.Tensor:
        # Not by an assertion: that is an effect besides the output, for which Transform would read all images
        # once more before it writes its graph. A text that is no number makes this operation fail with it.
        return tf.gather(
            image_bytes, tf.range(tf.size(image_bytes)) + tf.strings.to_number(message, tf.int32)
        )

    return tf.cond(tf.reduce_any(is_large), refuse, lambda: tf.identity(image_bytes))


def _has(head: tf.Tensor, value: bytes, position: int = 0) -> tf.Tensor:
    """Returns which files, whose first bytes are uint8 [batch, bytes], have a value at a position: bool."""
    return tf.reduce_all(head[:, position : position + len(value)] == list(value), axis=1)


def _looks_complete(image_bytes: tf.Tensor) -> tf.Tensor:
    """Returns which files, string [batch], begin and end as a PNG or a JPEG does: bool [batch]."""

    def has(start: bytes, end: bytes) -> tf.Tensor:
        size = tf.strings.length(image_bytes)
        first = tf.strings.substr(image_bytes, tf.zeros_like(size), tf.minimum(size, len(start)))
        count = tf.minimum(size, len(end))
        return tf.equal(first, start) & tf.equal(tf.strings.substr(image_bytes, size - count, count), end)

    return has(_PNG_SIGNATURE, _PNG_END) | has(_JPEG_SIGNATURE, _JPEG_END)


def _ways(image_bytes: tf.Tensor) -> tf.Tensor:
    """Returns how to decode each image, int32 [batch].

    Only files that begin like most files without transparency and without EXIF are decoded in the plain way,
    which takes the least time. The other ways suit every PNG and every JPEG.
    """
    head = tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=_HEAD_BYTES)
    opaque = ~_has_alpha(head) & _has(head, _PNG_PIXELS, _PNG_SECOND_CHUNK)
    tables = bytes([_JPEG_SIGNATURE[-1], _JPEG_TABLES])
    no_exif = _has(head, tables, 2) | (_has(head, _JPEG_JFIF, 3) & _has(head, tables, _JPEG_AFTER_JFIF))
    is_png, is_jpeg = _has(head, _PNG_SIGNATURE), _has(head, _JPEG_SIGNATURE)
    return tf.where(is_png & ~opaque, _PNG, tf.where(is_jpeg & ~no_exif, _JPEG, _PLAIN))


def _has_alpha(png: tf.Tensor) -> tf.Tensor:
    """Returns which PNG files, uint8 [..., bytes], have an alpha channel: bool [...]."""
    return tf.reduce_any(png[..., _PNG_COLOR_TYPE, tf.newaxis] == _ALPHA_COLOR_TYPES, axis=-1)


def _decode_opaque(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_image(encoded, channels=CHANNELS, expand_animations=False)
    return tf.ensure_shape(image, [None, None, CHANNELS])


def _decode_png(encoded: tf.Tensor, background: Color) -> tf.Tensor:
    """Decodes a PNG and composes it on a background, if it has transparency."""
    head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEAD_BYTES)
    # The alpha channel that TensorFlow adds to an opaque PNG with few bits per pixel is not opaque.
    is_transparent = _has_alpha(head) | image_files.has_transparent_colors(encoded)

    def composed() -> tf.Tensor:
        image = tf.cast(tf.io.decode_png(encoded, channels=CHANNELS + 1), tf.int32)
        colors, alpha = image[..., :CHANNELS], image[..., CHANNELS:]
        mixed = colors * alpha + tf.constant(background) * (255 - alpha)
        return tf.cast((mixed + 127) // 255, tf.uint8)  # rounded

    return tf.cond(is_transparent, composed, lambda: _decode_opaque(encoded))


def _turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image [height, width, channels] as its EXIF orientation, from 1 to 8, says."""
    # Every orientation is a transposition or none, followed by a reversal of rows, columns, both or none.
    axes = tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2])
    reverses_rows = tf.reduce_any(orientation == [3, 4, 7, 8])
    reverses_columns = tf.reduce_any(orientation == [2, 3, 6, 7])
    reversed_axes = tf.boolean_mask([0, 1], tf.stack([reverses_rows, reverses_columns]))
    return tf.reverse(tf.transpose(image, axes), reversed_axes)
