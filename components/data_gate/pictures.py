"""Prepares the findings for the report: the most important ones, with thumbnails and names of classes."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from components.data_gate import images
from datasets.duplicates import Findings, Member

# What the report needs of `Findings.to_json`.
_KEYS = (
    *("leaked", "contradictions", "near"),
    *("near_count", "repeated", "leaked_images", "near_images"),
)
# Number of groups and of pairs that are shown; the others are only counted.
_MAX_LISTED = 100
# Number of images of a group that are shown.
_MAX_MEMBERS = 12
# Longest side of a thumbnail in pixels.
_THUMBNAIL_SIDE = 128


def describe(
    findings: Findings,
    files: Mapping[str, Sequence[str]],
    class_names: Sequence[str],
    decoder: images.Decoder,
) -> dict[str, Any]:
    """Describes findings as JSON.

    Args:
      findings: what was found; the index of each member is the position of its image in all files.
      files: split -> TFRecord files, in the order in which the images were looked at.
      class_names: names of the classes.
      decoder: decodes the images that are shown.

    Returns:
      `leaked` and `contradictions`, lists of groups of members; `near`, a list of pairs with `first`,
      `second` and `distance`; the number of all of them in `leaked_count`, `contradictions_count` and
      `near_count`; and `repeated`, `leaked_images` and `near_images` as in `Findings`. A member has `split`,
      `label` (name of the class), `id`, and `image`, a data URI. Lists have at most 100 entries, and groups
      at most 12 members.
    """
    listed = dataclasses.replace(
        findings,
        leaked=[_select_members(group) for group in findings.leaked[:_MAX_LISTED]],
        contradictions=[_select_members(group) for group in findings.contradictions[:_MAX_LISTED]],
        near=findings.near[:_MAX_LISTED],
    )
    shown = [member for group in (*listed.leaked, *listed.contradictions) for member in group]
    shown += [member for pair in listed.near for member in (pair.first, pair.second)]
    all_files = [file for split_files in files.values() for file in split_files]
    thumbnails = {
        position: _thumbnail(*decoder.decode([encoded]))
        for position, encoded in images.read_images(all_files, [member.index for member in shown])
    }

    def describe_member(member: Member) -> dict[str, str]:
        return {
            "split": member.split,
            "label": class_names[member.label],
            "id": member.id,
            "image": thumbnails[member.index],
        }

    described = listed.to_json(describe_member)
    return {
        **{name: described[name] for name in _KEYS},
        "leaked_count": len(findings.leaked),
        "contradictions_count": len(findings.contradictions),
    }


def _select_members(group: Sequence[Member]) -> list[Member]:
    """Selects at most 12 images of a group, first one of each split and label."""
    first = {(member.split, member.label): member.index for member in reversed(group)}
    ranked = sorted(group, key=lambda member: first[member.split, member.label] != member.index)
    return ranked[:_MAX_MEMBERS]


def _thumbnail(pixels: np.ndarray) -> str:
    """Returns a small PNG of an image, uint8 [height, width, 3], as a data URI."""
    image = PIL.Image.fromarray(pixels)
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
