"""Random rotation, shift and crop of training images, and their mirror images in turn."""

from __future__ import annotations

import math

import tensorflow as tf

from pipeline.config import AugmentationConfig


def augment(
    images: tf.Tensor,
    mirrored: tf.Tensor,
    seed: tf.Tensor,
    config: AugmentationConfig,
    part: tf.Tensor | None = None,
) -> tf.Tensor:
    """Turns some images of a batch into their mirror images, rotates and shifts each by its own, and crops.

    All of it is one bilinear warp about the image's centre, so that pixels are interpolated once;
    what is moved in from outside is a reflection of what is inside.

    Args:
      images: float32 [batch, height, width, channels] in [0, 1].
      mirrored: bool [batch]; left to right.
      seed: int [2]; the same seed gives the same rotations, shifts and crops.
      config: strengths; a strength of 0 switches its change off.
      part: of both sides that is kept of each image, at a place of its own, float32 scalar in (0, 1]; None
        keeps all.

    Returns:
      float32 [batch, height, width, channels] in [0, 1]; with `part`, the sides are rounded and not static.
      Without any change `images` themselves.
    """
    if part is None and not (config.rotation_degrees or config.shift_fraction or config.flip):
        return images
    angle, shift = draw(tf.shape(images)[0], seed, config)
    full = tf.shape(images)[1:3]
    size = tf.cast(full, tf.float32)
    # By whole pixels: images that are not turned as well are not blurred, then.
    shift = tf.round(shift * size) / size
    if part is None:
        return warp(images, angle, shift, mirrored)
    kept = tf.cast(tf.round(size * part), tf.int32)
    places = tf.cast(full - kept + 1, tf.float32)
    own_seed = tf.random.experimental.stateless_fold_in(seed, 0)  # `draw` takes `seed` itself
    corner = tf.floor(tf.random.stateless_uniform([tf.shape(images)[0], 2], own_seed) * places)
    return warp(images, angle, shift, mirrored, corner, kept)


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


def draw(count: tf.Tensor | int, seed: tf.Tensor, config: AugmentationConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws the rotations and shifts of `count` images.

    Returns:
      angle, float32 [count] in radians, counter-clockwise, uniform; shift, float32 [count, 2], (down,
      right) as fractions of height and width, uniform.
    """
    seeds = tf.random.split(seed, 2)
    largest_angle = math.radians(config.rotation_degrees)
    angle = tf.random.stateless_uniform([count], seeds[0], -largest_angle, largest_angle)
    shift = tf.random.stateless_uniform([count, 2], seeds[1], -config.shift_fraction, config.shift_fraction)
    return angle, shift


def warp(
    images: tf.Tensor,
    angle: tf.Tensor,
    shift: tf.Tensor,
    mirrored: tf.Tensor,
    corner: tf.Tensor | None = None,
    kept: tf.Tensor | None = None,
) -> tf.Tensor:
    """Mirrors left to right, then rotates, then shifts, then crops; see `draw` for the strengths.

    Args:
      corner: of what is kept of each image, float32 [batch, 2], whole pixels (down, right);
        None: all is.
      kept: height and width of it, int32 [2].

    Returns:
      float32 in the range of `images`, of their shape, or [batch, *kept, channels].
    """
    height, width = tf.unstack(tf.cast(tf.shape(images)[1:3], tf.float32))
    center_y, center_x = (height - 1.0) / 2.0, (width - 1.0) / 2.0
    cosine, sine = tf.cos(angle), tf.sin(angle)
    sign = tf.where(mirrored, -1.0, 1.0)
    # The op wants the inverse: for an output pixel (x, y) the input pixel (a x + b y + c, d x + e y + f).
    # From the output: undo the crop and the shift, rotate back about the centre, mirror back about it.
    offset_y = center_y + shift[:, 0] * height
    offset_x = center_x + shift[:, 1] * width
    if corner is not None:
        offset_y -= corner[:, 0]
        offset_x -= corner[:, 1]
    a, b = sign * cosine, -sign * sine
    d, e = sine, cosine
    zero = tf.zeros_like(angle)
    rows = [
        a,
        b,
        center_x - a * offset_x - b * offset_y,
        d,
        e,
        center_y - d * offset_x - e * offset_y,
        zero,
        zero,
    ]
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(rows, axis=1),
        output_shape=tf.shape(images)[1:3] if kept is None else kept,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    if kept is None:
        return tf.ensure_shape(warped, images.shape)
    return tf.ensure_shape(warped, [images.shape[0], None, None, images.shape[3]])
