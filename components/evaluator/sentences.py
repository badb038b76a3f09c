"""Sentences that say how a model did at a gate, with the measured value and the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from components.evaluator import guessing

Kind = Literal["floor", "ceiling", "drop"]

_CLASSES_NAMED = 5  # A sentence names at most so many classes.


@dataclass(frozen=True)
class Counts:
    """Numbers of images of a split.

    Attributes:
      class_names: names of the classes, in the order of the labels.
      actual: int64 [classes], images of each class.
      predicted: int64 [classes], images that are predicted as each class.
      correct: number of images whose predicted class is their label.
    """

    class_names: Sequence[str]
    actual: np.ndarray
    predicted: np.ndarray
    correct: int

    @property
    def examples(self) -> int:
        """Number of all images."""
        return int(self.actual.sum())


def describe(kind: Kind, subject: str, value: float, setting: str, limit: float, passed: bool) -> str:
    """Describes the result of a gate that compares a metric with its limit.

    Args:
      kind: how the value is compared with the limit, as in `gates.Gate`.
      subject: the metric in words, with the name of its class if it has one.
      value: the measured value.
      setting: key of the limit in the configuration.
      limit: the limit.
      passed: whether the model passed the gate.

    Returns:
      The sentence, without a full stop.
    """
    if kind == "drop":
        if passed and value <= 0:
            return f"{subject} is not under the last blessed model's"
        return f"{subject} is {value:.4f} under the last blessed model's; {setting} allows {limit:.4f}"
    comparisons = {
        ("floor", True): "is at least",
        ("floor", False): "is under",
        ("ceiling", True): "is at most",
        ("ceiling", False): "is over",
    }
    return f"{subject} {value:.4f} {comparisons[kind, passed]} {setting}, {limit:.4f}"


def describe_guessing(counts: Counts, value: float, setting: str, limit: float, passed: bool) -> str:
    """Describes whether the model is better than always guessing the largest class.

    Args:
      counts: numbers of images of the split.
      value: the confidence, from `guessing.confidence_above_guessing`.
      setting: key of the limit in the configuration.
      limit: the lowest confidence that passes.
      passed: whether the model passed the gate.

    Returns:
      The sentence, without a full stop; if the model failed, with the number of right answers that would do.
    """
    largest = int(counts.actual.argmax())
    share = counts.actual[largest] / counts.examples
    sentence = (
        f"accuracy {counts.correct / counts.examples:.4f} ({counts.correct} of {_images(counts.examples)}) "
        f"is {'' if passed else 'not '}above the share of the largest class, {share:.4f} "
        f"({counts.class_names[largest]!r}), beyond what chance explains: "
        f"{describe('floor', 'confidence', value, setting, limit, passed)}"
    )
    if passed:
        return sentence
    needed = guessing.correct_needed(int(counts.actual[largest]), counts.examples, limit)
    if needed <= counts.examples:
        return f"{sentence}; {needed} right would be enough"
    missing = "more test images" if share < 1 else "test images of other classes"
    return f"{sentence}; {counts.examples} right would not be enough either, so {missing} are needed"


def describe_never_predicted(counts: Counts, setting: str, limit: float) -> str:
    """Describes which classes the model predicts for no image.

    Args:
      counts: numbers of images of the split.
      setting: key of the limit in the configuration.
      limit: the largest number of such classes that passes.

    Returns:
      The sentence, without a full stop. It leaves out classes without images.
    """
    classes = int(np.sum(counts.actual > 0))
    missing = np.flatnonzero((counts.actual > 0) & (counts.predicted == 0))
    allowed = f"{setting} allows {limit:.0f}"
    if not missing.size:
        return (
            f"each class with test images is predicted at least once in {_images(counts.examples)}; {allowed}"
        )
    named = [f"{counts.class_names[i]!r} ({_images(counts.actual[i])})" for i in missing[:_CLASSES_NAMED]]
    if missing.size > len(named):
        named.append(f"and {missing.size - len(named)} more")
    return (
        f"{missing.size} of the {classes} classes with test images {'is' if missing.size == 1 else 'are'} "
        f"never predicted in {_images(counts.examples)}: {', '.join(named)}; {allowed}"
    )


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
