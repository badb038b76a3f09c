"""Draws the figures of a report with matplotlib, in the colour-blind-safe palette of Okabe and Ito (2008)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from sklearn import metrics

from components.evaluator import intervals

BLACK, BLUE, ORANGE, GREEN = "#000000", "#0072B2", "#E69F00", "#009E73"
VERMILLION, SKY, PURPLE, GREY = "#D55E00", "#56B4E9", "#CC79A7", "#777777"
# Five colours and four dash patterns give twenty different lines. Purple and black are reserved for
# averages. The palette's yellow is left out because it is hard to see on white.
_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, SKY)
_DASHES = ("-", "--", "-.", ":")

_WIDTH = 6.4  # inches: text of 10 points stays readable where a phone shows the figure at 4 inches
_LONGEST_NAME = 24  # characters
_MOST_NUMBERED_CLASSES = 20  # up to here, the cells of a confusion matrix have room for a number
_MOST_COLOURED_CLASSES = 10  # up to here, the curves of single classes can be distinguished
_MOST_LISTED_CLASSES = 30  # the scores of this many classes fit on about two screens
_MOST_POINTS = 500  # points of a curve, about one per pixel
_GRID = np.linspace(0, 1, _MOST_POINTS)


def accuracy_and_loss(epochs: Sequence[Mapping[str, Any]], best: int) -> Figure:
    """Draws accuracy and loss by epoch, for the training and the validation images.

    Args:
      epochs: rows of the history, at least one, with `phase`, `loss`, `accuracy`, `val_loss` and
        `val_accuracy`.
      best: index in `epochs` of the epoch whose weights were kept.

    Returns:
      The figure.
    """
    figure = Figure(figsize=(_WIDTH, 6.4), layout="constrained")
    figure.suptitle("Accuracy and loss by epoch")
    panels = figure.subplots(2, 1, sharex=True)
    units = {"accuracy": "Accuracy (share of images)", "loss": "Loss (cross-entropy, nats)"}
    for axes, (key, unit) in zip(panels, units.items(), strict=True):
        _plot_by_epoch(axes, epochs, key, "o-", BLUE, "training")
        _plot_by_epoch(axes, epochs, f"val_{key}", "s--", VERMILLION, "validation")
        _mark_epochs(axes, epochs, best)
        axes.set(ylabel=unit)
    panels[1].set(xlabel="Epoch")
    put_legend_below(figure, panels[0], columns=2)
    return figure


def learning_rate(epochs: Sequence[Mapping[str, Any]], best: int) -> Figure:
    """Draws the learning rate of each epoch's last step.

    Args:
      epochs: rows of the history, at least one, with `phase` and `learning_rate`.
      best: index in `epochs` of the epoch whose weights were kept.

    Returns:
      The figure.
    """
    figure = Figure(figsize=(_WIDTH, 4), layout="constrained")
    axes = figure.subplots()
    _plot_by_epoch(axes, epochs, "learning_rate", "o-", BLUE, "learning rate")
    _mark_epochs(axes, epochs, best)
    axes.set(title="Learning rate by epoch", xlabel="Epoch", ylabel="Learning rate (of the last step)")
    axes.set_ylim(bottom=0)
    put_legend_below(figure, axes, columns=2)
    return figure


def confusion_matrix(counts: Sequence[Sequence[int]], class_names: Sequence[str], normalized: bool) -> Figure:
    """Draws how often the images of each class were predicted as each class.

    Colours follow the square root of the values, so that rare mistakes are visible beside the frequent
    correct predictions. The row of a class without images is hatched.

    Args:
      counts: int [classes, classes]; rows are actual classes, columns are predicted classes.
      class_names: names of the classes, in the order of their indices.
      normalized: whether to show shares of the actual class's images instead of numbers of images.

    Returns:
      The figure.
    """
    matrix = np.asarray(counts)
    totals = matrix.sum(axis=1, keepdims=True)
    values = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0) if normalized else matrix
    number = len(class_names)
    numbered = number <= _MOST_NUMBERED_CLASSES
    names = drawable(class_names)
    font_size = 9 if numbered else 7
    side = np.clip(0.42 * number, 3.5, 7.5)
    margin = 1 + 0.6 / 72 * font_size * max(map(len, names))  # letters are about 0.6 times as wide as high
    figure = Figure(figsize=(side + margin + 0.8, side + margin), layout="compressed")
    axes = figure.subplots()

    norm = PowerNorm(0.5, vmin=0, vmax=1 if normalized else max(1, matrix.max()))
    image = axes.imshow(values, cmap="Blues", norm=norm, interpolation="none")
    unit = "share of the actual class's images" if normalized else "number of images"
    figure.colorbar(image, ax=axes, label=f"{unit.capitalize()} (square-root scale)", fraction=0.04, pad=0.02)
    no_data = np.flatnonzero(totals == 0)
    for row in no_data:
        axes.add_patch(
            Rectangle((-0.5, row - 0.5), number, 1, facecolor="#DDDDDD", edgecolor=GREY, hatch="////", lw=0)
        )
    if numbered:
        _number_cells(axes, values, image.to_rgba(values)[..., :3], no_data, ".2f" if normalized else "d")
    elif no_data.size:
        figure.legend([axes.patches[0]], ["no data (a class without images)"], loc="outside lower center")

    step = int(np.ceil(number * 1.3 * font_size / (72 * side)))  # a line is 1.3 times as high as its letters
    ticks, shown = range(0, number, step), names[::step]
    axes.set_xticks(ticks, shown, rotation=90, fontsize=font_size, parse_math=False)
    axes.set_yticks(ticks, shown, fontsize=font_size, parse_math=False)
    note = f" (one name in {step} is shown)" if step > 1 else ""
    axes.set(title=f"Confusion matrix: {unit}", xlabel=f"Predicted class{note}", ylabel=f"Actual class{note}")
    return figure


def per_class(classes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws precision, recall and F1 of each class, with their confidence intervals.

    If there are more than 30 classes, only the 30 with the lowest F1 are shown, lowest first.

    Args:
      classes: rows of `classes` in `metrics.json`, with `name`, `support`, `precision`, `recall` and `f1`
        (None for a class without examples), and `intervals` of these three, [low, high] or None.

    Returns:
      The figure.
    """
    names = drawable([c["name"] for c in classes])
    rows = list(zip(names, classes, strict=True))
    title = "Precision, recall and F1 of each class"
    if len(rows) > _MOST_LISTED_CLASSES:
        rows = sorted((row for row in rows if row[1]["support"]), key=lambda row: row[1]["f1"])
        left_out = len(names) - len(rows)
        rows = rows[:_MOST_LISTED_CLASSES]
        title = f"The {len(rows)} of {len(names)} classes with the lowest F1"
        if left_out:
            title += f"\n({left_out} without data left out)"
    figure = Figure(figsize=(_WIDTH, 1.8 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(rows))
    for key, label, offset, colour, marker in (
        ("precision", "precision", -0.25, BLUE, "o"),
        ("recall", "recall", 0, VERMILLION, "s"),
        ("f1", "F1", 0.25, GREEN, "D"),
    ):
        values = np.array([c[key] for _, c in rows], float)
        low, high = np.array([c["intervals"][key] or (np.nan, np.nan) for _, c in rows], float).T
        # The interval of a ratio close to 0 or 1 may not contain the ratio; error bars must not be negative.
        errors = np.maximum([values - low, high - values], 0)
        axes.errorbar(
            values,
            y + offset,
            xerr=errors,
            label=label,
            color=colour,
            marker=marker,
            markersize=5,
            linestyle="none",
            capsize=2,
        )
    for row, (_, c) in enumerate(rows):
        if row % 2:
            axes.axhspan(row - 0.5, row + 0.5, color=GREY, alpha=0.1, linewidth=0)
        if not c["support"]:
            axes.text(0.5, row, "no data", ha="center", va="center", color=GREY, style="italic")
    axes.set_yticks(y, [name for name, _ in rows], parse_math=False)
    axes.set(xlabel="Score (0 to 1)", xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5))
    # A title of the axes would be wider than the axes if the names of the classes are long.
    figure.suptitle(title)
    axes.grid(axis="x", alpha=0.3)
    put_legend_below(figure, axes, columns=3, title=f"With {intervals.LEVEL:.0%} confidence intervals")
    return figure


def roc(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws the receiver operating characteristic of each class against the rest, and their averages.

    The micro average is the curve over all pairs of an example and a class. The macro average is the mean
    of the classes' true positive rates, interpolated linearly at the same false positive rates; its area is
    the mean of the classes' areas. A class that has no example, or all examples, has no curve and is left
    out of the macro average.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].
      class_names: names of the classes, in the order of their indices.

    Returns:
      The figure.
    """

    def curve(actual: np.ndarray, scores: np.ndarray) -> _Curve:
        false_positives, true_positives, _ = metrics.roc_curve(actual, scores)
        return _Curve(false_positives, true_positives, metrics.auc(false_positives, true_positives))

    def interpolate(curve: _Curve) -> np.ndarray:
        return np.interp(_GRID, curve.x, curve.y)

    counts = np.bincount(labels, minlength=len(class_names))
    shown = np.flatnonzero((counts > 0) & (counts < len(labels)))
    figure, axes = _square(len(class_names))
    _draw_curves(axes, labels, probabilities, class_names, shown, curve, interpolate)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="0.500 chance")
    axes.set(
        title="ROC of each class against the rest",
        xlabel="False positive rate (share of the other classes' images)",
        ylabel="True positive rate (share of the class's images)",
    )
    put_legend_below(figure, axes, columns=2, title="Area under the curve")
    return figure


def precision_recall(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws precision over recall of each class against the rest, and their averages.

    Areas are average precisions, which weigh each increase of recall with the precision at its upper end;
    therefore the curves are drawn as steps. The micro average is the curve over all pairs of an example and
    a class. The macro average is the mean of the classes' precisions at the same recalls; its area is the
    mean of the classes' areas. A class without examples has no curve and is left out of the macro average.
    The line for chance is the mean share of the examples that belong to a class.

    Args:
      labels: int64 [examples].
      probabilities: float [examples, classes].
      class_names: names of the classes, in the order of their indices.

    Returns:
      The figure.
    """

    def curve(actual: np.ndarray, scores: np.ndarray) -> _Curve:
        precision, recall, _ = metrics.precision_recall_curve(actual, scores, drop_intermediate=True)
        x, y = recall[::-1], precision[::-1]
        return _Curve(x, y, float(np.diff(x) @ y[1:]))

    def interpolate(curve: _Curve) -> np.ndarray:
        return curve.y[np.searchsorted(curve.x, _GRID)]

    shown = np.unique(labels)
    chance = 1 / len(shown)
    figure, axes = _square(len(class_names))
    _draw_curves(axes, labels, probabilities, class_names, shown, curve, interpolate, drawstyle="steps-pre")
    axes.axhline(chance, color=GREY, linestyle=":", label=f"{chance:.3f} chance")
    axes.set(
        title="Precision and recall of each class against the rest",
        xlabel="Recall (share of the class's images that are found)",
        ylabel="Precision (share of predictions of the class that are right)",
    )
    put_legend_below(figure, axes, columns=2, title="Average precision")
    return figure


def reliability(bins: Sequence[Mapping[str, Any]], calibration_error: float) -> Figure:
    """Draws a reliability diagram: accuracy by confidence, and the number of images by confidence.

    Args:
      bins: rows of `calibration` in `metrics.json`, with `lower`, `upper`, `count`, `confidence` and
        `accuracy`.
      calibration_error: expected calibration error, between 0 and 1.

    Returns:
      The figure.
    """
    filled = [b for b in bins if b["count"]]
    lower = np.array([b["lower"] for b in filled])
    width = np.array([b["upper"] for b in filled]) - lower
    accuracy = np.array([b["accuracy"] for b in filled])
    gap = np.array([b["confidence"] for b in filled]) - accuracy
    figure = Figure(figsize=(_WIDTH, 6.8), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.bar(lower, accuracy, width, align="edge", color=SKY, edgecolor="white", label="accuracy")
    axes.bar(
        lower,
        gap,
        width,
        bottom=accuracy,
        align="edge",
        facecolor="none",
        edgecolor=VERMILLION,
        hatch="///",
        label="gap to the mean confidence",
    )
    # Bins of few images are far from the diagonal by chance; their intervals reach it.
    right = [round(b["accuracy"] * b["count"]) for b in filled]
    bounds = np.array([intervals.proportion(n, b["count"]) for n, b in zip(right, filled, strict=True)])
    axes.errorbar(
        lower + width / 2,
        accuracy,
        np.abs(bounds.T - accuracy),
        fmt="none",
        ecolor=BLACK,
        elinewidth=1,
        label=f"{intervals.LEVEL:.0%} interval of the accuracy",
    )
    axes.plot([0, 1], [0, 1], color=BLACK, linestyle="--", label="perfectly calibrated")
    axes.set(
        title=f"Reliability: expected calibration error {calibration_error:.4f}",
        ylabel="Accuracy (share of images)",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    below.bar(lower, [b["count"] for b in filled], width, align="edge", color=GREY, edgecolor="white")
    below.set(xlabel="Confidence (probability of the predicted class)", ylabel="Images")
    put_legend_below(figure, axes, columns=2)
    return figure


def risk_coverage(abstention: Mapping[str, Any]) -> Figure:
    """Draws the accuracy of the most confident answers against the share of images that they are.

    Args:
      abstention: `abstention` of `metrics.json`: the `curve`, and the answers at the threshold that is
        `configured` and at the one that was fitted on the val split, each of which may be None.

    Returns:
      The figure.
    """
    figure = Figure(figsize=(_WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    points = [each for each in abstention["curve"] if each["accuracy"] is not None]
    shares, accuracies = ([each[key] for each in points] for key in ("answered", "accuracy"))
    axes.plot(shares, accuracies, "o-", color=BLUE, markersize=4, label="most confident answers")
    target = abstention["target"]
    marked = {
        "export.abstain_below": (abstention["configured"], "D", VERMILLION),
        "threshold of the val split": (target and target["evaluated"], "s", GREEN),
    }
    for name, (answers, marker, colour) in marked.items():
        if answers and answers["accuracy"] is not None:
            axes.plot(
                [answers["answered"]],
                [answers["accuracy"]],
                marker,
                color=colour,
                markersize=9,
                label=f"{name}: {answers['threshold']:.3f}",
            )
    axes.set(
        title="Accuracy when unsure images are not answered",
        xlabel="Answered (share of images, most confident first)",
        ylabel="Accuracy of the answers",
        xlim=(0, 1.02),
    )
    axes.grid(color="#DDDDDD")
    put_legend_below(figure, axes, columns=2)
    return figure


@dataclass(frozen=True)
class _Curve:
    """A curve, float [points] with non-decreasing `x`, and the area under it."""

    x: np.ndarray
    y: np.ndarray
    area: float


def _plot_by_epoch(
    axes: Axes, epochs: Sequence[Mapping[str, Any]], key: str, style: str, colour: str, label: str
) -> None:
    x = range(1, len(epochs) + 1)
    axes.plot(x, [epoch[key] for epoch in epochs], style, color=colour, markersize=4, label=label)


def _mark_epochs(axes: Axes, epochs: Sequence[Mapping[str, Any]], best: int) -> None:
    """Shades the phases after the first and marks the epoch whose weights were kept.

    Epochs are numbered from 1 across all phases.
    """
    end = 0
    for phase, rows in itertools.groupby(epochs, key=lambda epoch: epoch["phase"]):
        start, end = end, end + len(list(rows))
        if start:
            axes.axvspan(start + 0.5, end + 0.5, color=GREY, alpha=0.2, linewidth=0, label=phase)
    axes.axvline(best + 1, color=BLACK, linestyle=":", label=f"kept weights: epoch {best + 1}")
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def _number_cells(
    axes: Axes, values: np.ndarray, colours: np.ndarray, no_data: np.ndarray, number_format: str
) -> None:
    # Relative luminance (WCAG 2.2). Above 0.179, black text has the higher contrast, at least 4.5 to 1.
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    bright = linear @ [0.2126, 0.7152, 0.0722] > 0.179
    for (row, column), value in np.ndenumerate(values):
        if row not in no_data:
            colour = BLACK if bright[row, column] else "white"
            number = format(value, number_format)
            axes.text(column, row, number, ha="center", va="center", color=colour, fontsize=8)
    middle = (len(values) - 1) / 2
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for row in no_data:
        axes.text(middle, row, "no data", ha="center", va="center", fontsize=8, bbox=box)


def _square(classes: int) -> tuple[Figure, Axes]:
    """Creates square axes, both from 0 to 1, with room below for a legend in two columns."""
    # The legend names two averages, chance, and the classes, or all classes together.
    lines = 3 + (classes if classes <= _MOST_COLOURED_CLASSES else 1)
    figure = Figure(figsize=(_WIDTH, 6.8 + 0.2 * np.ceil(lines / 2)), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.grid(alpha=0.3)
    return figure, axes


def _draw_curves(
    axes: Axes,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    shown: np.ndarray,
    curve: Callable[[np.ndarray, np.ndarray], _Curve],
    interpolate: Callable[[_Curve], np.ndarray],
    **style: Any,
) -> None:
    """Draws the curve of each class against the rest, and the averages.

    Args:
      axes: axes to draw on.
      labels: int64 [examples].
      probabilities: float [examples, classes].
      class_names: names of the classes, in the order of their indices.
      shown: int64, the classes that have a curve.
      curve: function that returns the curve of binary labels, bool [cases], and scores, float [cases].
      interpolate: function that returns a curve's values at `_GRID`.
      **style: style of all lines.
    """
    actual = np.arange(len(class_names)) == labels[:, np.newaxis]  # [examples, classes]
    curves = [curve(actual[:, c], probabilities[:, c]) for c in shown]
    names = drawable(class_names)

    def draw(curve: _Curve, name: str, **line: Any) -> None:
        # The area comes first because matplotlib leaves labels that begin with an underscore, as the name of
        # a class may, out of the legend.
        axes.plot(*_thin(curve), label=f"{curve.area:.3f} {name}", **line, **style)

    if curves:
        values = np.mean([interpolate(c) for c in curves], axis=0)
        macro = _Curve(_GRID, values, float(np.mean([c.area for c in curves])))
        draw(macro, "macro average", color=BLACK, linewidth=2.5, zorder=3)
    micro = curve(actual.ravel(), probabilities.ravel())
    # The micro average is dashed and lies above the macro average, so that both are visible where they
    # coincide.
    draw(micro, "micro average", color=PURPLE, linewidth=2.5, linestyle=(0, (2, 1)), zorder=3)
    if len(shown) > _MOST_COLOURED_CLASSES:
        for c in curves:
            axes.plot(*_thin(c), color=GREY, alpha=0.4, linewidth=0.5, **style)
        axes.add_line(Line2D([], [], color=GREY, linewidth=0.5, label=f"each of {len(shown)} classes"))
    else:
        lines = zip(itertools.cycle(_COLOURS), itertools.cycle(_DASHES), strict=False)
        for index, c, (colour, dash) in zip(shown, curves, lines, strict=False):
            draw(c, names[index], color=colour, linestyle=dash, linewidth=1.2)


def _thin(curve: _Curve) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most `_MOST_POINTS` points of a curve, evenly spaced along it, including both ends."""
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(curve.x), np.diff(curve.y)))])
    if len(length) <= _MOST_POINTS:
        return curve.x, curve.y
    selected = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _MOST_POINTS)))
    return curve.x[selected], curve.y[selected]


def put_legend_below(figure: Figure, axes: Axes, columns: int, title: str | None = None) -> None:
    """Draws the legend of `axes` below all panels of the figure."""
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title)
    for text in legend.get_texts():
        text.set_parse_math(False)


def shorten(text: str, longest: int) -> str:
    """Cuts a text to a number of characters, of which the last one then says so."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def drawable(names: Sequence[str]) -> list[str]:
    """Shortens long names and replaces each character that the font lacks with an empty box.

    A name that has lost characters, or that is no longer unique, is preceded by the index of its class.
    """
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    glyphs = font.get_charmap()
    drawable = []
    for name in names:
        text = " ".join(name.split()) or "(no name)"
        text = shorten(text, _LONGEST_NAME)
        drawable.append("".join(c if ord(c) in glyphs else "□" for c in text))
    counts = Counter(drawable)
    return [
        f"{index}: {text}" if "□" in text or counts[text] > 1 else text for index, text in enumerate(drawable)
    ]
