"""Batch normalisation in one operation of TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# Of the running statistics. airbench's 0.6, for batches of 2000, is inaccurate with smaller ones; 0.99,
# Keras' default, is still far from the data after a few hundred steps.
LEAST_MOMENTUM = 0.6
_MOST_MOMENTUM = 0.9


@keras.saving.register_keras_serializable("models")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation of the last axis of images, without a gain.

    Keras composes it of a dozen operations, forth and back, which take several times as long on a CPU. The
    one operation has the same outputs, gradients and running statistics. Where the statistics are those of
    several replicas (`synchronized`), Keras' composition is used.

    Args:
      parts: the channels are in so many equal parts, whose channels have the statistics and the parameters
        of the first part's in common.
      options: Keras' own, but for `scale`.
    """

    def __init__(self, parts: int = 1, **options: Any) -> None:
        super().__init__(**{**options, "scale": False})
        self.parts = parts

    def build(self, input_shape: tuple[int | None, int | None, int | None, int]) -> None:
        super().build((None, None, None, input_shape[-1] // self.parts))
        self.input_spec = None  # Keras' own is that of one part

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        shape = tf.shape(inputs)
        count, height, width, channels = tf.unstack(shape)
        # The parts beside each other, as if they were more pixels.
        parts = tf.reshape(inputs, [count, height, width * self.parts, channels // self.parts])
        parts = tf.ensure_shape(parts, [None, None, None, inputs.shape[-1] // self.parts])
        if self.synchronized:
            normalized = super().call(parts, training=training)
        else:
            normalized = self._fused(parts, bool(training and self.trainable))
        return tf.ensure_shape(tf.reshape(normalized, shape), inputs.shape)

    def _fused(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        running = [tf.convert_to_tensor(each) for each in (self.moving_mean, self.moving_variance)]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.ones_like(running[0]),
            offset=tf.convert_to_tensor(self.beta),
            mean=running[0],
            variance=running[1],
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            variance *= (count - 1) / count  # The operation's estimate is the unbiased one, Keras' is not.
            for statistic, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                statistic.assign(statistic * self.momentum + of_batch * (1 - self.momentum))
        return outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "parts": self.parts}


def set_momentum(model: keras.Model, steps_per_epoch: int) -> None:
    """Lets the running statistics of `model` forget in a quarter of an epoch: in 2.5 to 10 steps.

    So they are accurate where an epoch has many small batches, and follow the weights where a whole training
    has a few steps. Call it before the training step is traced.
    """
    for layer in model.layers:
        if isinstance(layer, BatchNormalization):
            layer.momentum = min(_MOST_MOMENTUM, max(LEAST_MOMENTUM, 1.0 - 4.0 / steps_per_epoch))
