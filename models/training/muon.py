"""Muon: orthogonalised momentum for the kernels of hidden layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from models.networks.layers import mirror

# Coefficients of a quintic that drives singular values towards 1 in a few steps (Jordan et al., 2024,
# "Muon: An optimizer for hidden layers in neural networks").
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 3
_ADAM_RATE = 0.035  # Adam's learning rate, as a fraction of the kernels' rate; tuned on CIFAR-10


class Muon(keras.optimizers.Adam):
    """Orthogonalised momentum for the kernels of hidden layers, Adam for everything else.

    The momentum of a kernel, as a matrix of one row for each output, is approximately replaced by the
    nearest matrix with orthonormal rows or columns (Jordan et al., 2024, in the variant for CIFAR-10 of
    github.com/KellerJordan/cifar10-airbench). Before each step a kernel is scaled so that its rows have
    norm 1 on average: its own scale has no effect, since batch normalisation follows. `learning_rate`
    therefore acts like an angle, and the same value suits networks of all widths.

    Args:
      learning_rate: learning rate of the kernels, a number or a schedule.
      hidden: the hidden convolutions, each followed by batch normalisation. If a layer has mirrored filters,
        the filters and their mirror images form one matrix.
      momentum: Nesterov momentum of the kernels.
    """

    def __init__(
        self,
        learning_rate: Any,
        hidden: Iterable[keras.layers.Conv2D],
        momentum: float,
    ) -> None:
        # Short averaging windows, because a whole training has only a few hundred steps.
        super().__init__(learning_rate, beta_1=0.85, beta_2=0.95, name="muon")
        self._hidden_layers = {layer.kernel.path: layer for layer in hidden}
        self._hidden: dict[int, keras.layers.Conv2D] = {}
        self._momentum = momentum

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        self._hidden = {
            self._get_variable_index(v): self._hidden_layers[v.path]
            for v in variables
            if v.path in self._hidden_layers
        }

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        if index not in self._hidden:
            super().update_step(gradient, variable, learning_rate * _ADAM_RATE)
            return
        buffer = self._momentums[index]
        self.assign(buffer, self._momentum * buffer + gradient)
        step = gradient + self._momentum * buffer
        columns = tf.reshape(step, [-1, step.shape[-1]])
        layer = self._hidden[index]
        if isinstance(layer, mirror.Convolution):
            # Filters orthogonalised without their mirror images would not be orthogonal to those.
            height, width = layer.kernel_size
            halves = mirror.Halves(mirror.positions(height, width, layer.partners))
            columns = halves.join(*orthogonalize(*halves.split(columns)))
        else:
            (columns,) = orthogonalize(columns)
        direction = tf.reshape(columns, step.shape)
        scale = variable.shape[-1] ** 0.5 / tf.norm(variable)
        self.assign(variable, scale * variable - tf.cast(learning_rate, variable.dtype) * direction)


def orthogonalize(*blocks: tf.Tensor) -> list[tf.Tensor]:
    """Moves the singular values of a block-diagonal matrix towards 1, by Newton-Schulz iterations.

    Each step multiplies the matrix by a polynomial of its Gram matrix. The Gram matrix of the next step
    follows from that of this step, so only the product of all steps is multiplied by the matrix itself.
    The singular values are at most 1 before the first step; three steps move those between 0.1 and 1 to
    between 0.5 and 1.3.

    Args:
      blocks: the blocks of the matrix, [rows, columns] each; all other elements of the matrix are 0.

    Returns:
      The blocks of the new matrix, with the shapes of `blocks`.
    """
    a, b, c = _NEWTON_SCHULZ
    norm = tf.linalg.global_norm(blocks) + 1e-7
    orthogonal = []
    for block in blocks:
        wide = block.shape[0] <= block.shape[1]
        x = block / norm
        gram = tf.matmul(x, x, transpose_a=not wide, transpose_b=wide)
        identity = tf.eye(gram.shape[0])
        factor = identity
        for _ in range(_NEWTON_SCHULZ_STEPS):
            step = a * identity + b * gram + c * tf.matmul(gram, gram)
            factor = tf.matmul(step, factor)
            gram = tf.matmul(tf.matmul(step, step), gram)
        orthogonal.append(tf.matmul(factor, x) if wide else tf.matmul(x, factor))
    return orthogonal


def hidden_layers(model: keras.Model) -> list[keras.layers.Conv2D]:
    """Returns the hidden convolutions that batch normalisation follows.

    These are the trainable ones without a bias; the whitening convolution is not trainable.
    """
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.trainable and not layer.use_bias
    ]
