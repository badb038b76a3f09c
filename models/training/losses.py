"""What is minimised: the cross-entropy, with label smoothing and weights of classes."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


class CrossEntropy(keras.losses.Loss):
    """The cross-entropy of logits and integer labels, with label smoothing and weights of classes.

    With smoothing `s` the target is `1 - s` on the label plus `s / classes` on every class, the label
    included (Szegedy et al., arXiv:1512.00567). An image counts as often as the weight of its label says.

    Args:
      label_smoothing: in [0, 1).
      class_weights: by label; None weighs all images alike.
    """

    def __init__(self, label_smoothing: float, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(name="cross_entropy")
        self._smoothing = label_smoothing
        self._class_weights = class_weights

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns float32 [batch] for labels [batch] or [batch, 1] and logits [batch, classes]."""
        labels = tf.cast(tf.reshape(y_true, [-1]), tf.int64)
        log_probabilities = tf.nn.log_softmax(tf.cast(y_pred, tf.float32))
        of_label = tf.gather(log_probabilities, labels, batch_dims=1)
        losses = -(1.0 - self._smoothing) * of_label - self._smoothing * tf.reduce_mean(log_probabilities, -1)
        if self._class_weights is not None:
            losses *= tf.gather(tf.constant(self._class_weights, tf.float32), labels)
        return losses


def balanced_weights(counts: np.ndarray) -> list[float]:
    """Returns weights of classes with which all of them count alike, and whose mean over the images is 1.

    They are scikit-learn's `balanced` ones. A class without images has the weight 1.

    Args:
      counts: images by label [classes].
    """
    present = np.count_nonzero(counts)
    return np.where(counts > 0, counts.sum() / (present * np.maximum(counts, 1e-9)), 1.0).tolist()
