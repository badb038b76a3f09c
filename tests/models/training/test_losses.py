import keras
import numpy as np
import pytest
from sklearn.utils import class_weight

from models.training import losses


def test_label_smoothing_equals_the_closed_form_and_keras_loss():
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], np.float32)
    labels = np.array([0, 2])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for smoothing in (0.0, 0.1):
        targets = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
        expected = -(targets * np.log(probabilities)).sum(axis=1)
        np.testing.assert_allclose(losses.CrossEntropy(smoothing).call(labels, logits), expected, rtol=1e-6)
        keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        assert float(losses.CrossEntropy(smoothing)(labels, logits)) == pytest.approx(
            float(keras_loss(np.eye(3)[labels], logits))
        )


def test_class_weights_multiply_the_losses_of_their_images():
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 2, 1, 0])
    plain = losses.CrossEntropy(0.1).call(labels, logits)
    weighted = losses.CrossEntropy(0.1, [1.0, 2.0, 0.5]).call(labels, logits)
    np.testing.assert_allclose(weighted, plain * np.array([1.0, 2.0, 0.5])[labels], rtol=1e-6)


def test_balanced_weights_equal_those_of_scikit_learn():
    labels = np.repeat([0, 1, 2], [5, 30, 65])
    expected = class_weight.compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(losses.balanced_weights(np.bincount(labels)), expected)


def test_a_class_without_images_has_weight_one_and_changes_no_other_weight():
    assert losses.balanced_weights(np.array([10, 0, 30])) == pytest.approx([2.0, 1.0, 2 / 3])
