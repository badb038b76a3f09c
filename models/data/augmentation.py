"""Random rotation, shift, crop and cutout of training images, and their mirror images in turn."""

from __future__ import annotations

import math

import tensorflow as tf

from settings.training import AugmentationConfig

# Multiples of the first two, modulo 1, fill the unit square evenly, from the first few on, as those of the
# third fill a line (Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018): 1/x and 1/x^2
# for x^3 = x + 1, and 1/x for x^2 = x + 1. The roots of 2 and 3 fill another square.
_STRIDES = (0.7548776662, 0.5698402910, 0.6180339887, 0.4142135624, 0.7320508076)
_GREY = 0.5


def augment(
    images: tf.Tensor,
    mirrored: tf.Tensor,
    draws: tf.Tensor,
    config: AugmentationConfig,
    part: tf.Tensor | None = None,
) -> tf.Tensor:
    """Turns some images of a batch into their mirror images, rotates and shifts each by its own, crops, and
    covers a rectangle of what is left.

    All but the last is one bilinear warp about the image's centre, so that pixels are interpolated once;
    what is moved in from outside is a reflection of what is inside.

    Args:
      images: float32 [batch, height, width, channels] in [0, 1].
      mirrored: bool [batch]; left to right.
      draws: of each image, float32 [batch, 5] in [0, 1): how far down and to the right what is seen of it
        lies, between the extremes of shift and crop together, its angle, between those of the rotation, and
        how far down and to the right the centre of the rectangle lies.
      config: strengths; a strength of 0 switches its change off.
      part: of both sides that is kept of each image, float32 scalar in (0, 1]; None keeps all.

    Returns:
      float32 [batch, height, width, channels] in [0, 1]; with `part`, the sides are rounded and not static.
      Without any change `images` themselves.
    """
    if part is not None or config.rotation_degrees or config.shift_fraction or config.flip:
        images = _move(images, mirrored, draws, config, part)
    return cut_out(images, draws[:, 3:], config.cutout_fraction) if config.cutout_fraction else images


def _move(
    images: tf.Tensor,
    mirrored: tf.Tensor,
    draws: tf.Tensor,
    config: AugmentationConfig,
    part: tf.Tensor | None,
) -> tf.Tensor:
    largest_angle = math.radians(config.rotation_degrees)
    angle = (2.0 * draws[:, 2] - 1.0) * largest_angle
    full = tf.shape(images)[1:3]
    size = tf.cast(full, tf.float32)
    # By whole pixels: images that are not turned as well are not blurred, then.
    shift = tf.round((1.0 - 2.0 * draws[:, :2]) * config.shift_fraction * size) / size
    if part is None:
        return warp(images, angle, shift, mirrored)
    kept = tf.cast(tf.round(size * part), tf.int32)
    corner = tf.floor(draws[:, :2] * tf.cast(full - kept + 1, tf.float32))
    return warp(images, angle, shift, mirrored, corner, kept)


def cut_out(images: tf.Tensor, center: tf.Tensor, fraction: float) -> tf.Tensor:
    """Makes a rectangle of each image grey (cutout, arXiv:1708.04552).

    Args:
      images: float32 [batch, height, width, channels] in [0, 1].
      center: of the rectangles, (down, right), as fractions of the sides, float32 [batch, 2] in [0, 1).
        What lies outside the image is cut off.
      fraction: of the image's sides, the rectangle's sides, which are rounded to whole pixels.

    Returns:
      float32 of the shape of `images`.
    """
    inside = []
    for axis, size in enumerate(tf.unstack(tf.cast(tf.shape(images)[1:3], tf.float32))):
        side = tf.round(size * fraction)
        first = tf.round(center[:, axis, None] * size - side / 2)
        position = tf.range(size)
        inside.append((position >= first) & (position < first + side))
    down, right = inside
    return tf.where((down[:, :, None] & right[:, None, :])[..., None], _GREY, images)


def first_draws(count: int, seed: int) -> tf.Tensor:
    """Returns the draws of each image of a split for the first epoch; see `augment`."""
    return tf.random.stateless_uniform([count, len(_STRIDES)], [seed, -2])


def draws(first: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    """Says how images are changed in an epoch.

    In any epochs running, the changes of an image are spread evenly over all that are possible, where those
    of independent draws are alike by chance.

    Args:
      first: their `first_draws`, float32 [batch, 5].
      epoch: int64 scalar, from 0.

    Returns:
      float32 [batch, 5] in [0, 1); in each epoch uniform if `first` is.
    """
    return (first + tf.cast(epoch, tf.float32) * tf.constant(_STRIDES)) % 1.0


def half(count: int, seed: int) -> tf.Tensor:
    """Picks a random half of the images of a split; returns bool [count]."""
    return tf.random.stateless_uniform([count], [seed, -1]) < 0.5


def mirrored(of_half: tf.Tensor, epoch: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Says which images are mirrored: with `config.flip` a half of the split, then the other, in turn.

    An image and its mirror image are seen equally often then, and never the same one in two epochs running
    (alternating flip, arXiv:2404.00498).

    Args:
      of_half: bool [batch], whether each image is of the first half.
      epoch: int64 scalar, from 0.
      config: whether any are.

    Returns:
      bool [batch].
    """
    return tf.equal(of_half, epoch % 2 == 0) & config.flip


def warp(
    images: tf.Tensor,
    angle: tf.Tensor,
    shift: tf.Tensor,
    mirrored: tf.Tensor,
    corner: tf.Tensor | None = None,
    kept: tf.Tensor | None = None,
) -> tf.Tensor:
    """Mirrors left to right, then rotates, then shifts, then crops.

    Args:
      images: float32 [batch, height, width, channels].
      angle: float32 [batch] in radians, counter-clockwise.
      shift: float32 [batch, 2], (down, right), as fractions of height and width.
      mirrored: bool [batch].
      corner: of what is kept of each image, float32 [batch, 2], whole pixels (down, right);
        None: all is.
      kept: height and width of it, int32 [2].

    Returns:
      float32 in the range of `images`, of their shape, or [batch, *kept, channels].
    """
    full = tf.shape(images)[1:3]
    height, width = tf.unstack(tf.cast(full, tf.float32))
    center_y, center_x = (height - 1.0) / 2.0, (width - 1.0) / 2.0
    cosine, sine = tf.cos(angle), tf.sin(angle)
    sign = tf.where(mirrored, -1.0, 1.0)
    # What comes to (x, y) was at (a x + b y + c, d x + e y + f): undo the crop and the shift, rotate back
    # about the centre, mirror back about it.
    offset_y = center_y + shift[:, 0] * height
    offset_x = center_x + shift[:, 1] * width
    if corner is not None:
        offset_y -= corner[:, 0]
        offset_x -= corner[:, 1]
    a, b = sign * cosine, -sign * sine
    d, e = sine, cosine
    rows = (a, b, center_x - a * offset_x - b * offset_y, d, e, center_y - d * offset_x - e * offset_y)
    warped = _interpolated(images, *_places(tf.stack(rows), full, full if kept is None else kept))
    if kept is None:
        return tf.ensure_shape(warped, images.shape)
    return tf.ensure_shape(warped, [images.shape[0], None, None, images.shape[3]])


# Two functions, so that XLA computes the places once and not for each channel again. TensorFlow's projective
# transform does that, and takes twice as long.
@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _places(
    rows: tf.Tensor, full: tf.Tensor, size: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
    """Says between which pixels the place of each pixel (x, y) lies, (a x + b y + c, d x + e y + f).

    Args:
      rows: a to f of each image, float32 [6, batch].
      full: height and width of the images, int32 [2].
      size: of the output, int32 [2].

    Returns:
      The four pixels, counted through all images, from left to right, then down, int32 [batch, *size] each;
      and how far to the right and down of the first one the place is, in [0, 1), float32 [batch, *size] each.
    """
    a, b, c, d, e, f = tf.unstack(rows[:, :, None, None])
    y, x = (tf.range(tf.cast(side, tf.float32)) for side in tf.unstack(size))
    x, y = x[None, None, :], y[None, :, None]
    from_x, from_y = a * x + b * y + c, d * x + e * y + f
    left, top = tf.floor(from_x), tf.floor(from_y)
    height, width = tf.unstack(full)
    first = tf.range(tf.shape(rows)[1])[:, None, None] * height
    pixels = [
        (first + _reflected(row, height)) * width + _reflected(column, width)
        for row in (top, top + 1.0)
        for column in (left, left + 1.0)
    ]
    return pixels, from_x - left, from_y - top


def _reflected(position: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns which of `count` pixels in a row is at a position; they are reflected at their ends forever."""
    period = 2.0 * tf.cast(count, tf.float32)
    position -= period * tf.floor(position / period)
    return tf.cast(tf.minimum(position, period - 1.0 - position), tf.int32)


@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _interpolated(images: tf.Tensor, pixels: list[tf.Tensor], right: tf.Tensor, down: tf.Tensor) -> tf.Tensor:
    """Returns what is at places between four pixels each, bilinearly; see `_places`."""
    flat = tf.reshape(images, [-1, tf.shape(images)[-1]])
    top_left, top_right, bottom_left, bottom_right = (tf.gather(flat, each) for each in pixels)
    right, down = right[..., None], down[..., None]
    top = top_left * (1.0 - right) + top_right * right
    bottom = bottom_left * (1.0 - right) + bottom_right * right
    return top * (1.0 - down) + bottom * down
