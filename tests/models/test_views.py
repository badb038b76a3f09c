import numpy as np
import pytest
import tensorflow as tf

from models import views

WEIGHTS = np.random.default_rng(0).normal(size=(4 * 5 * 3, 2)).astype(np.float32)


def logits(images):
    return tf.reshape(images, [-1, 4 * 5 * 3]) @ WEIGHTS


def noise(count):
    return np.random.default_rng(1).uniform(size=(count, 4, 5, 3)).astype(np.float32)


def shifted(images, shift):
    """Moves images down and to the right; the row and column that come in mirror the ones at the border."""
    rows = np.array([1, 0, 1, 2] if shift > 0 else [1, 2, 3, 2])
    columns = np.array([1, 0, 1, 2, 3] if shift > 0 else [1, 2, 3, 4, 3])
    return images[:, rows][:, :, columns]


def by_hand(images, count):
    """Returns the average of the logits of all views, computed with NumPy."""
    mirrored = images[:, :, ::-1]
    center = (logits(images) + logits(mirrored)).numpy() / 2
    if count == 1:
        return logits(images).numpy()
    if count == 2:
        return center
    others = [
        view for shift in (-1, 1) for view in (shifted(images, shift), shifted(images, shift)[:, :, ::-1])
    ]
    return center / 2 + np.mean([logits(view).numpy() for view in others], axis=0) / 2


@pytest.mark.parametrize("count", sorted(views.VIEWS))
def test_the_average_is_the_one_computed_by_hand(count):
    images = noise(3)
    averaged = views.average(logits, tf.constant(images), logits(images), count)
    np.testing.assert_allclose(averaged, by_hand(images, count), atol=1e-5)
    assert len(views.VIEWS[count]) == count
    assert sum(view.weight for view in views.VIEWS[count]) == pytest.approx(1)


def test_only_unsure_images_are_looked_at_again():
    images = noise(20)
    first = logits(images)
    confidence = tf.nn.softmax(first).numpy().max(axis=1)
    limit = float(np.median(confidence))
    seen = []

    def counting(batch):
        seen.append(len(batch))
        return logits(batch)

    averaged = views.average(counting, tf.constant(images), first, 6, limit).numpy()
    unsure = confidence < limit
    assert seen == [10] * 5
    np.testing.assert_array_equal(averaged[~unsure], first.numpy()[~unsure])
    np.testing.assert_allclose(averaged[unsure], by_hand(images, 6)[unsure], atol=1e-5)
    seen.clear()
    np.testing.assert_array_equal(views.average(counting, tf.constant(images), first, 6, 0.01), first)
    assert not seen
