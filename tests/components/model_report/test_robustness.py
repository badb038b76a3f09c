import numpy as np

from components.model_report import robustness_figures, robustness_text
from tests.components import samples
from tests.components.model_report.test_figures import assert_all_is_inside

MEASURED = samples.corruptions(0.9)


def test_the_sentences_say_what_was_measured_and_what_is_worst():
    first, extremes, unnoticed = (
        each.replace("\u00a0", " ") for each in robustness_text.describe_corruptions(MEASURED)
    )
    assert first.startswith("Measured on 500 of 10,000 images, corrupted in 7 ways at three strengths each")
    assert first.endswith(
        "61.4 % of the answers are right on average (95 % interval: 50.0 to 55.0 %), and without corruption "
        "90.0 %."
    )
    assert "lowest with noise, 10.0 %, and highest with blur, 70.0 %" in extremes
    assert "with noise of 10 of 255, its mean confidence is 76.5 %, and 10.0 %" in unnoticed


def test_a_model_that_notices_every_corruption_has_no_such_sentence():
    rows = [{**row, "confidence": row["accuracy"]} for row in MEASURED["measured"]]
    whole = {**MEASURED, "measured": rows, "available": 500}
    sentences = robustness_text.describe_corruptions(whole)
    assert len(sentences) == 2
    assert "Measured on 500 images" in sentences[0]


def test_the_table_has_the_accuracies_of_each_corruption_and_their_mean():
    rows = robustness_text.corruption_rows(MEASURED)
    assert [value.replace("\u00a0", " ") for value in rows[0].values()] == [
        "blur",
        "80.0 %",
        "70.0 %",
        "60.0 %",
        "70.0 %",
    ]
    assert len(rows) == 7


def test_the_bars_are_the_accuracies_and_the_line_is_that_without_corruption():
    (axes,) = robustness_figures.accuracies(MEASURED).axes
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers if hasattr(bars, "patches")]
    expected = np.array([row["accuracy"] for row in MEASURED["measured"]]).reshape(7, 3).T
    np.testing.assert_allclose(heights, expected)
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [0.9]


def test_the_examples_show_each_answer():
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3)).astype(np.uint8)
    (axes,) = robustness_figures.examples(MEASURED, image, ["cat", "$dog", "owl"]).axes
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("not corrupted, labelled $dog") == 1
    assert (texts.count("✗ cat"), texts.count("✓ $dog")) == (7, 14)
    levels = {text.get_text(): text for text in axes.texts if text.get_rotation() == 90}
    assert list(levels) == ["weak", "medium", "strong"]
    assert_all_is_inside(axes.figure)
    # Each is beside its row of images: the columns follow each other with three strengths each.
    for level, picture in zip(levels.values(), axes.images[1:4], strict=True):
        _, _, low, high = picture.get_extent()
        assert min(low, high) < level.get_position()[1] < max(low, high)
    shown = [each.get_array() for each in axes.images]
    assert len(shown) == 22
    np.testing.assert_array_equal(shown[0], image)
