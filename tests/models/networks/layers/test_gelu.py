import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.networks.layers import gelu

X = np.linspace(-6, 6, 97, dtype=np.float32).reshape(1, 97)
PROBABILITY = np.array([[math.erfc(-x / math.sqrt(2)) / 2 for x in X[0]]])
DENSITY = np.exp(-(X.astype(np.float64) ** 2) / 2) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.02)])
@pytest.mark.parametrize("in_graph", [False, True])
def test_outputs_and_gradient_equal_their_closed_forms(no_gpu, in_graph, dtype, tolerance, training):
    layer = gelu.Gelu(dtype=dtype)
    inputs = tf.cast(X, dtype)

    def outputs_and_gradient():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=training)
        return outputs, tape.gradient(outputs, inputs, tf.fill(inputs.shape, tf.cast(2.0, dtype)))

    outputs, gradient = tf.function(outputs_and_gradient)() if in_graph else outputs_and_gradient()
    assert outputs.dtype == gradient.dtype == dtype
    np.testing.assert_allclose(tf.cast(outputs, "float32"), X * PROBABILITY, rtol=tolerance, atol=tolerance)
    expected = 2 * (PROBABILITY + X * DENSITY)
    np.testing.assert_allclose(tf.cast(gradient, "float32"), expected, rtol=tolerance, atol=tolerance)


def test_only_training_uses_xla(no_gpu):
    inputs = keras.Input((None,))
    model = keras.Model(inputs, gelu.Gelu()(inputs))

    def uses_xla(training):
        graph = tf.function(lambda x: model(x, training=training)).get_concrete_function(tf.constant(X)).graph
        functions = graph.as_graph_def().library.function
        return any(function.attr["_XlaMustCompile"].b for function in functions)

    assert uses_xla(training=True)
    assert not uses_xla(training=False)
