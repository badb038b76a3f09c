"""Where a network looks: integrated gradients (Sundararajan, Taly, Yan: ICML 2017)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from scipy import ndimage

# float32 [n, height, width, 3] in [0, 1] -> float32 [n, classes].
Logits = Callable[[tf.Tensor], tf.Tensor]

# Images in a gradient step: for MobileNetV2 at 224 pixels some 1.5 GB of activations.
_BATCH = 8
# Of the gaussian filters, as a share of the longer side: the baseline has lost every shape, the heat
# only the noise from pixel to pixel.
_BASELINE_SIGMA = 0.2
_HEAT_SIGMA = 0.03
# What is hotter counts as this hot, so that a single pixel does not leave the others dark.
_HOTTEST_PERCENTILE = 99


def integrated_gradients(
    logits: Logits,
    images: np.ndarray,
    class_ids: np.ndarray,
    steps: int = 32,
    baseline: np.ndarray | None = None,
) -> np.ndarray:
    """Computes how much each place of an image says for or against a class.

    Args:
      logits: of the network, differentiable.
      images: float32 [n, height, width, 3] in [0, 1].
      class_ids: int [n], the class that is asked about, of each image.
      steps: gradients taken between baseline and image.
      baseline: what counts as saying nothing, in the shape of `images` or one that broadcasts to it;
        by default the images blurred beyond recognition. What has the baseline's colour gets no heat,
        whatever it means to the network: with black or a mean image for a baseline, dark objects or
        those of a common colour stay cold, while a blurred image differs where its shapes are.

    Returns:
      Heat, float32 [n, height, width] in [0, 1]; all 0 where nothing differs from the baseline.
    """
    if baseline is None:
        baseline = ndimage.gaussian_filter(images, _sigmas(images, _BASELINE_SIGMA))
    baselines = np.broadcast_to(np.asarray(baseline, np.float32), images.shape)
    raw = attributions(logits, images, class_ids, baselines, steps)
    heat = ndimage.gaussian_filter(np.abs(raw).sum(axis=-1), _sigmas(images, _HEAT_SIGMA)[:3])
    hottest = np.percentile(heat, _HOTTEST_PERCENTILE, axis=(1, 2), keepdims=True)
    return np.divide(heat, hottest, out=np.zeros_like(heat), where=hottest > 0).clip(0, 1)


def attributions(
    logits: Logits, images: np.ndarray, class_ids: np.ndarray, baselines: np.ndarray, steps: int
) -> np.ndarray:
    """Integrates the gradient of a logit along the straight line from baseline to image.

    The sum over an image tends to logit(image) - logit(baseline) as `steps` grows ("completeness").

    Args:
      logits, images, class_ids, steps: as above.
      baselines: float32 [n, height, width, 3].

    Returns:
      float32 [n, height, width, 3].
    """
    gradients = np.zeros_like(images)
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        difference = images[part] - baselines[part]
        # The middles of equal intervals, whose error falls with the square of their number.
        for share in (np.arange(steps, dtype=np.float32) + 0.5) / steps:
            gradients[part] += _gradients(logits, baselines[part] + share * difference, class_ids[part])
    return (images - baselines) * gradients / steps


def _gradients(logits: Logits, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    inputs = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        # Each image has a logit of its own, so that the gradient of the sum is that of each.
        asked = tf.reduce_sum(tf.gather(logits(inputs), class_ids, batch_dims=1))
    return tape.gradient(asked, inputs).numpy()


def _sigmas(images: np.ndarray, share: float) -> tuple[float, ...]:
    sigma = share * max(images.shape[1:3])
    return (0, sigma, sigma, 0)
