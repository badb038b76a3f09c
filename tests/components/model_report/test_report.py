import base64
import html
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from components.model_report import comparison, images, page, predictions, report, scores
from components.model_report.predictions import Predictions
from tests.components import samples
from tests.models.samples import example, png

pytestmark = pytest.mark.filterwarnings("error")
SIDE = 8
FIGURES = {f"{name}.{extension}" for name in samples.FIGURES for extension in ("png", "svg")}
FILES = FIGURES | {"metrics.json", "predictions.parquet", "index.html", "report.md"}


class WrittenReport:
    """A report that was written, its inputs, and the arguments of the calls of `explain`."""

    def __init__(self, folder, labels, probabilities, baseline=None, trials=True, ids=None, findings=None):
        labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float32)
        num_classes = probabilities.shape[1]
        self.folder = folder / "report"
        self.folder.mkdir()
        self.names = samples.class_names(num_classes)
        self.predictions = _predictions(labels, probabilities, ids)
        ids = ids or self.predictions.ids
        self.encoded = _encode(len(labels), seed=1)
        self.explain_calls = []
        sample = samples.report(num_classes)
        self.context = {key: sample[key] for key in sample if key not in _computed()}
        if baseline is None:
            self.context["baseline"] = None
        if not trials:
            self.context["trials"] = []
        if findings is not None:
            self.context["data_findings"] = findings
        half = len(labels) // 2
        evidence = report.Evidence(
            predictions=self.predictions,
            baseline=None if baseline is None else _predictions(labels, baseline),
            class_names=self.names,
            test_files=[
                _write(folder / "b.gz", self.encoded[:half], labels[:half], ids[:half]),
                _write(folder / "a.gz", self.encoded[half:], labels[half:], ids[half:]),
            ],
            train_files=[_write(folder / "train.gz", _encode(20, seed=2), np.arange(20) % num_classes)],
            explain=self._explain,
            corrupted=np.full((SIDE, SIDE, 3), 128, np.uint8),
        )
        self.metrics = report.write(self.folder, evidence, self.context)

    def _explain(self, encoded):
        self.explain_calls.append(list(encoded))
        heat = np.zeros((len(encoded), SIDE, SIDE), np.float32)
        # A different hot pixel for each image.
        heat.reshape(len(encoded), -1)[np.arange(len(encoded)), np.arange(len(encoded))] = 1
        return np.full((*heat.shape, 3), 100, np.uint8), heat

    def read(self, name):
        return (self.folder / name).read_text(encoding="utf-8")


def _computed():
    """Returns the keys of `metrics.json` that `report.write` computes itself."""
    keys = {"comparison", "label_error_count", "label_errors", "data_findings"}
    keys |= {"calibration_fit", "abstention", "prediction_set"}
    return keys | set(scores.compute(_predictions(np.array([0, 1]), np.eye(2, dtype=np.float32)), ["a", "b"]))


def _predictions(labels, probabilities, ids=None):
    named = [each or "digest" for each in ids] if ids else [f"test/{i}" for i in range(len(labels))]
    return Predictions(predictions.number_repeats(named), labels, np.float32(probabilities))


def _encode(count, seed):
    """Returns PNGs of noise, all different."""
    generator = np.random.default_rng(seed)
    return [png(pixels) for pixels in generator.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)]


def _write(path, encoded, labels, ids=None):
    ids = ids or [""] * len(labels)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for image, label, example_id in zip(encoded, labels, ids, strict=True):
            record = example(image, int(label))
            record.features.feature["id"].bytes_list.value.extend([example_id.encode()] if example_id else [])
            writer.write(record.SerializeToString())
    return str(path)


def _uncertain(labels, num_classes, seed=0):
    """Returns probabilities whose accuracy is better than chance."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(len(labels), num_classes)) + 2 * np.eye(num_classes)[labels]
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


def _certain(predicted, num_classes):
    """Returns probabilities of 0.97 for the predicted classes."""
    return np.where(np.eye(num_classes)[predicted] > 0, 0.97, 0.03 / (num_classes - 1))


def _pictures_in(text):
    """Returns the data URIs of a page's images in order, without the figures."""
    return [part.split('"')[0] for part in text.split('<img class="picture" src="')[1:]]


def _are_shown_together(expected, written):
    shown = _pictures_in(written.read("index.html"))
    return any(shown[i : i + len(expected)] == expected for i in range(len(shown)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The report on 60 images of five classes, of which the last has no images; about a third is wrong."""
    labels = np.arange(60) % 4
    probabilities, baseline = _uncertain(labels, 5), _uncertain(labels, 5, seed=1)
    # A confident prediction that contradicts the label.
    probabilities[8] = _certain(2, 5)
    return WrittenReport(tmp_path_factory.mktemp("report"), labels, probabilities, baseline)


def test_the_files_of_a_report(written):
    assert {path.name for path in written.folder.iterdir()} == FILES
    for name in FIGURES:
        content = (written.folder / name).read_bytes()
        assert content.startswith(b"\x89PNG") if name.endswith("png") else b"</svg>" in content
    stored, names = predictions.read(written.folder / "predictions.parquet")
    assert names == written.names
    assert stored.ids == written.predictions.ids
    np.testing.assert_array_equal(stored.probabilities, written.predictions.probabilities)


def test_metrics_json_has_every_key_and_equals_the_result(written):
    content = json.loads(written.read("metrics.json"))
    assert content == written.metrics
    sample = samples.report(5)
    assert set(content) == set(sample)
    for key in ("classes", "calibration", "most_confused", "label_errors"):
        assert set(content[key][0]) == set(sample[key][0])
    assert {key: content[key] for key in written.context} == written.context
    computed = scores.compute(written.predictions, written.names)
    assert {key: content[key] for key in computed} == computed


def test_the_page_embeds_the_figures_and_agrees_with_the_metrics(written):
    text = written.read("index.html")
    for name in samples.FIGURES:
        content = base64.b64encode((written.folder / f"{name}.png").read_bytes()).decode()
        assert f"data:image/png;base64,{content}" in text
    assert page.percent(written.metrics["accuracy"]) in text
    assert page.render_markdown(written.metrics) == written.read("report.md")


def test_class_names_cannot_become_markup(written):
    assert samples.HOSTILE in written.names
    assert html.escape(samples.HOSTILE) in written.read("index.html")
    assert samples.HOSTILE not in written.read("index.html")
    assert r"\<script\>" in written.read("report.md")
    assert samples.HOSTILE not in written.read("report.md")


def test_the_most_confident_mistakes_are_explained_and_shown(written):
    predicted, labels = written.predictions.predicted, written.predictions.labels
    confidence = written.predictions.probabilities.max(axis=1)
    mistakes = [i for i in range(60) if predicted[i] != labels[i]]
    mistakes.sort(key=lambda i: -confidence[i])
    assert 5 < len(mistakes) <= 24
    assert written.explain_calls == [[written.encoded[i] for i in mistakes]]
    explained = written._explain([written.encoded[i] for i in mistakes])
    expected = []
    for i, pixels, image_heat in zip(mistakes, *explained, strict=True):
        expected += [images.thumbnail(written.encoded[i]), images.heat_overlay(pixels, image_heat)]
    assert _are_shown_together(expected, written)


def test_the_page_shows_images_of_every_class_and_of_confused_pairs(written):
    train = [images.thumbnail(encoded) for encoded in _encode(20, seed=2)]
    # Four images of each class, class by class.
    by_class = [train[i] for label in range(5) for i in range(label, 20, 5)]
    assert _are_shown_together(by_class, written)
    pair = written.metrics["most_confused"][0]
    predicted, labels = written.predictions.predicted, written.predictions.labels
    indices = [
        i
        for i in np.argsort(-written.predictions.probabilities.max(axis=1), kind="stable")
        if (written.names[labels[i]], written.names[predicted[i]]) == (pair["actual"], pair["predicted"])
    ]
    assert len(indices) == pair["count"]
    assert _are_shown_together([images.thumbnail(written.encoded[i]) for i in indices], written)


def test_likely_label_errors_are_listed_and_shown(written):
    errors = written.metrics["label_errors"]
    assert written.metrics["label_error_count"] == len(errors) > 0
    (planted,) = (error for error in errors if error["id"] == "test/8")
    assert planted == {
        "id": "test/8",
        "label": written.names[0],
        "suggested": written.names[2],
        "label_probability": pytest.approx(0.0075),
        "suggested_probability": pytest.approx(0.97),
    }
    margins = [error["label_probability"] - error["suggested_probability"] for error in errors]
    assert margins == sorted(margins)
    expected = [images.thumbnail(written.encoded[int(error["id"].split("/")[1])]) for error in errors]
    assert _are_shown_together(expected, written)


def test_labels_can_be_corrected_where_the_id_names_one_image(tmp_path):
    labels = np.arange(12) % 3
    # All are mistakes. Image 3 has no id, and images 4 and 5 have the same one.
    ids = [f"test/{i}" for i in range(12)]
    ids[3], ids[5] = "", ids[4]
    written = WrittenReport(tmp_path, labels, _certain((labels + 1) % 3, 3), ids=ids)
    mistakes = written.read("index.html").split('<h2 id="labels">')[0]
    places = re.findall('data-split="test" data-id="([^"]*)"', mistakes)
    assert places == [f"test/{i}" for i in range(12) if i not in (3, 4, 5)]
    assert mistakes.count("the image has no id of its own") == 3


def test_the_findings_of_the_data_gate_are_shown_and_counted(tmp_path):
    labels = np.arange(12) % 3
    (encoded,) = _encode(1, seed=3)
    members = [
        {"split": split, "label": "cat", "id": f"{split}/1", "image": images.thumbnail(encoded)}
        for split in ("test", "train")
    ]
    counts = {
        "leaked_count": 1,
        "contradictions_count": 0,
        "near_count": 0,
        "repeated": 3,
        "leaked_images": {"test/train": 1},
    }
    # Lists that are missing are empty.
    written = WrittenReport(tmp_path, labels, _certain(labels, 3), findings={**counts, "leaked": [members]})
    assert written.metrics["data_findings"] == counts
    assert images.thumbnail(encoded) not in written.read("metrics.json")
    assert "1 test image is also in train." in written.read("report.md")
    assert _pictures_in(written.read("index.html")).count(images.thumbnail(encoded)) == 1
    for member in members:
        assert f'data-split="{member["split"]}" data-id="{member["id"]}"' in written.read("index.html")


def test_the_baseline_is_compared_as_the_earlier_model(written):
    labels = written.predictions.labels
    baseline = _predictions(labels, _uncertain(labels, 5, seed=1))
    compared = written.metrics["comparison"]
    assert compared == comparison.compare(baseline, written.predictions, written.names)
    accuracy = compared["metrics"][0]
    assert accuracy["b"] == pytest.approx(written.metrics["accuracy"])
    assert accuracy["a"] == pytest.approx(np.mean(baseline.predicted == labels))


def test_a_class_without_test_images_has_no_data(written):
    last = written.metrics["classes"][4]
    assert (last["support"], last["recall"], last["intervals"]["recall"]) == (0, None, None)
    assert "no data" in written.read("index.html")


def test_a_perfect_first_model_has_no_mistakes_and_no_comparison(tmp_path):
    labels = np.arange(12) % 3
    written = WrittenReport(tmp_path, labels, _certain(labels, 3), trials=False)
    assert written.explain_calls == []
    assert written.metrics["accuracy"] == 1
    assert written.metrics["comparison"] is None
    assert (written.metrics["label_errors"], written.metrics["label_error_count"]) == ([], 0)
    assert {path.name for path in written.folder.iterdir()} == FILES - {
        f"{name}.{extension}" for name in ("trials", "parallel_coordinates") for extension in ("png", "svg")
    }
    text = written.read("index.html")
    for sentence in (
        "the model classified every test image correctly",
        "There is no earlier blessed model of the same classes to compare with",
    ):
        assert sentence in text


def test_a_model_that_predicts_one_class_only(tmp_path):
    labels = np.arange(60) % 3
    written = WrittenReport(tmp_path, labels, _certain(np.ones(60, np.int64), 3))
    assert written.metrics["accuracy"] == pytest.approx(1 / 3)
    # Two thirds are wrong with the same confidence, so the first 24 of them are explained, in their order.
    (encoded,) = written.explain_calls
    assert encoded == [image for image, label in zip(written.encoded, labels, strict=True) if label != 1][:24]
    assert len(encoded) == 24


def test_a_test_split_of_one_class_alone(tmp_path):
    written = WrittenReport(tmp_path, np.ones(12, np.int64), _certain(np.arange(12) % 2, 2))
    assert [each["recall"] for each in written.metrics["classes"]] == [None, 1 / 2]
    assert written.metrics["roc_auc_macro"] is None
    assert written.metrics["label_error_count"] == 0


@pytest.mark.parametrize("num_classes", [2, pytest.param(200, marks=pytest.mark.slow)])
def test_few_and_many_classes(tmp_path, num_classes):
    labels = np.arange(max(40, 2 * num_classes)) % num_classes
    written = WrittenReport(tmp_path, labels, _uncertain(labels, num_classes))
    assert {path.name for path in written.folder.iterdir()} == FILES
    text = written.read("index.html")
    assert all(html.escape(name) in text for name in written.names)
    assert len(written.metrics["classes"]) == num_classes
    assert len(written.explain_calls[0]) == min(24, np.sum(written.predictions.predicted != labels))
