"""Renders a report as `index.html`, one self-contained page, and as `report.md`, for a pull request."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from components.model_report import confidence_text, formats, review, robustness_text, search_text
from components.model_report.comparison import LABELS
from components.model_report.percentages import NO_BREAK_SPACE, percent, percent_interval
from models import durations
from settings.search import format_value

# A difference between mean confidence and accuracy that is smaller than this counts as none.
_CALIBRATED = 0.01
_RUN_DIGITS = 16  # hexadecimal digits
_MINUS = "\u2212"


def render_html(
    report: Mapping[str, Any],
    figures: Mapping[str, bytes],
    pictures: Mapping[str, Sequence[Mapping[str, Any]]],
) -> str:
    """Renders the page. All values are escaped, and the page loads nothing from elsewhere.

    Args:
      report: content of `metrics.json`.
      figures: PNG files by the name of the figure; `trials` and `parallel_coordinates` are needed only if the
        report has trials, and `corruptions` and `corruption_examples` only if it has corruptions.
      pictures: rows for the galleries, whose images are data URIs: `classes` (`name`, `images`), `mistakes`
        (`id`, `own_id`, `actual`, `predicted`, `confidence`, `image`, `attribution`), `confused` (rows of
        `most_confused` with `images`), `label_errors` (rows of `label_errors` with `own_id` and `image`), and
        `leaked`, `contradictions` and `near` as in DataGate's findings. `own_id` is empty if a correction
        cannot name the image.

    Returns:
      An HTML document.

    Raises:
      jinja2.UndefinedError: `report` lacks a key.
    """
    text = _HTML.get_template("index.html.j2").render(
        report=report,
        figures={
            name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in figures.items()
        },
        alternatives=describe_figures(report),
        pictures=pictures,
        review=_HTML.get_template("review.html.j2").module,
        review_parts=review.read_parts(),
        run=_digest(report),
    )
    # The macros at the top of the template leave empty lines.
    return text.lstrip()


def _digest(report: Mapping[str, Any]) -> str:
    """Returns a name under which the browser keeps the choices of this report's reader."""
    return hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()[:_RUN_DIGITS]


def render_markdown(report: Mapping[str, Any]) -> str:
    """Renders the short form of a report.

    Args:
      report: content of `metrics.json`.

    Returns:
      A Markdown document in which all values are escaped.

    Raises:
      jinja2.UndefinedError: `report` lacks a key.
    """
    return _MARKDOWN.get_template("report.md.j2").render(report=report)


def describe_verdict(report: Mapping[str, Any]) -> str:
    """Returns a sentence on how many gates the model passed and whether it will be pushed.

    Args:
      report: content of `metrics.json`.
    """
    # A gate that every class has to pass may have several rows, but counts as one.
    gates = len({gate["setting"] for gate in report["gates"]})
    failed = len({gate["setting"] for gate in report["gates"] if not gate["passed"]})
    if not report["blessed"]:
        reason = f"{failed} of {gates} gates failed" if failed else "The evaluation was not complete"
        return f"{reason}; the model will not be pushed."
    if gates == 0:
        return "No gate was set."
    passed = {1: "the only gate", 2: "both gates"}.get(gates, f"all {gates} gates")
    return f"It passed {passed}."


def describe_comparison(comparison: Mapping[str, Any]) -> str:
    """Returns a sentence on whether this model is more accurate than the last blessed one.

    The difference counts as more than chance if its confidence interval does not contain 0.

    Args:
      comparison: result of `comparison.compare`, with the last blessed model as `a`.
    """
    accuracy = next(row for row in comparison["metrics"] if row["name"] == "accuracy")
    if accuracy["interval"] is None:
        return "the two models have no images in common."
    mcnemar = comparison["mcnemar"]
    if not mcnemar["only_a_right"] + mcnemar["only_b_right"]:
        return "both are right on the same images."
    low, high = accuracy["interval"]
    if low > 0:
        meaning = "better, by more than chance would explain"
    elif high < 0:
        meaning = "worse, by more than chance would explain"
    else:
        meaning = "the difference may be chance"
    return (
        f"{meaning}. {count(mcnemar['only_b_right'])} images became right, {count(mcnemar['only_a_right'])} "
        f"became wrong (McNemar's test: {_p_value(mcnemar['p_value'])})."
    )


def describe_views(views: Mapping[str, Any]) -> str:
    """Returns sentences on what the further views of an image are worth.

    Args:
      views: result of `views.measure`.
    """
    looked = f"{views['views']} views of each image"
    if views["extra_views_below"] is not None:
        looked += (
            f" for which the answer to the first is less than {percent(views['extra_views_below'])} sure, "
            f"{percent(views['looked_again'])} of the images"
        )
    return (
        f"The model averages {looked}. Its accuracy is {percent(views['accuracy'])}, and with one view it "
        f"would be {percent(views['accuracy_of_one_view'])}. An image takes {number(views['milliseconds'])} "
        f"ms, and with one view {number(views['milliseconds_of_one_view'])} ms, in batches of "
        f"{views['batch']} on the machine that wrote this report."
    )


def describe_calibration(bins: Sequence[Mapping[str, Any]]) -> str:
    """Returns a sentence on whether the model is over- or under-confident.

    Args:
      bins: bins of confidence, each with its `count` of examples, and their mean `confidence` and
        `accuracy`, which are not read if the count is 0.
    """
    filled = [each for each in bins if each["count"]]
    total = sum(each["count"] for each in filled)
    if not total:
        return "There are no predictions from which to judge calibration."
    confidence, accuracy = (
        sum(each["count"] * each[key] for each in filled) / total for key in ("confidence", "accuracy")
    )
    if abs(confidence - accuracy) < _CALIBRATED:
        trend = "neither over- nor under-confident on average"
    elif confidence > accuracy:
        trend = "over-confident"
    else:
        trend = "under-confident"
    return (
        f"The model is {trend}: its mean confidence is {percent(confidence)}, "
        f"and {percent(accuracy)} of its predictions are right."
    )


def describe_figures(report: Mapping[str, Any]) -> dict[str, str]:
    """Describes the content of each figure for readers who cannot see it, as alternative text.

    Args:
      report: content of `metrics.json`.

    Returns:
      A description by the name of the figure; `trials` and `parallel_coordinates` only if the report has
      trials, `corruptions` and `corruption_examples` only if it has corruptions.
    """
    epochs, best = report["history"]["epochs"], report["history"]["best"]
    matrix, classes = report["confusion_matrix"], report["classes"]
    right = sum(row[i] for i, row in enumerate(matrix))
    counts = f"{right:,} of {report['examples']:,} images lie on the diagonal"
    if report["most_confused"]:
        pair = report["most_confused"][0]
        mistake = f"{pair['actual']} predicted as {pair['predicted']} ({pair['count']:,} times)"
        counts += f"; the most frequent mistake is {mistake}"
    sentences = {
        "accuracy_and_loss": (
            f"Accuracy by epoch: {_describe_training(epochs, 'accuracy')}. "
            f"Loss: {_describe_training(epochs, 'loss')}. The weights of epoch {best + 1} were kept."
        ),
        "learning_rate": f"Learning rate by epoch: {_trend(epochs, 'learning_rate')}.",
        "confusion_matrix": f"Confusion matrix, counts: {counts}.",
        "confusion_matrix_normalized": (
            "Confusion matrix, shares of each actual class: recall, on the diagonal, "
            f"{_range(classes, 'recall')}."
        ),
        "per_class": (
            f"Precision by class {_range(classes, 'precision')}, recall {_range(classes, 'recall')}, "
            f"F1 {_range(classes, 'f1')}."
        ),
        "roc": f"ROC curves: the area under the curve, by class, {_range(classes, 'roc_auc')}.",
        "precision_recall": (
            f"Precision-recall curves: the area under the curve, by class, {_range(classes, 'pr_auc')}."
        ),
        "reliability": f"Reliability diagram. {describe_calibration(report['calibration'])}",
        "risk_coverage": confidence_text.describe_curve(report["abstention"]),
    }
    if report["corruptions"]:
        sentences["corruptions"] = robustness_text.describe_accuracies(report["corruptions"])
        sentences["corruption_examples"] = robustness_text.describe_examples(report["corruptions"])
    if report["trials"]:
        sentences["trials"] = search_text.describe_search(report["trials"], report["search"])
        sentences["parallel_coordinates"] = (
            "The values of each trial as a line, coloured by its validation accuracy. "
            "The table of the trials has the same values."
        )
    return sentences


def _describe_training(epochs: Sequence[Mapping[str, Any]], key: str) -> str:
    return f"training {_trend(epochs, key)}, validation {_trend(epochs, f'val_{key}')}"


def _trend(epochs: Sequence[Mapping[str, Any]], key: str) -> str:
    first, last = epochs[0][key], epochs[-1][key]
    if len(epochs) == 1:
        return f"{number(first)} in the only epoch"
    verb = "rises" if last > first else "falls" if last < first else "goes"
    return f"{verb} from {number(first)} to {number(last)}"


def _range(classes: Sequence[Mapping[str, Any]], key: str) -> str:
    measured = [each for each in classes if each[key] is not None]
    if not measured:
        return "has no data"
    lowest, highest = (choose(measured, key=lambda each: each[key]) for choose in (min, max))
    low, high = (f"{percent(each[key])} ({each['name']})" for each in (lowest, highest))
    return f"ranges from {low} to {high}"


def main_metrics(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Formats the main metrics of a report.

    Args:
      report: content of `metrics.json`.

    Returns:
      Rows of text: `label`, `value` and `interval`, which is empty for a metric without an interval.
    """
    return [
        {
            "label": label,
            "value": (decimal if name == "loss" else percent)(report[name]),
            "interval": percent_interval(report["intervals"].get(name)),
        }
        for name, label in LABELS.items()
    ]


def used_settings(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the settings that were used.

    Args:
      report: content of `metrics.json`.

    Returns:
      Its rows of `configuration`. Where the Tuner chose a value, `value` is that one, and `origin` is
      `Tuner`.
    """
    entries = report["hyperparameters"].items()
    chosen = {key: entry["value"] for key, entry in entries if entry["source"] == "tuner"}
    return [
        {**row, "value": chosen[row["key"]], "origin": "Tuner"} if row["key"] in chosen else row
        for row in report["configuration"]
    ]


def format_difference(row: Mapping[str, Any]) -> dict[str, str]:
    """Formats a metric of a comparison.

    Args:
      row: row of `metrics` in the result of `comparison.compare`.

    Returns:
      Texts: `label`, `a`, `b`, `difference` and `interval`.
    """
    plain, signed, signed_interval = (
        (decimal, signed_decimal, decimal_interval)
        if row["name"] == "loss"
        else (percent, points, points_interval)
    )
    return {
        "label": LABELS[row["name"]],
        "a": plain(row["a"]),
        "b": plain(row["b"]),
        "difference": signed(row["difference"]),
        "interval": signed_interval(row["interval"]),
    }


def weakest(classes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the classes that have data, sorted by F1, lowest first."""
    return sorted((each for each in classes if each["f1"] is not None), key=lambda each: each["f1"])


def by_change(classes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the classes of a comparison, largest change of recall first, classes without data last."""
    return sorted(classes, key=lambda each: -abs(each["recall_difference"] or 0))


def points(difference: float | None) -> str:
    """Formats a difference of two shares in percentage points, with its sign."""
    return "no data" if difference is None else f"{_signed(100 * difference, 1)}{NO_BREAK_SPACE}points"


def points_interval(interval: Sequence[float] | None) -> str:
    """Formats an interval of differences of shares in percentage points, with signs."""
    if interval is None:
        return ""
    return f"{_signed(100 * interval[0], 1)} to {_signed(100 * interval[1], 1)}"


def decimal(value: float | None) -> str:
    """Formats a number with three decimal places."""
    return "no data" if value is None else f"{value:.3f}"


def signed_decimal(value: float | None) -> str:
    """Formats a number with three decimal places and its sign."""
    return "no data" if value is None else _signed(value, 3)


def decimal_interval(interval: Sequence[float] | None) -> str:
    """Formats an interval of differences with three decimal places and signs."""
    return "" if interval is None else f"{_signed(interval[0], 3)} to {_signed(interval[1], 3)}"


def number(value: float | None) -> str:
    """Formats a number of any magnitude with four significant digits."""
    return "no data" if value is None else f"{value:.4g}".replace("-", _MINUS)


def count(value: int) -> str:
    """Formats a count with separators between thousands."""
    return f"{value:,}"


def _p_value(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.4f}"


def duration(seconds: float | None) -> str:
    """Formats a duration."""
    return "not recorded" if seconds is None else durations.describe(seconds)


def memory(size_bytes: int | None) -> str:
    """Formats an amount of memory in GiB."""
    return "not recorded" if size_bytes is None else f"{size_bytes / 2**30:.1f} GiB"


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    # A value that is rounded to zero gets no sign.
    return text[1:] if not float(text) else text.replace("-", _MINUS)


def _escape_markdown(value: Any) -> str:
    # Characters that Markdown could read as markup, a tag, an entity, a formula or the border of a cell.
    return re.sub(r"([\\`*_\[\]<>|#~$&])", r"\\\1", str(value))


def _environment(**options: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    filters = [  # the functions that the templates call
        *(describe_verdict, describe_comparison, describe_views, describe_calibration),
        *(review.describe_findings, review.other_label),
        *(formats.describe_formats, formats.format_rows),
        *(confidence_text.describe_fit, confidence_text.fit_rows),
        *(confidence_text.describe_abstention, confidence_text.describe_sets),
        *(robustness_text.describe_corruptions, robustness_text.corruption_rows),
        *(search_text.describe_search, format_value),
        *(main_metrics, used_settings, format_difference, weakest, by_change),
        *(percent, points, percent_interval, points_interval, decimal, number, count, duration, memory),
    ]
    environment.filters.update({each.__name__: each for each in filters})
    return environment


_HTML = _environment(autoescape=True)
# jinja2 can escape only HTML by itself. `finalize` is called with the value of every expression.
_MARKDOWN = _environment(finalize=_escape_markdown)
