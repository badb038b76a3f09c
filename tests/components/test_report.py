import html
import json

import numpy as np
import pytest

from components.model_report import figures, metrics, page, report
from components.model_report.predictions import Predictions

NAMES = ["cat", "<script>alert(1)</script>", "cost in $ and $x"]
EPOCH = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.1, "val_accuracy": 0.4, "learning_rate": 0.01}
CONTEXT = {
    "name": "pets",
    "architecture": "cnn",
    "image_size": [32, 32],
    "blessed": False,
    "failed_gates": ["accuracy 0.4000 is under the floor of 0.5000"],
    "hyperparameters": {"learning_rate": {"value": 0.001, "source": "tuner"}},
}


@pytest.fixture
def predictions():
    """Five examples: three cats (two right, one taken for class 1), two of class 1 (one right); none of 2."""
    labels = np.array([0, 0, 0, 1, 1])
    predicted = [0, 0, 1, 1, 0]
    return Predictions(labels, np.where(np.eye(3)[predicted] > 0, 0.8, 0.1).astype(np.float32))


def test_metrics_in_closed_form(predictions):
    computed = metrics.compute(predictions.labels, predictions.probabilities, NAMES)
    assert computed["examples"] == 5
    assert computed["accuracy"] == pytest.approx(3 / 5)
    assert computed["loss"] == pytest.approx(-(3 * np.log(0.8) + 2 * np.log(0.1)) / 5, abs=1e-6)
    assert computed["confusion_matrix"] == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert computed["classes"][0] == {
        "name": "cat",
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "support": 3,
    }
    assert computed["classes"][2] == {"name": NAMES[2], "precision": 0, "recall": 0, "f1": 0, "support": 0}
    # Class 2 is neither actual nor predicted, so that it is no part of the averages.
    assert computed["f1_macro"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_most_confused_is_sorted_and_leaves_out_what_is_right():
    assert report.most_confused([[9, 1, 0], [3, 9, 0], [0, 0, 9]], NAMES) == [
        {"actual": NAMES[1], "predicted": "cat", "count": 3},
        {"actual": "cat", "predicted": NAMES[1], "count": 1},
    ]


def test_a_report_is_written_whole_and_escapes_what_comes_from_data(predictions, tmp_path):
    history = {"epochs": [EPOCH, EPOCH], "best": 1}
    report.write(tmp_path, predictions, NAMES, history, CONTEXT)
    figures_written = {"training_curves.png", "confusion_matrix.png", "per_class.png"}
    assert {p.name for p in tmp_path.iterdir()} == figures_written | {"metrics.json", "index.html"}
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["accuracy"] == pytest.approx(0.6)
    assert content["history"] == history
    text = (tmp_path / "index.html").read_text()
    assert "<script>" not in text
    assert html.escape(NAMES[1]) in text
    assert "Not blessed" in text
    assert CONTEXT["failed_gates"][0] in text
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize("number", [2, 25, 200])
def test_figures_can_be_drawn_for_any_number_of_classes(number):
    names = [f"class {i} ü$" for i in range(number)]
    matrix = np.eye(number, dtype=int).tolist()
    classes = [{"name": n, "precision": 0.5, "recall": 1.0, "f1": 0.7, "support": 1} for n in names]
    for figure in (figures.confusion_matrix(matrix, names), figures.per_class(classes)):
        assert page.png(figure).startswith(b"\x89PNG")
