import numpy as np
import pytest
from scipy import special

from components.model_report import confidence, confidence_text
from components.model_report.predictions import Predictions
from models import reliability
from tests.components import samples


def predict(confidences, right):
    """Returns predictions of class 0 of two, which is the label where `right`."""
    confidences = np.asarray(confidences)
    labels = np.where(right, 0, 1)
    probabilities = np.stack([confidences, 1 - confidences], axis=1).astype(np.float32)
    return Predictions([str(i) for i in range(len(labels))], labels, probabilities)


PREDICTIONS = predict([0.95, 0.9, 0.8, 0.7, 0.6], [True, True, False, True, False])


def test_the_curve_answers_the_most_confident_images_first():
    curve = confidence.evaluate(PREDICTIONS, None, None)["abstention"]["curve"]
    assert len(curve) == 20
    points = {round(row["answered"], 3): row for row in curve}
    assert {share: row["accuracy"] for share, row in points.items()} == pytest.approx(
        {0.2: 1.0, 0.4: 1.0, 0.6: 2 / 3, 0.8: 3 / 4, 1.0: 3 / 5}
    )
    assert points[0.6]["threshold"] == pytest.approx(0.8)
    low, high = points[0.6]["interval"]
    assert 0 < low < 2 / 3 < high < 1


def test_thresholds_are_evaluated():
    fitted = samples.fitted()
    fitted["abstention"]["threshold"] = 0.85
    abstention = confidence.evaluate(PREDICTIONS, fitted, 0.65)["abstention"]
    assert abstention["configured"] == {
        "threshold": 0.65,
        "answered": pytest.approx(0.8),
        "accuracy": pytest.approx(0.75),
        "interval": abstention["configured"]["interval"],
    }
    assert abstention["target"]["val"] == fitted["abstention"]
    assert (abstention["target"]["evaluated"]["answered"], abstention["target"]["evaluated"]["accuracy"]) == (
        pytest.approx(0.4),
        1.0,
    )
    assert confidence.evaluate(PREDICTIONS, None, 0.99)["abstention"]["configured"]["accuracy"] is None
    fitted["abstention"]["threshold"] = None
    target = confidence.evaluate(PREDICTIONS, fitted, None)["abstention"]["target"]
    assert target["evaluated"] is None


def test_the_calibration_is_undone_for_the_figures_before_it():
    generator = np.random.default_rng(0)
    logits, labels = 3 * generator.normal(size=(300, 4)), generator.integers(0, 4, 300)
    logits[0] = [-900, 0, 0, 0]  # whose probability is 0
    temperature = 0.58
    calibrated = special.softmax(logits / temperature, axis=1).astype(np.float32)
    predictions = Predictions([str(i) for i in range(300)], labels, calibrated)
    fit = confidence.evaluate(predictions, samples.fitted(), None)["calibration_fit"]
    before = reliability.measure(labels, special.softmax(logits, axis=1))
    assert fit["evaluated"]["after"] == reliability.measure(labels, calibrated)
    for name in ("loss", "calibration_error"):
        assert fit["evaluated"]["before"][name] == pytest.approx(before[name], abs=1e-4)
    assert fit["temperature"] == temperature
    assert fit["val"]["before"] == samples.fitted()["before"]


def test_the_sets_are_counted():
    fitted = samples.fitted()
    fitted["prediction_set"]["least_probability"] = 0.25
    found = confidence.evaluate(PREDICTIONS, fitted, None)["prediction_set"]
    # The sets of the last two images have both classes.
    assert (found["covered"], found["mean_size"], found["single"]) == pytest.approx((0.8, 1.4, 0.6))
    fitted["prediction_set"]["least_probability"] = 0.99
    found = confidence.evaluate(PREDICTIONS, fitted, None)["prediction_set"]
    assert (found["covered"], found["mean_size"], found["single"]) == pytest.approx((0.6, 1.0, 1.0))


def test_the_sentences_say_what_was_chosen_where():
    report = samples.report(5)
    texts = confidence_text.describe_abstention(report["abstention"], "test")
    said = " ".join(texts).replace("\u00a0", " ")
    assert (
        "below 0.6 (export.abstain_below). It answers 93.0 % of the test images, 95.0 % of them right" in said
    )
    assert (
        "an accuracy of 99.0 % on the val split, the threshold is 0.912, which 60.0 % of its images" in said
    )
    val, evaluated = report["abstention"]["target"].values()
    report["abstention"] |= {"target": {"val": {**val, "answered": 1, "images": 200}, "evaluated": evaluated}}
    said = confidence_text.describe_abstention(report["abstention"], "test")[-1].replace("\u00a0", " ")
    assert "the accuracy of all answers is at least 99.0 %, without any threshold" in said
    assert "200 val images, too few to show" in said
    none = {"accuracy": 0.99, "threshold": None, "answered": 0.0, "images": 0}
    report["abstention"] |= {"configured": None, "target": {"val": none, "evaluated": None}}
    (text,) = confidence_text.describe_abstention(report["abstention"], "test")
    assert text.startswith("On the val split, no threshold gives an accuracy of 99.0")
    fit = report["calibration_fit"]
    assert "a temperature of 0.580, which makes the model surer" in confidence_text.describe_fit(fit)
    assert "bound" not in confidence_text.describe_fit(fit)
    assert "few" not in confidence_text.describe_fit(fit)
    assert "So few images" in confidence_text.describe_fit({**fit, "images": 299})
    sets = report["prediction_set"]
    several = confidence_text.describe_sets(sets, "test")
    assert "at least 0.1234, are a set that should hold the right class for at least 95.0" in several
    assert "not set" not in several
    one = confidence_text.describe_sets({**sets, "least_probability": 1, "served": False}, "test")
    assert "needs one class only" in one
    assert "export.prediction_set is not set" in one
    assert "at its bound" in confidence_text.describe_fit({**fit, "at_bound": True})
    assert "export.calibration is none" in confidence_text.describe_fit({**fit, "method": "none"})
    rows = confidence_text.fit_rows(fit, "test")
    assert [row["name"] for row in rows] == [
        "Calibration error, test",
        "Calibration error, val",
        "Loss, test",
        "Loss, val",
    ]
    assert rows[1]["before"].replace("\u00a0", " ") == "16.2 % (15.2 to 17.2 %)"
