import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser

import jinja2
import pytest

from components.model_report import page, review
from tests.components import samples
from tests.components.samples import HOSTILE

VOID = {"meta", "link", "img", "br", "input"}
SPACE = "\u00a0"


class Document(HTMLParser):
    """A parsed page: its text, its tags, and the rows of the tables outside <details>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.visible_rows: list[int] = []  # number of rows of each table outside <details>
        self.headings: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "details" not in self.open:
            if tag == "table":
                self.visible_rows.append(0)
            elif tag == "tr":
                self.visible_rows[-1] += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not {"style", "script", "template"} & set(self.open):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace(SPACE, " ").split())


def render(report, pictures=None):
    return page.render_html(report, samples.figures(), pictures or samples.pictures(report))


@pytest.fixture(scope="module")
def report():
    return samples.report(10)


@pytest.fixture(scope="module")
def document(report):
    return Document(render(report))


def test_settings_are_those_that_were_used(report):
    rows = [
        {"key": "model.cnn.dropout", "value": 0.3, "origin": "quick.yaml"},
        {"key": "trainer.batch_size", "value": 250, "origin": "default"},
        {"key": "tuner.space.trainer.batch_size.min", "value": 16.0, "origin": "--set"},
        {"key": "tuner.enabled", "value": True, "origin": "flag"},
    ]
    shown = Document(render({**report, "configuration": rows})).text
    settings = shown[shown.index("Setting Value From model.cnn.dropout") :]
    assert "model.cnn.dropout 0.3 quick.yaml trainer.batch_size 128 Tuner" in settings
    assert "tuner.space.trainer.batch_size.min 16 --set tuner.enabled true flag" in settings


@pytest.fixture(scope="module")
def bare_document():
    return Document(render(samples.bare(samples.report(2)), samples.no_pictures()))


@pytest.mark.parametrize("name", ["document", "bare_document"])
def test_the_page_is_well_formed_and_loads_nothing(name, request):
    document = request.getfixturevalue(name)
    assert document.open == []
    assert document.all("script") == [{}]
    assert all(image["src"].startswith("data:image/png;base64,") for image in document.all("img"))
    assert {link["href"] for link in document.all("link")} == {"data:,"}
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    files = {"metrics.json", "report.md", "predictions.parquet"}
    assert {link["href"] for link in document.all("a")} == {f"#{each}" for each in ids} | files


@pytest.mark.parametrize("name", ["document", "bare_document"])
def test_the_page_is_accessible(name, request):
    document = request.getfixturevalue(name)
    assert document.headings[0] == 1
    assert document.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(document.headings))
    assert all(len(document.all(landmark)) == 1 for landmark in ("header", "nav", "main", "footer"))
    assert all(image["alt"].strip() for image in document.all("img"))
    regions = [each for each in document.all("div") if each.get("role") == "region"]
    assert regions
    assert all(region["aria-label"] and region["tabindex"] == "0" for region in regions)
    assert document.tags[[tag for tag, _ in document.tags].index("a")][1]["href"] == "#main"


def test_class_names_are_shown_unchanged(document, report):
    assert len(report["classes"]) == 10
    for each in report["classes"]:
        assert each["name"] in document.text


def test_every_picture_is_shown_once(document, report):
    pictures = samples.pictures(report)
    expected = [
        uri for group in ("classes", "confused") for each in pictures[group] for uri in each["images"]
    ]
    expected += [each[key] for each in pictures["mistakes"] for key in ("image", "attribution")]
    expected += [each["image"] for each in pictures["label_errors"]]
    # Equal images are shown once.
    expected += [group[0]["image"] for name in ("leaked", "contradictions") for group in pictures[name]]
    expected += [pair[key]["image"] for pair in pictures["near"] for key in ("first", "second")]
    shown = [image["src"] for image in document.all("img") if image.get("class") == "picture"]
    assert sorted(shown) == sorted(expected)


def test_the_top_of_the_page_has_the_verdict_and_failed_gates_first(document):
    top = document.text.split("Metric Macro Micro Weighted")[0]
    for sentence in [
        "✗ Not blessed 1 of 3 gates failed; the model will not be pushed.",
        "Gate Value Limit Verdict drop of accuracy 0.021 at most 0.01 ✗ failed "
        "accuracy is 0.0210 under the last blessed model's; 0.0100 is allowed accuracy",
        "8 more gates, all passed",
        "worse, by more than chance would explain. 19 images became right, 40 became wrong "
        "(McNemar's test: p = 0.0086).",
    ]:
        assert sentence in top


def test_a_model_refused_without_a_failed_gate_has_a_reason(report):
    reason = "the evaluation was incomplete: no metrics"
    gates = [gate for gate in report["gates"] if gate["passed"]]
    text = Document(render({**report, "gates": gates, "failed_gates": [reason]})).text
    assert f"The evaluation was not complete; the model will not be pushed. {reason}" in text


def test_a_model_refused_for_corrupted_images_is_led_to_their_section(report):
    gate = {**report["gates"][0], "name": "corrupted_accuracy", "passed": False, "sentence": "it is too low"}
    document = Document(render({**report, "gates": [gate], "failed_gates": [gate["sentence"]]}))
    assert "it is too low ( Robustness )" in document.text
    assert "robustness" in [heading.get("id") for heading in document.all("h2")]
    assert sum(link.get("href") == "#robustness" for link in document.all("a")) == 2  # also in the contents


def test_slices_below_the_overall_accuracy_are_marked(document):
    assert document.text.count("▼ lower") == 2  # in the explanation and beside one slice
    assert re.search(r"brightness: dark \(under 0.25\) 120 [0-9.]+ % [0-9. to]+ % ▼ lower", document.text)


def test_settings_that_are_not_default_come_first(document):
    settings = document.text.split("Setting Value From")
    assert "trainer.epochs 8 quick.yaml" in settings[1]
    assert "2 defaults" in settings[1]
    assert "tuner.space.trainer.batch_size [64, 128] default model.cnn.dropout none default" in settings[2]


def test_empty_sections_say_so(bare_document):
    for sentence in [
        "✓ Blessed No gate was set.",
        "There is no earlier blessed model of the same classes to compare with.",
        "No image was misclassified.",
        "None: the model classified every test image correctly.",
        "No likely label errors were found.",
        "Reviewing labels needs scripts, which this viewer does not run.",
        "No anomalies were found.",
        "No slices were evaluated.",
        "The Tuner did not run.",
        "Git commit not recorded Uncommitted changes not recorded",
        "Peak memory not recorded",
        "Trainer not recorded",
        "trained from scratch: no pretrained weights",
    ]:
        assert sentence in bare_document.text
    for word in [
        *("McNemar", "Trial ", "None None", "integrated gradients", "will not be pushed"),
        *("Duplicates", "DataGate"),
    ]:
        assert word not in bare_document.text


def test_the_browser_is_told_to_run_the_pages_own_script_alone(report):
    text = render(report)
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', text)
    directives = dict(each.split(maxsplit=1) for each in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == f"'sha256-{digest}'"


def test_every_image_of_the_lists_has_a_place_for_the_choices(document, report):
    pictures = samples.pictures(report)
    places = [each for each in document.all("div") if each.get("class") == "review"]
    members = [
        member for name in ("leaked", "contradictions") for group in pictures[name] for member in group
    ]
    members += [pair[key] for pair in pictures["near"] for key in ("first", "second")]
    expected = [("test", e["own_id"], e["actual"], e["predicted"]) for e in pictures["mistakes"][:-1]]
    expected += [("test", e["own_id"], e["label"], e["suggested"]) for e in pictures["label_errors"]]
    found = [tuple(place[f"data-{key}"] for key in ("split", "id", "label", "suggested")) for place in places]
    assert found[: len(expected)] == expected
    assert [place[:3] for place in found[len(expected) :]] == [
        tuple(member[key] for key in ("split", "id", "label")) for member in members
    ]
    assert document.text.count("No choice here: the image has no id of its own") == 1


def test_the_label_of_an_equal_image_is_suggested_where_there_is_one_other(document, report):
    cat, hostile, money = (each["name"] for each in report["classes"][:3])
    suggested = {
        (place["data-id"], place["data-split"]): place["data-suggested"]
        for place in document.all("div")
        if place.get("class") == "review"
    }
    # Equal images with two labels, equal images with one label, nearly equal images with two labels.
    assert suggested["train/cat & co/00040.png", "train"] == hostile
    assert suggested["train/<script> & co/00041.png", "train"] == cat
    assert suggested["test/cat & co/00000.png", "test"] == ""
    assert suggested["val/cat & co/00060.png", "val"] == hostile
    group = [{"label": name} for name in (cat, hostile, money)]
    assert review.other_label(group, cat) == ""


def test_the_counts_of_duplicates_are_sentences(document, report):
    sentences = (
        "1,200 test images are also in train. 1 test image is also in val. "
        "1 image occurs with more than one label. 260 pairs of images are nearly equal. "
        "7 images are equal to other ones of the same split and class, which is harmless."
    )
    assert f"What DataGate found in all splits: {sentences}" in document.text
    assert "The first 100 of 260 pairs:" in document.text
    assert "The first 30" not in document.text
    assert f"## Duplicates\n\n{sentences}\n" in page.render_markdown(report)
    assert "Duplicates" not in page.render_markdown({**report, "data_findings": None})


def test_the_warnings_of_the_data_are_listed(report, document):
    (warning,) = report["data"]["warnings"]
    assert f"Warnings of DataGate {warning}" in document.text
    markdown = page.render_markdown(samples.report(2))
    assert "## Warnings of DataGate\n\n- the model cannot learn these classes" in markdown
    bare = samples.bare(samples.report(2))
    assert "Warnings" not in Document(render(bare, samples.no_pictures())).text + page.render_markdown(bare)


def test_the_worth_of_further_views_is_said():
    report = samples.report(2)
    unsure = (
        "The model averages 6 views of each image for which the answer to the first is less than 90.0 % "
        "sure, 61.0 % of the images. Its accuracy is 84.4 %, and with one view it would be 83.3 %. An image "
        "takes 1.5 ms, and with one view 0.4 ms, in batches of 64 on the machine that wrote this report."
    )
    assert unsure in Document(render(report, samples.no_pictures())).text.replace("\u00a0", " ")
    assert unsure in page.render_markdown(report).replace("\u00a0", " ")
    report["views"]["extra_views_below"] = None
    assert "The model averages 6 views of each image. Its" in page.render_markdown(report)
    assert "averages" not in page.render_markdown({**report, "views": None})


def test_the_formats_are_a_table_that_says_what_is_left_out():
    report = samples.report(2)
    markdown = page.render_markdown(report)
    assert "Compared on 10,000 of 26,032 test images." in markdown
    assert "tflite\\_int8 is left out: it agrees for 71.00% of the images." in markdown
    for row in (
        "| SavedModel | 95.12% | 100.00% | 1.19 MB | 1.25 |  |",
        "| tflite | 95.11% | 99.98% | 1.19 MB | 1.25 | formats/model.tflite |",
        "| onnx | no data | no data | no data | no data | left out |",
    ):
        assert row in markdown
    document = Document(render(report, samples.no_pictures()))
    assert "onnx is left out: RuntimeError: no <such> op." in document.text
    without = {**report, "formats": None}
    assert "Formats" not in page.render_markdown(without)
    assert "Formats" not in Document(render(without, samples.no_pictures())).text


def test_a_dataset_without_duplicates_says_so():
    report = samples.report(2)
    report["data_findings"] = dict.fromkeys(
        ("leaked_count", "contradictions_count", "near_count", "repeated"), 0
    )
    report["data_findings"]["leaked_images"] = {}
    document = Document(render(report, samples.no_pictures()))
    assert "Duplicates What DataGate found in all splits: No equal or nearly equal images were found." in (
        document.text
    )
    assert "Nearly the same image" not in document.text


def test_200_classes_are_folded_and_stay_small():
    report = samples.report(200)
    text = render(report)
    assert len(text) < 6e6
    document = Document(text)
    assert max(document.visible_rows) <= 21
    assert "All 200 classes" in document.text
    assert "class 199" in document.text


def test_a_report_with_a_missing_key_is_refused(report):
    with pytest.raises(jinja2.UndefinedError, match="label_error_count"):
        render({name: value for name, value in report.items() if name != "label_error_count"})


@pytest.mark.parametrize(
    ("confidence", "sentence"),
    [
        (0.9, "over-confident: its mean confidence is 90.0 %"),
        (0.7, "under-confident: its mean confidence is 70.0 %"),
        (0.805, "neither over- nor under-confident on average: its mean confidence is 80.5 %"),
    ],
)
def test_calibration_weights_bins_by_their_images(confidence, sentence):
    bins = [
        {"count": 30, "confidence": confidence + 0.01, "accuracy": 0.7},
        {"count": 10, "confidence": confidence - 0.03, "accuracy": 1.1},
        {"count": 0, "confidence": None, "accuracy": None},
    ]
    described = page.describe_calibration(bins).replace(SPACE, " ")
    assert described == f"The model is {sentence}, and 80.0 % of its predictions are right."


def test_figures_have_alternative_texts(report):
    alternatives = page.describe_figures(report)
    assert set(alternatives) == set(samples.FIGURES)
    assert alternatives["accuracy_and_loss"] == (
        "Accuracy by epoch: training rises from 0.41 to 0.76, validation rises from 0.45 to 0.73. "
        "Loss: training falls from 1.6 to 0.55, validation falls from 1.5 to 0.66. The weights of "
        "epoch 6 were kept."
    )
    assert alternatives["trials"].replace(SPACE, " ") == (
        "Trials of the Tuner: 3 (1 failed), by space filling search in 1 min 03 s; the best validation "
        "accuracy, 78.0 %, was reached with trainer.learning_rate 0.001, trainer.batch_size 128. Its 95 % "
        "interval is 74.2 % to 81.4 %, from 500 images; no other trial lies in it."
    )
    right = sum(row[i] for i, row in enumerate(report["confusion_matrix"]))
    pair = report["most_confused"][0]
    assert alternatives["confusion_matrix"] == (
        f"Confusion matrix, counts: {right} of {report['examples']} images lie on the diagonal; "
        f"the most frequent mistake is {pair['actual']} predicted as {pair['predicted']} "
        f"({pair['count']} times)."
    )


def test_figures_of_one_epoch_and_of_no_data_have_alternative_texts():
    report = samples.bare(samples.report(2))
    nothing = dict.fromkeys(("precision", "recall", "f1", "roc_auc", "pr_auc"))
    alternatives = page.describe_figures({**report, "classes": [{"name": "cat", **nothing}]})
    assert alternatives["learning_rate"] == "Learning rate by epoch: 0.001 in the only epoch."
    assert alternatives["roc"] == "ROC curves: the area under the curve, by class, has no data."
    assert "trials" not in alternatives


@pytest.mark.parametrize(
    ("formatted", "expected"),
    [
        (page.percent(0.79944), "79.9 %"),
        (page.percent(None), "no data"),
        (page.points(-0.0216), "\u22122.2 points"),
        (page.points(0.0216), "+2.2 points"),
        (page.points(-0.0004), "0.0 points"),
        (page.points(None), "no data"),
        (page.percent_interval([0.1, 0.25]), "10.0 to 25.0 %"),
        (page.percent_interval(None), ""),
        (page.points_interval([-0.03, 0.01]), "\u22123.0 to +1.0"),
        (page.decimal_interval([-0.03, 0.0]), "\u22120.030 to 0.000"),
        (page.number(1e-5), "1e\u221205"),
        (page.count(1234567), "1,234,567"),
        (page.duration(59.94), "59.9 s"),
        (page.duration(61), "1 min 01 s"),
        (page.duration(3720), "1 h 02 min"),
        (page.duration(None), "not recorded"),
        (page.memory(3 * 2**29), "1.5 GiB"),
        (page.memory(None), "not recorded"),
    ],
)
def test_numbers_are_formatted(formatted, expected):
    assert formatted.replace(SPACE, " ") == expected


@pytest.mark.parametrize(
    ("interval", "meaning"),
    [
        ([0.01, 0.03], "better, by more than chance would explain. 2 images became right"),
        ([-0.03, -0.01], "worse, by more than chance would explain. 2 images became right"),
        ([-0.01, 0.03], "the difference may be chance. 2 images became right"),
        (None, "the two models have no images in common."),
    ],
)
def test_a_difference_is_judged_by_its_interval(interval, meaning):
    comparison = {
        "metrics": [{"name": "accuracy", "interval": interval}],
        "mcnemar": {"only_a_right": 1, "only_b_right": 2, "p_value": 0.00001},
    }
    sentence = page.describe_comparison(comparison)
    assert sentence.startswith(meaning)
    assert ("p < 0.0001" in sentence) == (interval is not None)


def test_the_classes_that_changed_most_come_first():
    changes = [{"recall_difference": change} for change in (0.1, None, -0.3, 0.2)]
    assert [each["recall_difference"] for each in page.by_change(changes)] == [-0.3, 0.2, 0.1, None]


def test_markdown_escapes_names_and_keeps_its_tables(report):
    text = page.render_markdown(report)
    assert text.startswith("# cifar10: not blessed\n\n1 of 3 gates failed; the model will not be pushed.\n")
    assert "- ✗ accuracy is 0.0210 under the last blessed model's; 0.0100 is allowed\n" in text
    assert r"\<script\>alert(1)\</script\>" in text
    assert HOSTILE not in text
    assert "`predictions.parquet`" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert [len(table.splitlines()) - 2 for table in tables] == [6, 4, 7, 5, 5]
    for table in tables:
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1


def test_markdown_of_a_first_model_has_no_comparison():
    text = page.render_markdown(samples.bare(samples.report(2)))
    assert text.startswith("# cifar10: blessed\n\nNo gate was set.\n")
    assert "There is no earlier blessed model of the same classes to compare with." in text
    assert "| Accuracy | 100.0" in text
    assert "Last blessed" not in text
    assert "No image was misclassified." in text
