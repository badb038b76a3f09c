"""Batch normalisation as a single operation of TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# Bounds of the running statistics' momentum. With airbench's 0.6, which is meant for batches of 2000, the
# statistics are inaccurate for smaller batches. With Keras' default of 0.99, they are still far from those of
# the data after a few hundred steps.
MIN_MOMENTUM = 0.6
_MAX_MOMENTUM = 0.9


@keras.saving.register_keras_serializable("models")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation over the last axis of images, without a gain.

    Keras composes the layer and its gradient of a dozen operations, which take several times as long on a CPU
    as TensorFlow's fused operation. The fused operation has the same outputs, gradients and running
    statistics. Only for statistics of several replicas together (`synchronized`), Keras' composition is used.

    Args:
      parts: number of equal parts that the channels are divided into. Channels at the same place in different
        parts share their statistics and parameters.
      options: any other argument of Keras' layer, except `scale`.
    """

    def __init__(self, parts: int = 1, **options: Any) -> None:
        super().__init__(**{**options, "scale": False})
        self.parts = parts

    def build(self, input_shape: tuple[int | None, int | None, int | None, int]) -> None:
        super().build((None, None, None, input_shape[-1] // self.parts))
        self.input_spec = None  # Keras' own would only accept the channels of one part.

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        shape = tf.shape(inputs)
        count, height, width, channels = tf.unstack(shape)
        # Turns the parts into additional pixels, so that their channels share statistics.
        parts = tf.reshape(inputs, [count, height, width * self.parts, channels // self.parts])
        parts = tf.ensure_shape(parts, [None, None, None, inputs.shape[-1] // self.parts])
        if self.synchronized:
            normalized = super().call(parts, training=training)
        else:
            normalized = self._fused(parts, bool(training and self.trainable))
        return tf.ensure_shape(tf.reshape(normalized, shape), inputs.shape)

    def _fused(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        running_mean = tf.convert_to_tensor(self.moving_mean)
        running_variance = tf.convert_to_tensor(self.moving_variance)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.ones_like(running_mean),
            offset=tf.convert_to_tensor(self.beta),
            mean=running_mean,
            variance=running_variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            # The operation returns the unbiased estimate of the variance, Keras uses the biased one.
            variance *= (count - 1) / count
            for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                running.assign(running * self.momentum + batch * (1 - self.momentum))
        return outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "parts": self.parts}


def set_momentum(model: keras.Model, steps_per_epoch: int) -> None:
    """Sets the momentum of the running statistics so that they average over a quarter of an epoch.

    The average is over at least 2.5 and at most 10 steps. It is thus accurate if an epoch has many small
    batches, and keeps up with the weights if the whole training has only a few steps. Call this function
    before the training step is traced.

    Args:
      model: the model whose `BatchNormalization` layers are set.
      steps_per_epoch: training steps per epoch, at least 1.
    """
    for layer in model.layers:
        if isinstance(layer, BatchNormalization):
            layer.momentum = min(_MAX_MOMENTUM, max(MIN_MOMENTUM, 1.0 - 4.0 / steps_per_epoch))
