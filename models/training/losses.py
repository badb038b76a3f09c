"""The training loss: cross-entropy with label smoothing and class weights."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


class CrossEntropy(keras.losses.Loss):
    """The cross-entropy of logits and integer labels, with label smoothing and class weights.

    With smoothing `s` the target is `1 - s` on the label plus `s / classes` on every class, the label
    included (Szegedy et al., arXiv:1512.00567). The loss of each image is multiplied by the weight of its
    class.

    Args:
      label_smoothing: the smoothing `s`, in [0, 1).
      class_weights: weight of each class, indexed by label; None gives every class the weight 1.
    """

    def __init__(self, label_smoothing: float, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(name="cross_entropy")
        self._smoothing = label_smoothing
        self._class_weights = class_weights

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each image.

        Args:
          y_true: integer labels [batch] or [batch, 1].
          y_pred: logits [batch, classes].

        Returns:
          float32 [batch].
        """
        labels = tf.cast(tf.reshape(y_true, [-1]), tf.int64)
        log_probabilities = tf.nn.log_softmax(tf.cast(y_pred, tf.float32))
        label_term = tf.gather(log_probabilities, labels, batch_dims=1)
        uniform_term = tf.reduce_mean(log_probabilities, -1)
        losses = -(1.0 - self._smoothing) * label_term - self._smoothing * uniform_term
        if self._class_weights is not None:
            losses *= tf.gather(tf.constant(self._class_weights, tf.float32), labels)
        return losses


def balanced_weights(counts: np.ndarray) -> list[float]:
    """Returns class weights that give every class the same total weight over the images.

    The mean weight over the images is 1, as in scikit-learn's `balanced` class weights. A class without
    images has the weight 1.

    Args:
      counts: number of images of each class [classes], indexed by label.

    Returns:
      One weight for each class, indexed by label.
    """
    present = np.count_nonzero(counts)
    return np.where(counts > 0, counts.sum() / (present * np.maximum(counts, 1e-9)), 1.0).tolist()
