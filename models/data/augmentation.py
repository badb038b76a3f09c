"""Augmentation of training images: mirroring, rotation, shift, crop, changes of the pixels, and cutout."""

from __future__ import annotations

import math

import tensorflow as tf

from models.data import pixel_changes
from settings.training import AugmentationConfig

# Steps of a quasirandom sequence, one for each of an image's draws (see `augment`). Multiples of the first
# two, modulo 1, fill the unit square evenly, from the first few multiples on, and multiples of the third fill
# a line (Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018): they are 1/x and 1/x^2
# for x^3 = x + 1, and 1/x for x^2 = x + 1. The next two, for a second square, are the fractional parts of the
# square roots of 2 and 3.
_GEOMETRY_STRIDES = (0.7548776662, 0.5698402910, 0.6180339887, 0.4142135624, 0.7320508076)
# These fill a space of five dimensions: 1/x to 1/x^5 for x^6 = x + 1.
_PIXEL_STRIDES = (0.8812714616, 0.7766393890, 0.6844301295, 0.6031687406, 0.5315553977)
_GREY = 0.5


def augment(
    images: tf.Tensor,
    mirrored: tf.Tensor,
    draws: tf.Tensor,
    config: AugmentationConfig,
    crop_scale: tf.Tensor | None = None,
) -> tf.Tensor:
    """Warps each image of a batch, changes its pixels' values, and covers a rectangle with grey.

    Mirroring some images, rotation, shift and crop are a single bilinear warp about the image's centre, so
    that pixels are interpolated only once. Where the warp needs pixels from outside an image, the image is
    reflected at its edges.

    Args:
      images: float32 [batch, height, width, channels] in [0, 1].
      mirrored: whether each image is mirrored left to right, bool [batch].
      draws: random numbers for each image, float32 [batch, 10] in [0, 1): the position, down and to the
        right, of the visible part of the image, between the extremes that shift and crop together allow; the
        angle, between the extremes of the rotation; the position, down and to the right, of the centre of the
        grey rectangle; and the five of `pixel_changes.change`.
      config: strengths of the changes; a strength of 0 switches a change off.
      crop_scale: sides of the crop as a fraction of the images' sides, float32 scalar in (0, 1]; None does
        not crop.

    Returns:
      float32 [batch, height, width, channels] in [0, 1]. With `crop_scale`, height and width are rounded to
      whole pixels, and are not static. If nothing changes the images, `images` themselves.
    """
    if crop_scale is not None or config.rotation_degrees or config.shift_fraction or config.flip:
        images = _warp_by_draws(images, mirrored, draws, config, crop_scale)
    images = pixel_changes.change(images, draws[:, 5:], config)
    return cut_out(images, draws[:, 3:5], config.cutout_fraction) if config.cutout_fraction else images


def _warp_by_draws(
    images: tf.Tensor,
    mirrored: tf.Tensor,
    draws: tf.Tensor,
    config: AugmentationConfig,
    crop_scale: tf.Tensor | None,
) -> tf.Tensor:
    largest_angle = math.radians(config.rotation_degrees)
    angle = (2.0 * draws[:, 2] - 1.0) * largest_angle
    image_size = tf.shape(images)[1:3]
    size = tf.cast(image_size, tf.float32)
    # Shifts by whole pixels do not blur images that are not rotated.
    shift = tf.round((1.0 - 2.0 * draws[:, :2]) * config.shift_fraction * size) / size
    if crop_scale is None:
        return warp(images, angle, shift, mirrored)
    crop_size = tf.cast(tf.round(size * crop_scale), tf.int32)
    corner = tf.floor(draws[:, :2] * tf.cast(image_size - crop_size + 1, tf.float32))
    return warp(images, angle, shift, mirrored, corner, crop_size)


def cut_out(images: tf.Tensor, center: tf.Tensor, fraction: float) -> tf.Tensor:
    """Covers a rectangle of each image with grey (cutout, arXiv:1708.04552).

    Args:
      images: float32 [batch, height, width, channels] in [0, 1].
      center: centre of each rectangle, (down, right), as fractions of height and width, float32 [batch, 2] in
        [0, 1). Any part of a rectangle outside the image is cut off.
      fraction: sides of the rectangle, as fractions of height and width; rounded to whole pixels.

    Returns:
      float32 [batch, height, width, channels] in [0, 1].
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
    """Draws the random numbers of the first epoch.

    Args:
      count: number of images of the split.
      seed: the same seed gives the same draws.

    Returns:
      The draws of each image, float32 [count, 10] in [0, 1); see `augment`.
    """
    geometry = tf.random.stateless_uniform([count, len(_GEOMETRY_STRIDES)], [seed, -2])
    return tf.concat((geometry, tf.random.stateless_uniform([count, len(_PIXEL_STRIDES)], [seed, -3])), 1)


def epoch_draws(first: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the draws of images for an epoch.

    Over any consecutive epochs, the changes of an image are spread evenly over all possible changes. If every
    epoch's draws were independent, some of the changes would be similar by chance.

    Args:
      first: the images' `first_draws`, float32 [batch, 10].
      epoch: number of the epoch, int64 scalar, from 0.

    Returns:
      The draws of each image, float32 [batch, 10] in [0, 1); uniform in each epoch if `first` is.
    """
    return (first + tf.cast(epoch, tf.float32) * tf.constant(_GEOMETRY_STRIDES + _PIXEL_STRIDES)) % 1.0


def random_half(count: int, seed: int) -> tf.Tensor:
    """Picks a random half of the images of a split.

    Args:
      count: number of images of the split.
      seed: the same seed gives the same half.

    Returns:
      Whether each image is in the half, bool [count].
    """
    return tf.random.stateless_uniform([count], [seed, -1]) < 0.5


def is_mirrored(in_half: tf.Tensor, epoch: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Returns which images are mirrored in an epoch: one half of the split and the other half in turn.

    An image and its mirror image are thus seen equally often, and never the same one in two consecutive
    epochs (alternating flip, arXiv:2404.00498).

    Args:
      in_half: whether each image is in the `random_half` that is mirrored first, bool [batch].
      epoch: number of the epoch, int64 scalar, from 0.
      config: strengths of the changes; without `flip`, no image is mirrored.

    Returns:
      Whether each image is mirrored, bool [batch].
    """
    return tf.equal(in_half, epoch % 2 == 0) & config.flip


def warp(
    images: tf.Tensor,
    angle: tf.Tensor,
    shift: tf.Tensor,
    mirrored: tf.Tensor,
    corner: tf.Tensor | None = None,
    crop_size: tf.Tensor | None = None,
) -> tf.Tensor:
    """Mirrors images left to right, then rotates, shifts and crops them.

    Args:
      images: float32 [batch, height, width, channels].
      angle: rotation of each image, float32 [batch] in radians, counter-clockwise.
      shift: shift of each image, (down, right), as fractions of height and width, float32 [batch, 2].
      mirrored: whether each image is mirrored, bool [batch].
      corner: top left corner of each crop, (down, right), float32 [batch, 2] in whole pixels; None does not
        crop.
      crop_size: (height, width) of all crops, int32 [2] in pixels; None without `corner`.

    Returns:
      float32 in the range of `images`, of the shape of `images` or [batch, *crop_size, channels].
    """
    image_size = tf.shape(images)[1:3]
    height, width = tf.unstack(tf.cast(image_size, tf.float32))
    center_y, center_x = (height - 1.0) / 2.0, (width - 1.0) / 2.0
    cosine, sine = tf.cos(angle), tf.sin(angle)
    sign = tf.where(mirrored, -1.0, 1.0)
    # The pixel at (x, y) comes from (a x + b y + c, d x + e y + f), which undoes the crop and the shift, then
    # the rotation about the centre, then the mirroring about it.
    offset_y = center_y + shift[:, 0] * height
    offset_x = center_x + shift[:, 1] * width
    if corner is not None:
        offset_y -= corner[:, 0]
        offset_x -= corner[:, 1]
    a, b = sign * cosine, -sign * sine
    d, e = sine, cosine
    c, f = center_x - a * offset_x - b * offset_y, center_y - d * offset_x - e * offset_y
    coefficients = tf.stack((a, b, c, d, e, f))
    output_size = image_size if crop_size is None else crop_size
    warped = _interpolate(images, *_locate_sources(coefficients, image_size, output_size))
    if crop_size is None:
        return tf.ensure_shape(warped, images.shape)
    return tf.ensure_shape(warped, [images.shape[0], None, None, images.shape[3]])


# Locating and interpolating are compiled separately, so that XLA locates the sources once rather than for
# each channel. TensorFlow's projective transform locates them for each channel, and takes twice as long.
@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _locate_sources(
    coefficients: tf.Tensor, image_size: tf.Tensor, output_size: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
    """Locates the source of each output pixel (x, y): the point (a x + b y + c, d x + e y + f) of its image.

    Args:
      coefficients: a to f of each image, float32 [6, batch].
      image_size: (height, width) of the images, int32 [2].
      output_size: (height, width) of the output, int32 [2].

    Returns:
      The four pixels around each source (top left, top right, bottom left, bottom right), as indices into the
      pixels of all images, int32 [batch, *output_size] each; and the distances to the right and down from the
      first of the four pixels to the source, float32 [batch, *output_size] each, in [0, 1).
    """
    a, b, c, d, e, f = tf.unstack(coefficients[:, :, None, None])
    y, x = (tf.range(tf.cast(side, tf.float32)) for side in tf.unstack(output_size))
    x, y = x[None, None, :], y[None, :, None]
    source_x, source_y = a * x + b * y + c, d * x + e * y + f
    left, top = tf.floor(source_x), tf.floor(source_y)
    height, width = tf.unstack(image_size)
    first_row = tf.range(tf.shape(coefficients)[1])[:, None, None] * height
    pixels = [
        (first_row + _reflect(row, height)) * width + _reflect(column, width)
        for row in (top, top + 1.0)
        for column in (left, left + 1.0)
    ]
    return pixels, source_x - left, source_y - top


def _reflect(position: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns the index of the pixel at a position, in a row of `count` pixels reflected at both ends.

    The reflections repeat without limit, so that there is a pixel at every position.
    """
    period = 2.0 * tf.cast(count, tf.float32)
    position -= period * tf.floor(position / period)
    return tf.cast(tf.minimum(position, period - 1.0 - position), tf.int32)


@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _interpolate(images: tf.Tensor, pixels: list[tf.Tensor], right: tf.Tensor, down: tf.Tensor) -> tf.Tensor:
    """Interpolates bilinearly between four pixels each, as `_locate_sources` returns them."""
    flat = tf.reshape(images, [-1, tf.shape(images)[-1]])
    top_left, top_right, bottom_left, bottom_right = (tf.gather(flat, each) for each in pixels)
    right, down = right[..., None], down[..., None]
    top = top_left * (1.0 - right) + top_right * right
    bottom = bottom_left * (1.0 - right) + bottom_right * right
    return top * (1.0 - down) + bottom * down
