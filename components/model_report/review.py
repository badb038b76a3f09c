"""Prepares the review of labels: which images a reader can correct, and the parts of the page for it.

The reader's choices become a file that the page offers as a download, `corrections.json`, from which
`python -m datasets.corrections` makes a new dataset directory.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
# The lists of DataGate's findings, each with thumbnails; the counts beside them have no thumbnails.
_LISTS = ("leaked", "contradictions", "near")


def read_parts() -> dict[str, str]:
    """Reads the parts of the page that are not made from the report.

    Returns:
      `style`, in CSS; `script`, in JavaScript; and `script_source`, the source expression of the page's
      Content-Security-Policy that allows this script alone.
    """
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("review.css", "review.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": style, "script": script, "script_source": f"sha256-{digest}"}


def count_findings(findings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns DataGate's findings without the lists of images.

    Args:
      findings: content of DataGate's `findings.json`; None if it has none.

    Returns:
      The counts, for `metrics.json`; None without findings.
    """
    if findings is None:
        return None
    return {key: value for key, value in findings.items() if key not in _LISTS}


def list_findings(findings: Mapping[str, Any] | None) -> dict[str, list[Any]]:
    """Returns the lists of images in DataGate's findings: `leaked`, `contradictions` and `near`.

    Args:
      findings: content of DataGate's `findings.json`; None if it has none.

    Returns:
      The lists with their thumbnails; a list that is missing is empty.
    """
    return {name: list((findings or {}).get(name, [])) for name in _LISTS}


def describe_findings(counts: Mapping[str, Any]) -> list[str]:
    """Describes how many images are equal or nearly equal to others.

    Args:
      counts: result of `count_findings`.

    Returns:
      A sentence for each kind that was found; a single sentence if nothing was found.
    """
    sentences = [
        f"{_times(number, f'{split} image is', f'{split} images are')} also in {other}."
        for (split, other), number in (
            (pair.split("/"), number) for pair, number in counts["leaked_images"].items()
        )
        if number
    ]
    if number := counts["contradictions_count"]:
        sentences.append(f"{_times(number, 'image occurs', 'images occur')} with more than one label.")
    if number := counts["near_count"]:
        sentences.append(f"{_times(number, 'pair of images is', 'pairs of images are')} nearly equal.")
    if number := counts["repeated"]:
        equal = _times(number, "image is equal to another one", "images are equal to other ones")
        sentences.append(f"{equal} of the same split and class, which is harmless.")
    return sentences or ["No equal or nearly equal images were found."]


def other_label(group: list[Mapping[str, Any]], label: str) -> str:
    """Returns the label to suggest for an image that equals images with other labels.

    Args:
      group: members of a group of equal images, each with a `label`.
      label: label of the image.

    Returns:
      The only other label of the group; empty if there are several or none.
    """
    others = {member["label"] for member in group} - {label}
    return others.pop() if len(others) == 1 else ""


def _times(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
