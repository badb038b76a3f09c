"""Decides whether a model can be trained on the data that was seen, and what the user should know of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2

from components.data_gate.observations import Observations
from datasets import features, listing
from datasets.duplicates import Findings, Member
from settings.data_gate import DataGateConfig

# Number of problems that an error message lists: in thousands of lines, nobody would find the first one.
_LISTED_PROBLEMS = 10
# Number of groups of images that a line names.
_EXAMPLES = 3


class DataAnomaliesError(ValueError):
    """Data that a model cannot be trained on; the message names split, feature and reason of each problem."""


def raise_if_any(problems: Sequence[str]) -> None:
    """Raises an error if there are problems.

    Args:
      problems: one line for each problem.

    Raises:
      DataAnomaliesError: there are problems; the message lists the first ten of them and counts the others.
    """
    if not problems:
        return
    unlisted = len(problems) - _LISTED_PROBLEMS
    more = [f"... and {unlisted} more"] if unlisted > 0 else []
    lines = "\n".join(f"  {line}" for line in [*problems[:_LISTED_PROBLEMS], *more])
    raise DataAnomaliesError(f"the data has problems, so no model was trained:\n{lines}")


def describe_anomalies(anomalies: Mapping[str, anomalies_pb2.Anomalies]) -> list[str]:
    """Describes every anomaly that the ExampleValidator found.

    Args:
      anomalies: split -> anomalies of the split.

    Returns:
      One line for each reason of an anomaly: split, feature, short description and description.
    """
    lines = []
    for split, split_anomalies in anomalies.items():
        for feature, info in sorted(split_anomalies.anomaly_info.items()):
            reasons = info.reason or [info]
            lines += [f"{split}: {feature}: {r.short_description}: {r.description}" for r in reasons]
        for reason in split_anomalies.dataset_anomaly_info.reason:
            lines.append(f"{split}: {reason.short_description}: {reason.description}")
    return lines


def check_images(split: str, seen: Observations, image_size: tuple[int, int] | None) -> list[str]:
    """Describes what is wrong with the single images of a split.

    Args:
      split: name of the split.
      seen: what was seen in it.
      image_size: the expected (height, width) in pixels; None accepts every size.

    Returns:
      One line for each problem; there is one line for all images of an unexpected size.
    """
    problems = [f"{split}: {features.IMAGE}: {line}" for line in seen.problems]
    if seen.other_sizes and image_size is not None:
        problems.append(
            f"{split}: {features.IMAGE}: {seen.other_sizes} of {seen.examples} images are not "
            f"{image_size[1]}x{image_size[0]} pixels (for example, {seen.other_size}); "
            "resize all images with --set model.image_size=SIDE"
        )
    if not seen.examples:
        problems.append(f"{split}: the split has no examples; every split needs at least one")
    return problems


def check_val(examples: int, needed: int) -> list[str]:
    """Describes, in at most one line, that val has too few images to fit the sets of classes that are set.

    Args:
      examples: number of images in val.
      needed: how many `export.prediction_set` needs.
    """
    if not 0 < examples < needed:
        return []
    return [
        f"val: export.prediction_set needs at least {needed} images, found {examples}; fewer cannot tell "
        "which classes the sets may leave out. Use a larger val split, or a lower export.prediction_set"
    ]


def check_classes(
    counts: Mapping[str, np.ndarray], class_names: Sequence[str], limits: DataGateConfig
) -> tuple[list[str], list[str]]:
    """Describes classes that lack images in a split.

    Args:
      counts: split -> number of images of each class.
      class_names: names of the classes.
      limits: what is accepted.

    Returns:
      (problems, warnings), one line each.
    """
    untrained = [
        name
        for name, trained, *others in zip(
            class_names, *(counts[s] for s in ("train", "val", "test")), strict=True
        )
        if not trained and any(others)
    ]
    untested = [name for name, tested in zip(class_names, counts["test"], strict=True) if not tested]
    without_images = [
        name
        for name, *images in zip(class_names, *(counts[s] for s in ("train", "val", "test")), strict=True)
        if not any(images)
    ]
    warnings = []
    if without_images:
        warnings.append(
            "the model cannot learn these classes, which have no images at all: "
            f"{listing.join(without_images, _LISTED_PROBLEMS)}"
        )
    if untested:
        warnings.append(
            "nothing is measured of these classes, which have no test images: "
            f"{listing.join(untested, _LISTED_PROBLEMS)}"
        )
    if not untrained:
        return [], warnings
    listed = listing.join(untrained, _LISTED_PROBLEMS)
    line = f"these classes have val or test images, but no training images: {listed}"
    if limits.allow_untrained_classes:
        return [], [*warnings, line]
    return [
        f"{line}. Add training images, leave the classes out, or accept this with "
        "--set data_gate.allow_untrained_classes=true"
    ], warnings


def check_duplicates(
    findings: Findings, class_names: Sequence[str], limits: DataGateConfig
) -> tuple[list[str], list[str]]:
    """Describes equal and nearly equal images.

    Args:
      findings: what was found.
      class_names: names of the classes.
      limits: what is accepted.

    Returns:
      (problems, warnings), one line each. Near-duplicates are only warned about.
    """
    problems, warnings = [], []
    total = sum(findings.images.values())
    for (split, other), number in findings.leaked_images.items():
        line = f"{_share(number, findings.images[split], f'{split} images')} also in {other}, pixel by pixel"
        examples = _name_groups(findings.leaked, class_names, (split, other))
        limit = limits.max_leaked_fraction
        if (split, other) == ("test", "train") and number > limit * findings.images[split]:
            problems.append(
                f"{line}, so that the model would be tested with images that it knows: {examples}. "
                f"{_advise('max_leaked_fraction', limit)}"
            )
        else:
            warnings.append(f"{line}: {examples}")
    if number := findings.contradicting_images:
        line = f"{_share(number, total, 'images')} equal, pixel by pixel, to an image with another label"
        examples = _name_groups(findings.contradictions, class_names)
        limit = limits.max_contradicting_fraction
        if number > limit * total:
            problems.append(f"{line}: {examples}. {_advise('max_contradicting_fraction', limit)}")
        else:
            warnings.append(f"{line}: {examples}")
    if findings.near_count:
        shares = [
            f"{_share(number, findings.images[split], f'{split} images')} nearly equal to an image in {other}"
            for (split, other), number in findings.near_images.items()
        ]
        pairs = "1 pair" if findings.near_count == 1 else f"{findings.near_count} pairs"
        warnings.append("; ".join([f"{pairs} of near-duplicates, which the report shows", *shares]))
    return problems, warnings


def _advise(setting: str, limit: float) -> str:
    return (
        f"At most {limit:.2%} are allowed. `python -m datasets.deduplication DATA CORRECTIONS` writes a file "
        "that names such images, and `python -m datasets.corrections DATA CORRECTIONS OUT` leaves them out. "
        f"Or accept them with --set data_gate.{setting}=SHARE"
    )


def _share(number: int, total: int, what: str) -> str:
    return f"{number} of {total} {what} ({number / total:.2%}) {'is' if number == 1 else 'are'}"


def _name_groups(
    groups: Iterable[list[Member]], class_names: Sequence[str], splits: tuple[str, str] | None = None
) -> str:
    """Names two images of each of the first groups: one of each split, or two with different labels."""
    named = []
    for group in groups:
        members = [member for member in group if splits is None or member.split in splits]
        for other in members[1:]:
            first = members[0]
            if other.label != first.label if splits is None else other.split != first.split:
                named.append(f"{_name(first, class_names)} is equal to {_name(other, class_names)}")
                break
        if len(named) == _EXAMPLES:
            break
    return "for example, " + "; ".join(named)


def _name(member: Member, class_names: Sequence[str]) -> str:
    return f"{member.id!r} ({member.split}, {class_names[member.label]})"
