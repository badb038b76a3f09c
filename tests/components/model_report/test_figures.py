import io
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from sklearn import metrics

from components.model_report import figures
from tests.components import samples

# matplotlib warns about glyphs that a font lacks and about layouts that do not fit.
pytestmark = pytest.mark.filterwarnings("error")

LONG = "AMERICAN STAFFORDSHIRE BULL TERRIER"
ODD_NAMES = ["<script>", "cost in $ and $x", "_Grün", "犬", "猫", "dog 🐶", "", LONG, f"{LONG} MIX", "a\nb"]


def epoch(phase="training"):
    values = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.1, "val_accuracy": 0.4, "learning_rate": 0.01}
    return {"phase": phase, **values}


def predictions(classes, examples, absent=()):
    """Returns labels without the absent classes, and probabilities that usually favour the label."""
    rng = np.random.default_rng(0)
    labels = rng.choice([c for c in range(classes) if c not in absent], examples)
    scores = np.exp(rng.normal(size=(examples, classes)) + 3 * np.eye(classes)[labels])
    return labels, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def row(name, f1=0.5, interval=(0.4, 0.6), support=9):
    keys = ("precision", "recall", "f1")
    return {
        "name": name,
        "support": support,
        **dict.fromkeys(keys, f1),
        "intervals": dict.fromkeys(keys, interval),
    }


def no_data(name):
    return row(name, f1=None, interval=None, support=0)


def svg(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def labels_of(ticks):
    return [label.get_text() for label in ticks]


def legend_of(figure):
    """Returns the area in each entry of the legend, by the name of the curve."""
    lines = [text.get_text().split(" ", 1) for text in figure.legends[0].get_texts()]
    return {name: float(area) for area, name in lines}


def assert_all_is_inside(figure):
    figure.draw_without_rendering()
    (left, bottom), (right, top) = figure.get_tightbbox().get_points()
    assert left >= 0
    assert bottom >= 0
    assert right <= figure.get_figwidth()
    assert top <= figure.get_figheight()


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b"],
        ODD_NAMES,
        [f"{i} {LONG}" for i in range(20)],
        [f"{'W' * i} {i}" for i in range(37)],
        [f"class {i}" for i in range(200)],
    ],
    ids=len,
)
@pytest.mark.parametrize("only_one_class_is_predicted", [False, True])
def test_everything_lies_inside_the_figure(names, only_one_class_is_predicted):
    absent = () if len(names) == 2 else (1, len(names) - 1)
    labels, probabilities = predictions(len(names), 400, absent)
    if only_one_class_is_predicted:
        probabilities[:, 0] = 1
    predicted = probabilities.argmax(axis=1)
    counts = 1000 * metrics.confusion_matrix(labels, predicted, labels=range(len(names)))
    assert_all_is_inside(figures.confusion_matrix(counts.tolist(), names, normalized=False))
    assert_all_is_inside(figures.confusion_matrix(counts.tolist(), names, normalized=True))
    assert_all_is_inside(
        figures.per_class([no_data(n) if i in absent else row(n) for i, n in enumerate(names)])
    )
    assert_all_is_inside(figures.roc(labels, probabilities, names))
    assert_all_is_inside(figures.precision_recall(labels, probabilities, names))


def test_names_are_shortened_and_stay_distinct():
    figure = figures.confusion_matrix(np.eye(len(ODD_NAMES), dtype=int).tolist(), ODD_NAMES, normalized=False)
    figure.draw_without_rendering()
    expected = [
        "<script>",
        "cost in $ and $x",
        "_Grün",
        "3: □",
        "4: □",
        "5: dog □",
        "(no name)",
        "7: AMERICAN STAFFORDSHIRE…",
        "8: AMERICAN STAFFORDSHIRE…",
        "a b",
    ]
    axes = figure.axes[0]
    assert labels_of(axes.get_xticklabels()) == labels_of(axes.get_yticklabels()) == expected
    assert not any(label.get_parse_math() for label in axes.get_xticklabels() + axes.get_yticklabels())


def test_legends_show_names_with_special_characters():
    figure = figures.roc(*predictions(3, 30), ["_hidden", "$x$", "cat"])
    assert set(legend_of(figure)) == {
        "macro average",
        "micro average",
        "_hidden",
        "$x$",
        "cat",
        "chance",
    }
    assert not any(text.get_parse_math() for text in figure.legends[0].get_texts())


def test_accuracy_and_loss_mark_the_kept_epoch_and_the_second_phase():
    epochs = [epoch(), epoch(), epoch(), epoch("fine-tuning"), epoch("fine-tuning")]
    figure = figures.accuracy_and_loss(epochs, best=3)
    for axes, key in zip(figure.axes, ("accuracy", "loss"), strict=True):
        train, val, marker = axes.lines
        assert train.get_xydata().tolist() == [[x, epochs[0][key]] for x in range(1, 6)]
        assert val.get_ydata().tolist() == [epochs[0][f"val_{key}"]] * 5
        assert list(marker.get_xdata()) == [4, 4]
        (phase,) = axes.patches
        assert (phase.get_x(), phase.get_width(), phase.get_label()) == (3.5, 2, "fine-tuning")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["training", "validation", "fine-tuning", "kept weights: epoch 4"]
    assert_all_is_inside(figure)


def test_learning_rate_shows_each_epoch():
    figure = figures.learning_rate([epoch() | {"learning_rate": rate} for rate in (0.1, 0.05)], best=1)
    line, marker = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[1, 0.1], [2, 0.05]]
    assert list(marker.get_xdata()) == [2, 2]
    assert_all_is_inside(figure)


@pytest.mark.parametrize("draw", [figures.accuracy_and_loss, figures.learning_rate])
def test_a_history_of_one_epoch_has_one_tick(draw):
    figure = draw([epoch()], best=0)
    figure.draw_without_rendering()
    axes = figure.axes[-1]
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


@pytest.mark.parametrize(
    ("normalized", "numbers"),
    [(False, ["3", "1", "0", "0", "2", "2"]), (True, ["0.75", "0.25", "0.00", "0.00", "0.50", "0.50"])],
)
def test_cells_of_a_confusion_matrix_have_numbers_unless_there_is_no_data(normalized, numbers):
    counts = [[3, 1, 0], [0, 2, 2], [0, 0, 0]]
    axes = figures.confusion_matrix(counts, ["a", "b", "c"], normalized).axes[0]
    cells = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    expected = dict(zip(itertools.product([0, 1], [0, 1, 2]), numbers, strict=True))
    assert cells == expected | {(2, 1): "no data"}
    (hatched,) = axes.patches
    assert (hatched.get_y(), hatched.get_height(), hatched.get_hatch()) == (1.5, 1, "////")


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def test_numbers_in_cells_have_the_contrast_of_wcag_aa():
    counts = np.arange(400).reshape(20, 20)
    axes = figures.confusion_matrix(counts.tolist(), [str(i) for i in range(20)], normalized=False).axes[0]
    background = axes.images[0].to_rgba(counts)
    assert len(axes.texts) == 400
    for text in axes.texts:
        column, row_number = text.get_position()
        dark, bright = sorted([luminance(text.get_color()), luminance(background[row_number, column][:3])])
        assert (bright + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize(("number", "step"), [(21, 1), (37, 1), (200, 4)])
def test_many_classes_have_no_numbers_and_names_that_do_not_overlap(number, step):
    counts = np.eye(number, dtype=int)
    counts[1, 1] = 0
    names = [f"class {i}" for i in range(number)]
    figure = figures.confusion_matrix(counts.tolist(), names, normalized=True)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert not axes.texts
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no data (a class without images)"]
    assert labels_of(axes.get_yticklabels()) == names[::step]
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(below.y1 <= above.y0 for above, below in itertools.pairwise(boxes))


def test_scores_of_classes_have_their_intervals():
    classes = [row("a", 0.5, (0.4, 0.7)), no_data("b"), row("c", 0.9, (0.95, 1.0)), row("d", 0.0, None)]
    figure = figures.per_class(classes)
    axes = figure.axes[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["precision", "recall", "F1"]
    for container in axes.containers:
        points, _, (bars,) = container
        np.testing.assert_array_equal(points.get_xdata(), [0.5, np.nan, 0.9, 0])
        ends = np.array([bar[:, 0] for bar in bars.get_segments() if len(bar)])
        drawn = ends[~np.isnan(ends).any(axis=1)]
        # The third value, 0.9, lies below its interval, so its error bar reaches upwards only.
        np.testing.assert_allclose(drawn, [[0.4, 0.7], [0.9, 1.0]])
    assert [(text.get_text(), text.get_position()[1]) for text in axes.texts] == [("no data", 1)]
    assert labels_of(axes.get_yticklabels()) == ["a", "b", "c", "d"]


def test_the_lowest_f1_of_many_classes_are_shown():
    classes = [no_data("none"), *(row(f"class {i}", f1=(200 - i) / 200) for i in range(1, 200))]
    figure = figures.per_class(classes)
    axes = figure.axes[0]
    assert labels_of(axes.get_yticklabels()) == [f"class {i}" for i in range(199, 169, -1)]
    assert figure.get_suptitle() == "The 30 of 200 classes with the lowest F1\n(1 without data left out)"
    assert not axes.texts


@pytest.mark.parametrize(
    ("draw", "area"),
    [
        (figures.roc, metrics.roc_auc_score),
        (figures.precision_recall, metrics.average_precision_score),
    ],
)
def test_areas_agree_with_scikit_learn(draw, area):
    labels, probabilities = predictions(4, 300, absent=(2,))
    actual = np.eye(4)[labels]
    areas = {c: area(actual[:, i], probabilities[:, i]) for i, c in enumerate("abcd") if c != "c"}
    expected = {
        "macro average": np.mean(list(areas.values())),
        "micro average": area(actual.ravel(), probabilities.ravel()),
        **areas,
        "chance": 1 / 2 if draw is figures.roc else 1 / 3,
    }
    assert legend_of(draw(labels, probabilities, list("abcd"))) == pytest.approx(expected, abs=0.0006)


def test_the_legend_shows_the_area_under_the_drawn_curve():
    labels, probabilities = predictions(10, 10_000)
    names = list("abcdefghij")
    for draw, style in ((figures.roc, "default"), (figures.precision_recall, "steps-pre")):
        figure = draw(labels, probabilities, names)
        areas = legend_of(figure)
        *curves, _chance = figure.axes[0].lines
        assert len(curves) == 12
        for line in curves:
            x, y = line.get_data()
            assert len(x) <= 500
            assert line.get_drawstyle() == style
            heights = y[1:] if style == "steps-pre" else (y[1:] + y[:-1]) / 2
            name = line.get_label().split(" ", 1)[1]
            assert np.diff(x) @ heights == pytest.approx(areas[name], abs=0.004)
        assert len(svg(figure)) < 500_000


def test_curves_of_more_than_ten_classes_are_grey_and_only_averages_are_named():
    labels, probabilities = predictions(11, 100)
    figure = figures.roc(labels, probabilities, [str(i) for i in range(11)])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text.split(" ", 1)[1] for text in texts] == [
        "macro average",
        "micro average",
        "of 11 classes",
        "chance",
    ]
    _macro, _micro, *classes, _each, _chance = figure.axes[0].lines
    assert [line.get_color() for line in classes] == [figures.GREY] * 11


def test_thresholds_are_marked_on_the_curve_of_accuracy_against_the_share_answered():
    abstention = samples.report(5)["abstention"]
    (axes,) = figures.risk_coverage(abstention).axes
    curve, configured, target = axes.lines
    assert curve.get_xydata().tolist() == [[row["answered"], row["accuracy"]] for row in abstention["curve"]]
    assert configured.get_xydata().tolist() == [[0.93, 0.95]]
    assert configured.get_label() == "export.abstain_below: 0.600"
    assert target.get_xydata().tolist() == [[0.61, 0.987]]
    none_answered = {**abstention["configured"], "answered": 0.0, "accuracy": None}
    bare = {"curve": abstention["curve"], "configured": none_answered, "target": None}
    assert len(figures.risk_coverage(bare).axes[0].lines) == 1


def test_curves_of_two_hundred_classes_are_small():
    labels, probabilities = predictions(200, 10_000)
    names = [f"class {i}" for i in range(200)]
    assert len(svg(figures.roc(labels, probabilities, names))) < 3_000_000
    assert len(svg(figures.precision_recall(labels, probabilities, names))) < 3_000_000


def test_curves_of_examples_of_one_class():
    labels, probabilities = np.zeros(4, np.int64), np.full((4, 2), 0.5, np.float32)
    # Class a has no negative examples, and class b has no positive ones.
    assert legend_of(figures.roc(labels, probabilities, ["a", "b"])) == {"micro average": 0.5, "chance": 0.5}
    assert legend_of(figures.precision_recall(labels, probabilities, ["a", "b"])) == {
        "macro average": 1,
        "micro average": 0.5,
        "a": 1,
        "chance": 1,
    }


def test_reliability_shows_bins_that_are_not_empty():
    bins = [
        {"lower": 0.0, "upper": 0.5, "count": 0, "confidence": None, "accuracy": None},
        {"lower": 0.5, "upper": 0.75, "count": 10, "confidence": 0.7, "accuracy": 0.6},
        {"lower": 0.75, "upper": 1.0, "count": 30, "confidence": 0.8, "accuracy": 0.9},
    ]
    figure = figures.reliability(bins, calibration_error=0.1)
    axes, below = figure.axes
    *bars_of, interval = axes.containers
    accuracy, gap = ([bar.get_bbox().extents.tolist() for bar in bars] for bars in bars_of)
    (lines,) = interval.lines[2]
    ends = np.array([segment[:, 1] for segment in lines.get_segments()])
    np.testing.assert_allclose(ends, [[0.3127, 0.8318], [0.7438, 0.9654]], atol=1e-4)  # Wilson's intervals
    np.testing.assert_allclose(accuracy, [[0.5, 0, 0.75, 0.6], [0.75, 0, 1, 0.9]])
    np.testing.assert_allclose([sorted([y0, y1]) for _, y0, _, y1 in gap], [[0.6, 0.7], [0.8, 0.9]])
    assert [bar.get_height() for bar in below.containers[0]] == [10, 30]
    assert axes.get_title() == "Reliability: expected calibration error 0.1000"
    assert_all_is_inside(figure)
