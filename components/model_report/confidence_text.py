"""Words the parts of a report on calibration, on answering only when sure, and on sets of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.model_report.percentages import percent, percent_interval

# With fewer images, even answers without a mistake leave an accuracy under 99 % possible (the lower bound of
# the one-sided 95 % interval of n right answers is about 1 - 3 / n).
_FEW = 300


def describe_fit(fit: Mapping[str, Any]) -> str:
    """Returns sentences on how the probabilities were calibrated.

    Args:
      fit: `calibration_fit` of `metrics.json`.
    """
    if fit["method"] == "none":
        return "The probabilities are not calibrated: export.calibration is none."
    effect = "surer" if fit["temperature"] < 1 else "less sure"
    text = (
        f"The logits are divided by a temperature of {fit['temperature']:.3f}, which makes the model "
        f"{effect} and does not change its answers. It was fitted on the {fit['images']:,} images of the val "
        "split. The figures of val after calibration are cross-fitted: each part of the split is calibrated "
        "by the temperature of the other parts."
    )
    if fit["images"] < _FEW:
        text += (
            " So few images leave the temperature, and with it the probabilities of other images, uncertain."
        )
    if fit["at_bound"]:
        text += " The temperature is at its bound: the val split does not tell how sure the model may be."
    return text


def fit_rows(fit: Mapping[str, Any], split: str) -> list[dict[str, str]]:
    """Formats the figures before and after the calibration.

    Args:
      fit: `calibration_fit` of `metrics.json`.
      split: name of the evaluated split.

    Returns:
      Rows of text: `name`, and with their intervals `before` and `after`.
    """
    return [
        {
            "name": f"{label}, {name}",
            **{when: write(fit[key][when], metric) for when in ("before", "after")},
        }
        for metric, label, write in (
            ("calibration_error", "Calibration error", _percents),
            ("loss", "Loss", _decimals),
        )
        for key, name in (("evaluated", split), ("val", "val"))
    ]


def describe_abstention(abstention: Mapping[str, Any], split: str) -> list[str]:
    """Returns sentences on how accurate the answers are of which the model is sure.

    Args:
      abstention: `abstention` of `metrics.json`.
      split: name of the evaluated split.
    """
    sentences = []
    if abstention["configured"]:
        sentences.append(
            "The model names no class where its highest probability is below "
            f"{abstention['configured']['threshold']:g} (export.abstain_below). It answers "
            f"{_answered(abstention['configured'], split)}. The other figures of this report, and the gates, "
            "count all images with their most probable classes."
        )
    if target := abstention["target"]:
        sentences.append(_describe_target(target["val"], target["evaluated"], split))
    return sentences


def _describe_target(val: Mapping[str, Any], evaluated: Mapping[str, Any] | None, split: str) -> str:
    accuracy = percent(val["accuracy"])
    if evaluated is None:
        return f"On the val split, no threshold gives an accuracy of {accuracy}."
    if val["answered"] == 1:
        text = f"On the val split, the accuracy of all answers is at least {accuracy}, without any threshold."
    else:
        text = (
            f"For an accuracy of {accuracy} on the val split, the threshold is {val['threshold']:.3f}, which "
            f"{percent(val['answered'])} of its images reach. With this threshold, the model answers "
            f"{_answered(evaluated, split)}."
        )
    if val["images"] < _FEW:
        text += f" These are {val['images']:,} val images, too few to show an accuracy of {accuracy}."
    return text


def describe_curve(abstention: Mapping[str, Any]) -> str:
    """Describes the figure of accuracy against the share of images answered, as alternative text.

    Args:
      abstention: `abstention` of `metrics.json`.
    """
    first, last = abstention["curve"][0], abstention["curve"][-1]
    return (
        f"Accuracy of the most confident answers: {percent(first['accuracy'])} of the most confident "
        f"{percent(first['answered'])} of the images, {percent(last['accuracy'])} of all."
    )


def describe_sets(sets: Mapping[str, Any], split: str) -> str:
    """Returns sentences on the sets of classes that hold the right one in most cases.

    Args:
      sets: `prediction_set` of `metrics.json`.
      split: name of the evaluated split.
    """
    least, covered = sets["least_probability"], percent(sets["coverage"])
    if least == 1:
        text = (
            f"A set that holds the right class for at least {covered} of the images needs one class only, "
            f"the most probable one: it is right for that share of the val split. On the {split} split it "
            f"is right for {percent(sets['covered'])}{_interval(sets['interval'])}."
        )
    else:
        text = (
            f"The most probable class, and all others with a probability of at least {least:.4f}, are a set "
            f"that should hold the right class for at least {covered} of the images, as fitted on the val "
            f"split. On the {split} split it does for "
            f"{percent(sets['covered'])}{_interval(sets['interval'])}. A set has {sets['mean_size']:.2f} "
            f"classes on average, and {percent(sets['single'])} of the sets have one class."
        )
    if not sets["served"]:
        text += " The served model does not return the sets, since export.prediction_set is not set."
    return text


def _answered(answers: Mapping[str, Any], split: str) -> str:
    if answers["accuracy"] is None:
        return f"none of the {split} images"
    return (
        f"{percent(answers['answered'])} of the {split} images, "
        f"{percent(answers['accuracy'])} of them right{_interval(answers['interval'])}"
    )


def _percents(measured: Mapping[str, Any], metric: str) -> str:
    return percent(measured[metric]) + _interval(measured["intervals"][metric])


def _decimals(measured: Mapping[str, Any], metric: str) -> str:
    low, high = measured["intervals"][metric]
    return f"{measured[metric]:.3f} ({low:.3f} to {high:.3f})"


def _interval(interval: Sequence[float] | None) -> str:
    if interval is None:
        return ""
    return f" ({percent_interval(interval)})"
