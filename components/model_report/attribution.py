"""Shows which pixels a prediction depends on: integrated gradients (Sundararajan, Taly, Yan: ICML 2017)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from scipy import ndimage

from models.data.images import at_a_time

# float32 [n, height, width, 3] in [0, 1] -> float32 [n, classes].
Logits = Callable[[tf.Tensor], tf.Tensor]

# Images per gradient step, or fewer if they are large, because a gradient needs about eight times the memory
# of a prediction. MobileNetV2 at 224 pixels needs some 1.5 GB for the activations of a batch.
_BATCH, _PREDICTIONS = 8, 8
# Standard deviations of the Gaussian filters, as a share of the image's longer side. The filter of the
# baseline removes every shape; the filter of the heat only removes noise between neighbouring pixels.
_BASELINE_SIGMA = 0.2
_HEAT_SIGMA = 0.03
# This percentile of an image's heat becomes 1 and higher values are clipped. If the maximum became 1, a
# single very hot pixel would make all the others dark.
_HOTTEST_PERCENTILE = 99


def integrated_gradients(
    logits: Logits,
    images: np.ndarray,
    class_ids: np.ndarray,
    steps: int = 32,
    baseline: np.ndarray | None = None,
) -> np.ndarray:
    """Computes how strongly each pixel of an image contributes to the logit of a class.

    The heat of a pixel is the sum of its channels' absolute attributions, smoothed and scaled. It does not
    say whether the pixel speaks for or against the class.

    Args:
      logits: differentiable function from images to the logits of all classes.
      images: float32 [n, height, width, 3] in [0, 1].
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
    if baseline is None:
        baseline = ndimage.gaussian_filter(images, _sigmas(images, _BASELINE_SIGMA))
    baselines = np.broadcast_to(np.asarray(baseline, np.float32), images.shape)
    attributed = attributions(logits, images, class_ids, baselines, steps)
    heat = ndimage.gaussian_filter(np.abs(attributed).sum(axis=-1), _sigmas(images, _HEAT_SIGMA)[:3])
    hottest = np.percentile(heat, _HOTTEST_PERCENTILE, axis=(1, 2), keepdims=True)
    return np.divide(heat, hottest, out=np.zeros_like(heat), where=hottest > 0).clip(0, 1)


def attributions(
    logits: Logits, images: np.ndarray, class_ids: np.ndarray, baselines: np.ndarray, steps: int
) -> np.ndarray:
    """Integrates the gradient of a logit along the straight line from the baseline to the image.

    As `steps` grows, the sum over an image converges to logit(image) - logit(baseline), a property that
    the paper calls completeness.

    Args:
      logits: differentiable function from images to the logits of all classes.
      images: float32 [n, height, width, 3] in [0, 1].
      class_ids: int [n], for each image the class whose logit is attributed to the pixels.
      baselines: float32 [n, height, width, 3], where the paths begin.
      steps: number of gradients on each path.

    Returns:
      Signed attributions, float32 [n, height, width, 3], in units of the logit.
    """
    gradients = np.zeros_like(images)
    batch_size = at_a_time(images.shape[1:3], _BATCH * _PREDICTIONS) // _PREDICTIONS or 1
    for start in range(0, len(images), batch_size):
        batch = slice(start, start + batch_size)
        difference = images[batch] - baselines[batch]
        # Midpoint rule: the error of the integral falls with the square of the number of steps.
        for fraction in (np.arange(steps, dtype=np.float32) + 0.5) / steps:
            gradients[batch] += _gradients(logits, baselines[batch] + fraction * difference, class_ids[batch])
    return (images - baselines) * gradients / steps


def _gradients(logits: Logits, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    inputs = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        # An image changes only its own logit, so the gradient of the sum holds the gradient of each logit.
        summed = tf.reduce_sum(tf.gather(logits(inputs), class_ids, batch_dims=1))
    return tape.gradient(summed, inputs).numpy()


def _sigmas(images: np.ndarray, share: float) -> tuple[float, ...]:
    """Returns the standard deviations, in pixels, for the axes of [n, height, width, channels]."""
    sigma = share * max(images.shape[1:3])
    return (0, sigma, sigma, 0)
