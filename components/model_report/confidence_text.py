"""Words the parts of a report on calibration, on answering only when sure, and on sets of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.model_report.percentages import percent, percent_interval


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
        "split, whose figures after it are of parts of the split that it was not fitted on."
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
            f"{_answered(abstention['configured'], split)}."
        )
    if target := abstention["target"]:
        val, accuracy = target["val"], percent(target["val"]["accuracy"])
        sentences.append(
            f"On the val split, no threshold gives an accuracy of {accuracy}."
            if val["threshold"] is None
            else f"For an accuracy of {accuracy} on the val split, the threshold is {val['threshold']:.3f}, "
            f"which {percent(val['answered'])} of its images reach. With this threshold, the model answers "
            f"{_answered(target['evaluated'], split)}."
        )
    return sentences


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
    return (
        f"All classes with a probability of at least {sets['least_probability']:.4f}, and the most probable "
        f"one, are a set that should hold the right class for {percent(sets['coverage'])} of the images, as "
        f"fitted on the val split. On the {split} split it does for {percent(sets['covered'])}"
        f"{_interval(sets['interval'])}. A set has {sets['mean_size']:.2f} classes on average, and only one "
        f"for {percent(sets['single'])} of the images."
    )


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
