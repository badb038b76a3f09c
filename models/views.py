"""Averages what a network answers for several views of an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

# Images, float32 [batch, height, width, channels] -> logits, float32 [batch, classes].
Logits = Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class View:
    """One view of an image.

    Attributes:
      weight: its share of the average.
      shift: pixels by which the image is moved down and to the right; -1, 0 or 1.
      mirrored: whether left and right are exchanged.
    """

    weight: float
    shift: int = 0
    mirrored: bool = False

    def of(self, images: tf.Tensor) -> tf.Tensor:
        """Returns this view of images, float32 [batch, height, width, channels], in the same shape."""
        height, width = images.shape[1:3]
        if self.shift:
            # The row and the column that become free repeat the ones next to the border.
            margins = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
            first = 1 - self.shift
            images = margins[:, first : first + height, first : first + width]
        return tf.reverse(images, [2]) if self.mirrored else images


# Number of views -> the views, of which the first is the image itself. The six are those of airbench
# (arXiv:2404.00498).
VIEWS: dict[int, tuple[View, ...]] = {
    1: (View(1.0),),
    2: (View(0.5), View(0.5, mirrored=True)),
    6: (
        View(0.25),
        View(0.25, mirrored=True),
        *(View(0.125, shift, mirrored) for shift in (-1, 1) for mirrored in (False, True)),
    ),
}


def average(
    logits: Logits, images: tf.Tensor, first: tf.Tensor, count: int, extra_below: float | None = None
) -> tf.Tensor:
    """Averages the logits of several views, weighted.

    Args:
      logits: the network.
      images: float32 [batch, height, width, channels]; height and width are known and at least 2.
      first: the network's logits of `images`, float32 [batch, classes].
      count: number of views, a key of `VIEWS`.
      extra_below: looks at further views only of the images for which the highest probability of `first` is
        below this; None: of all.

    Returns:
      float32 [batch, classes].
    """
    views = VIEWS[count]
    if len(views) == 1:
        return first
    if extra_below is None:
        return _average(logits, images, first, views)
    confidence = tf.reduce_max(tf.nn.softmax(first), axis=-1)
    unsure = tf.where(confidence < extra_below)

    def look_again() -> tf.Tensor:
        indices = unsure[:, 0]
        averaged = _average(logits, tf.gather(images, indices), tf.gather(first, indices), views)
        return tf.tensor_scatter_nd_update(first, unsure, averaged)

    return tf.cond(tf.size(unsure) > 0, look_again, lambda: first)


def _average(logits: Logits, images: tf.Tensor, first: tf.Tensor, views: tuple[View, ...]) -> tf.Tensor:
    total = views[0].weight * first
    for view in views[1:]:
        # One view after the other, so that they need the memory of one.
        with tf.control_dependencies([total]):
            total += view.weight * logits(view.of(tf.identity(images)))
    return total
