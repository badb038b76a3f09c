import numpy as np
import pytest
from scipy import special

from models import calibration, reliability, views
from models.training import loop
from settings.export import ExportConfig
from tests.models import samples


def draw(count, temperature, seed=0, classes=10):
    """Returns logits, and labels that have the probabilities of the logits divided by a temperature."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(count, classes))
    shares = special.softmax(logits / temperature, axis=1)
    labels = (shares.cumsum(axis=1) < generator.uniform(size=(count, 1))).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


def fit(monkeypatch, logits, labels, **config):
    monkeypatch.setattr(calibration, "logits", lambda model, images: logits)
    images = samples.colored(1, 2)
    images = type(images)(images.pixels, np.asarray(labels))
    return calibration.fit(None, images, ExportConfig(**config))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, labels = draw(20_000, temperature)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.04)


def test_the_figures_before_and_after_are_of_images_that_were_not_fitted_on(monkeypatch):
    logits, labels = draw(5000, 0.5)
    fitted = fit(monkeypatch, logits, labels)
    described = fitted.described
    assert described["temperature"] == fitted.temperature == pytest.approx(0.5, rel=0.1)
    assert (described["method"], described["images"], described["at_bound"]) == ("temperature", 5000, False)
    assert described["before"] == reliability.measure(labels, special.softmax(logits, axis=1))
    after, in_sample = (
        described["after"],
        reliability.measure(labels, special.softmax(logits / fitted.temperature, axis=1)),
    )
    assert in_sample["loss"] < after["loss"] < described["before"]["loss"] - 0.1
    assert after["calibration_error"] < 0.03 < described["before"]["calibration_error"]


def test_without_calibration_nothing_changes(monkeypatch):
    fitted = fit(monkeypatch, *draw(200, 0.5), calibration="none")
    assert fitted.temperature == 1
    assert fitted.described["method"] == "none"
    assert fitted.described["before"] == fitted.described["after"]


@pytest.mark.parametrize("count", [1, 2, 50, 500, 5000])
def test_few_images_do_not_make_the_model_too_sure(count):
    test_logits, test_labels = draw(5000, 0.6, seed=1)
    uncalibrated = reliability.measure(test_labels, special.softmax(test_logits, axis=1))["loss"]
    losses = []
    for seed in range(20):
        temperature = calibration.fit_temperature(*draw(count, 0.6, seed=seed + 2))
        assert 0.2 < temperature < 1.5
        losses.append(
            reliability.measure(test_labels, special.softmax(test_logits / temperature, axis=1))["loss"]
        )
    if count >= 50:
        assert max(losses) < uncalibrated


def test_a_split_that_is_answered_without_mistakes_does_not_make_the_model_certain(monkeypatch, caplog):
    generator = np.random.default_rng(0)
    for classes, labels in ((4, np.arange(100) % 4), (4, np.zeros(100, int))):
        logits = 0.3 * generator.normal(size=(100, classes)) + 3 * np.eye(classes)[labels]
        fitted = fit(monkeypatch, logits, labels)
        assert not fitted.described["at_bound"]
        assert 0.3 < fitted.temperature < 0.9
        # A hundred right answers show that the model may be surer, but not that it is never wrong.
        before, after = (special.softmax(logits / t, axis=1).max(axis=1) for t in (1, fitted.temperature))
        assert before.mean() < 0.9 < after.mean() < 0.999
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("scale", [1.0, 1e4, 0.0])
def test_a_network_that_is_always_wrong_reaches_the_bound_which_is_said(monkeypatch, caplog, scale):
    labels = np.zeros(60, int)
    logits = scale * np.eye(3)[np.full(60, 1)]
    fitted = fit(monkeypatch, logits, labels)
    assert np.isfinite(fitted.temperature)
    assert calibration.LOWEST <= fitted.temperature <= calibration.HIGHEST
    assert fitted.described["at_bound"] == (scale > 1)
    assert ("is at its bound" in caplog.text) == (scale > 1)
    if scale == 0:
        assert fitted.temperature == pytest.approx(1, abs=1e-3)


def test_the_threshold_for_an_accuracy_is_the_lowest_one_that_gives_it():
    confidence = np.concatenate([np.linspace(0.99, 0.9, 100), [0.8, 0.8, 0.7]])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.zeros(103, int)
    labels[[50, 101]] = 1
    found = calibration.abstention(labels, probabilities)
    # One of 100 answers is wrong; of 102, two.
    threshold, answered = pytest.approx(0.9), pytest.approx(100 / 103)
    assert found == {"accuracy": 0.99, "threshold": threshold, "answered": answered, "images": 100}
    labels[:] = 1
    assert calibration.abstention(labels, probabilities) == {
        "accuracy": 0.99,
        "threshold": None,
        "answered": 0.0,
        "images": 0,
    }


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_a_prediction_set_holds_the_label_as_often_as_it_should(coverage):
    logits, labels = draw(20_000, 1.0)
    probabilities = special.softmax(logits, axis=1)
    shares = []
    for start in range(0, 20_000, 200):  # each part is fitted, the next one covered
        own, other = slice(start, start + 100), slice(start + 100, start + 200)
        found = calibration.prediction_set(labels[own], probabilities[own], coverage)
        assert found["coverage"] == coverage
        new, right = probabilities[other], labels[other]
        in_set = new[np.arange(100), right] >= found["least_probability"]
        shares.append(np.mean(in_set | (new.argmax(axis=1) == right)))
    assert coverage - 0.005 < np.mean(shares) < coverage + 0.03


def test_a_prediction_set_needs_enough_images():
    probabilities = np.tile([0.6, 0.4], (19, 1))
    assert calibration.prediction_set(np.ones(18, int), probabilities[:18], 0.95) is None
    assert calibration.prediction_set(np.ones(19, int), probabilities, 0.95)["least_probability"] == 0.4


def test_a_prediction_set_has_one_class_if_the_most_probable_one_is_right_often_enough():
    labels = np.zeros(100, int)
    labels[:4] = 1
    found = calibration.prediction_set(labels, np.tile([0.6, 0.4], (100, 1)), 0.95)
    assert found["least_probability"] == 1
    labels[4] = 1  # five of 100, and 101 images share the 5 % that may be wrong
    found = calibration.prediction_set(labels, np.tile([0.6, 0.4], (100, 1)), 0.95)
    assert found["least_probability"] == 0.4


def test_the_logits_are_those_of_all_views():
    images = samples.colored(70, samples.SIDE)
    model = loop.build(samples.small_settings(), images, 3)
    pixels = images.pixels.astype(np.float32) / np.float32(255)
    first = model(pixels, training=False)
    np.testing.assert_allclose(calibration.logits(model, images), first, atol=1e-5)
    for config in (ExportConfig(views=6), ExportConfig(views=6, extra_views_below=0.4)):
        expected = views.average(
            lambda batch: model(batch, training=False) / 0.7, pixels, first / 0.7, 6, config.extra_views_below
        )
        found = calibration.logits(model, images, 0.7, config)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert not np.allclose(found, first / 0.7, atol=1e-3)
