"""Shows which pixels a prediction depends on: integrated gradients (Sundararajan, Taly, Yan: ICML 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from scipy import ndimage

from models.data.images import at_a_time

# float32 [n, height, width, 3] in [0, 1] -> float32 [n, classes].
Logits = Callable[[tf.Tensor], tf.Tensor]

# Steps of the integral; twice as many give the same picture.
STEPS = 16
# How many times the memory of a prediction a gradient needs. MobileNetV2 at 224 pixels needs some 1.5 GB for
# the activations of 64 images.
_PREDICTIONS = 8
# Standard deviations of the Gaussian filters, as a share of the image's longer side. The filter of the
# baseline removes every shape; the filter of the heat only removes noise between neighbouring pixels.
_BASELINE_SIGMA = 0.2
_HEAT_SIGMA = 0.03
_ROUNDING = 1e-5  # smaller differences of the baseline, of values in [0, 1], count as none
# This percentile of an image's heat becomes 1 and higher values are clipped. If the maximum became 1, a
# single very hot pixel would make all the others dark.
_HOTTEST_PERCENTILE = 99


def integrated_gradients(
    logits: Logits,
    images: tf.Tensor,
    class_ids: tf.Tensor,
    steps: int = STEPS,
    baseline: tf.Tensor | None = None,
) -> tf.Tensor:
    """Computes how strongly each pixel of an image contributes to the logit of a class, also in a graph.

    The heat of a pixel is the sum of its channels' absolute attributions, smoothed and scaled. It does not
    say whether the pixel speaks for or against the class.

    Args:
      logits: differentiable function from images to the logits of all classes.
      images: float32 [n, height, width, 3] in [0, 1]; height and width are known.
      class_ids: int [n], for each image the class whose logit is attributed to the pixels.
      steps: number of gradients on the path from the baseline to the image.
      baseline: image that stands for the absence of information, in the shape of `images` or one that
        broadcasts to it; by default each image, blurred beyond recognition. A pixel that has the colour of
        the baseline gets no heat, whatever it means to the network: if the baseline is black or a mean
        image, dark objects or objects of a common colour stay cold. A blurred image differs from the
        original wherever the original has shapes.

    Returns:
      Heat, float32 [n, height, width] in [0, 1]; all 0 for an image that equals its baseline.
    """
    images = tf.convert_to_tensor(images, tf.float32)
    baselines = _blurred(images) if baseline is None else baseline
    baselines = tf.broadcast_to(tf.convert_to_tensor(baselines, tf.float32), tf.shape(images))
    attributed = attributions(logits, images, class_ids, baselines, steps)
    heat = _blur(tf.reduce_sum(tf.abs(attributed), axis=-1, keepdims=True), _HEAT_SIGMA)[..., 0]
    hottest = _percentile(heat, _HOTTEST_PERCENTILE)[:, tf.newaxis, tf.newaxis]
    return tf.clip_by_value(tf.math.divide_no_nan(heat, hottest), 0.0, 1.0)


def attributions(
    logits: Logits, images: tf.Tensor, class_ids: tf.Tensor, baselines: tf.Tensor, steps: int
) -> tf.Tensor:
    """Integrates the gradient of a logit along the straight line from the baseline to the image.

    As `steps` grows, the sum over an image converges to logit(image) - logit(baseline), a property that
    the paper calls completeness.

    Args:
      logits: differentiable function from images to the logits of all classes.
      images: float32 [n, height, width, 3] in [0, 1]; height and width are known.
      class_ids: int [n], for each image the class whose logit is attributed to the pixels.
      baselines: float32 [n, height, width, 3], where the paths begin.
      steps: number of gradients on each path.

    Returns:
      Signed attributions, float32 [n, height, width, 3], in units of the logit.
    """
    size = images.shape[1:3]
    # One image after the other, and of each as many steps at once as the memory of a few predictions allows.
    at_once = math.gcd(steps, at_a_time(size, steps * _PREDICTIONS) // _PREDICTIONS or 1)
    # Midpoint rule: the error of the integral falls with the square of the number of steps.
    fractions = tf.reshape((tf.range(steps, dtype=tf.float32) + 0.5) / steps, [-1, at_once, 1, 1, 1])

    def attribute(element: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, class_id, baseline = element
        difference = image - baseline

        def gradient(part: tf.Tensor) -> tf.Tensor:
            inputs = baseline + part * difference
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                # An image changes only its own logit: the gradient of the sum has the gradient of each.
                summed = tf.reduce_sum(tf.gather(logits(inputs), class_id, axis=1))
            return tf.reduce_sum(tape.gradient(summed, inputs), axis=0)

        gradients = _map(gradient, fractions, tf.TensorSpec(image.shape, tf.float32))
        return difference * tf.reduce_sum(gradients, axis=0) / steps

    elements = (images, tf.cast(class_ids, tf.int64), baselines)
    return _map(attribute, elements, tf.TensorSpec(images.shape[1:], tf.float32))


def _map(function: Callable[..., tf.Tensor], elements: object, signature: tf.TensorSpec) -> tf.Tensor:
    """Applies a function to one element after the other, so that only one is in memory."""
    return tf.map_fn(function, elements, fn_output_signature=signature, parallel_iterations=1)


def _blurred(images: tf.Tensor) -> tf.Tensor:
    """Returns images, float32 [n, height, width, channels], blurred beyond recognition."""
    blurred = _blur(images, _BASELINE_SIGMA)
    # The rounding errors of a uniform image would be scaled up to full heat.
    return tf.where(tf.abs(images - blurred) < _ROUNDING, images, blurred)


def _blur(images: tf.Tensor, share: float) -> tf.Tensor:
    """Applies a Gaussian filter that reflects images, [n, height, width, channels], at their borders.

    Args:
      images: the images; height and width are known.
      share: standard deviation of the filter, as a share of the longer side.
    """
    height, width = images.shape[1:3]
    sigma = share * max(height, width)
    # Filtering along an axis is linear: the filtered unit vectors are the columns of its matrix.
    down, across = (
        tf.constant(ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0), tf.float32)
        for side in (height, width)
    )
    return tf.einsum("ij,bjkc,lk->bilc", down, images, across)


def _percentile(heat: tf.Tensor, percent: float) -> tf.Tensor:
    """Returns a percentile of each image, [n, height, width], interpolated as NumPy does: [n]."""
    count = math.prod(heat.shape[1:])
    position = percent / 100 * (count - 1)
    below = math.floor(position)
    highest = tf.math.top_k(tf.reshape(heat, [-1, count]), count - below).values
    lower, upper = highest[:, -1], highest[:, max(count - below - 2, 0)]
    return lower + (position - below) * (upper - lower)
