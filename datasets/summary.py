"""Describes a dataset that an importer has written: a table on the terminal, and a page with images."""

from __future__ import annotations

import base64
import io
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import PIL.Image
import rich.box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datasets import decoding, terminal
from datasets.directory import SPLITS
from datasets.duplicates import Findings, Member
from datasets.inspection import Handling

_MAX_CLASSES = 20  # that the table on the terminal lists
_MAX_NAMES = 3  # files that a line names
# On the page.
_MAX_SHEET = 400  # images
_MAX_PER_CLASS = 8
_MAX_PAIRS = 30
_THUMBNAIL_SIDE = 96  # pixels
# Sizes to propose for the network's images, in pixels.
_PHOTOGRAPH = 128  # proposed sizes above this one are likely to be for photographs
_IMAGE_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)


@dataclass(frozen=True)
class Facts:
    """What an importer found out about a dataset.

    Attributes:
      class_names: name of each label.
      splits: split of each image.
      labels: label of each image.
      widths: width of each image in pixels.
      heights: height of each image in pixels.
      formats: number of images of each format and handling.
      scalings: how images of more than 8 bits were scaled.
      unusable: (name, reason) of the images that were left out.
      ignored: reason -> number or names of the other files and folders that were left out.
      findings: duplicates, whose members' indices are positions of images in the lists above.
    """

    class_names: Sequence[str]
    splits: Sequence[str]
    labels: Sequence[int]
    widths: Sequence[int]
    heights: Sequence[int]
    formats: Mapping[tuple[str, Handling], int]
    scalings: Sequence[str]
    unusable: Sequence[tuple[str, str]]
    ignored: Mapping[str, int | Sequence[str]]
    findings: Findings


def show(facts: Facts, path: Path | str) -> None:
    """Prints the summary of a dataset to stdout.

    Args:
      facts: what the importer found out.
      path: path or URI of the dataset directory.
    """
    console = Console(width=None if sys.stdout.isatty() else terminal.PLAIN_WIDTH, highlight=False)
    table = Table("class", box=rich.box.SIMPLE)
    for split in SPLITS:
        table.add_column(split, justify="right")
    table.add_column("all", justify="right")
    rows = _class_rows(facts)
    for name, counts in rows[:_MAX_CLASSES]:
        table.add_row(_text(name), *(f"{count:,}" for count in counts))
    if len(rows) > _MAX_CLASSES:
        rest = [sum(counts[i] for _, counts in rows[_MAX_CLASSES:]) for i in range(len(SPLITS) + 1)]
        table.add_row(f"{len(rows) - _MAX_CLASSES:,} more classes", *(f"{count:,}" for count in rest))
    table.add_section()
    table.add_row("all", *(f"{sum(counts[i] for _, counts in rows):,}" for i in range(len(SPLITS) + 1)))
    console.print(_text(f"{path}: {len(facts.class_names):,} classes, {len(facts.splits):,} images"))
    console.print(table)
    lines = Table.grid(padding=(0, 2))
    for name, text in _lines(facts):
        lines.add_row(name, _text(text))
    console.print(lines)


def write_html(facts: Facts, path: Path | str, file: Path, stored: Callable[[int], bytes]) -> None:
    """Writes a page with the summary, some images of every class, and the images that are nearly equal.

    The page loads nothing from elsewhere.

    Args:
      facts: what the importer found out.
      path: path or URI of the dataset directory.
      file: the HTML file to write.
      stored: maps the position of an image to its PNG or JPEG file.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("datasets", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = _class_rows(facts)
    page = environment.get_template("summary.html.j2").render(
        path=_printable(str(path)),
        images=len(facts.splits),
        splits=SPLITS,
        rows=[(_printable(name), counts) for name, counts in rows],
        totals=[sum(counts[i] for _, counts in rows) for i in range(len(SPLITS) + 1)],
        lines=[(name, _printable(text)) for name, text in _lines(facts)],
        sheet=_sheet(facts, stored),
        pairs=[
            {
                "images": [_picture(facts, member, stored) for member in (pair.first, pair.second)],
                "distance": pair.distance,
            }
            for pair in facts.findings.near[:_MAX_PAIRS]
        ],
        near_count=facts.findings.near_count,
        groups=[
            {"title": title, "images": [_picture(facts, member, stored) for member in group[:_MAX_PER_CLASS]]}
            for title, groups in (
                ("Equal images under different labels", facts.findings.contradictions),
                ("Equal images in different splits", facts.findings.leaked),
            )
            for group in groups[:_MAX_PER_CLASS]
        ],
    )
    file.write_text(page, encoding="utf-8")


def _class_rows(facts: Facts) -> list[tuple[str, list[int]]]:
    """Returns each class with its number of images in train, val, test and all of them."""
    counts = Counter(zip(facts.labels, facts.splits, strict=True))
    rows = []
    for label, name in enumerate(facts.class_names):
        by_split = [counts[label, split] for split in SPLITS]
        rows.append((name, [*by_split, sum(by_split)]))
    return rows


def _lines(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yields the lines below the table, each with its name."""
    yield "formats", _describe_formats(facts.formats)
    for scaling in facts.scalings:
        yield "depth", f"more than 8 bits a colour: {scaling}"
    sizes = sorted(zip(facts.widths, facts.heights, strict=True), key=math.prod)
    small, median, large = (f"{w}x{h}" for w, h in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    yield (
        "sizes",
        f"all {small} pixels"
        if len(set(sizes)) == 1
        else f"smallest {small}, median {median}, largest {large} pixels",
    )
    if facts.unusable:
        yield "unusable", f"{len(facts.unusable):,} images: {_some([name for name, _ in facts.unusable])}"
    for reason, what in facts.ignored.items():
        if isinstance(what, int):
            yield "ignored", f"{reason}: {what:,}"
        else:
            yield "ignored", f"{reason}: {len(what):,} ({_some(what)})"
    yield from _duplicate_lines(facts)
    if facts.findings.leaked or facts.findings.contradictions:
        yield (
            "advice",
            "DataGate stops a run if test images are also in train, or if too many have two labels. "
            "`python -m datasets.deduplication DIR FILE` lists the images to leave out, and "
            "`python -m datasets.corrections DIR FILE NEW_DIR` writes the dataset without them",
        )
    side = _propose_size(facts)
    if side:
        problem = "these images are large" if len(set(sizes)) == 1 else "the network needs images of one size"
        yield (
            "advice",
            f"{problem}: for example `--set model.image_size={side}`"
            + (", or `--config configs/photos.yaml` for photographs" if side > _PHOTOGRAPH else ""),
        )


def _describe_formats(formats: Mapping[tuple[str, Handling], int]) -> str:
    suffix = {
        "keep": "stored as they are",
        "convert": "converted to PNG",
        "redraw": "with damage that TensorFlow ignores, written as new PNG",
    }
    ordered = sorted(formats.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count:,} {name} {suffix[handling]}" for (name, handling), count in ordered)


def _duplicate_lines(facts: Facts) -> Iterator[tuple[str, str]]:
    found = facts.findings
    if found.repeated:
        yield "repeated", f"{found.repeated:,} images are equal to another one of the same split and class"
    for (split, other), number in found.leaked_images.items():
        total = found.images[split]
        groups = [g for g in found.leaked if {split, other} <= {member.split for member in g}]
        yield (
            "leak",
            f"{number:,} of {total:,} {split} images are also in {other} and measure what was memorised: "
            + _some([_group(group) for group in groups], "; "),
        )
    if found.contradictions:
        yield (
            "contradiction",
            f"{found.contradicting_images:,} images are equal to one with another label: "
            + _some([_group(group, facts.class_names) for group in found.contradictions], "; "),
        )
    if found.near_count:
        pairs = [f"{pair.first.id} ~ {pair.second.id}" for pair in found.near]
        across = ", ".join(
            f"{number:,} {split} images have one in {other}"
            for (split, other), number in found.near_images.items()
        )
        yield (
            "similar",
            f"{found.near_count:,} pairs of nearly equal images{f' ({across})' if across else ''}: "
            + _some(pairs, "; ", found.near_count),
        )


def _group(members: Sequence[Member], class_names: Sequence[str] | None = None) -> str:
    names = [f"{m.id} ({class_names[m.label]})" if class_names else m.id for m in members]
    return " = ".join(names[:_MAX_NAMES]) + (" = ..." if len(names) > _MAX_NAMES else "")


def _some(names: Sequence[str], separator: str = ", ", total: int | None = None) -> str:
    more = (total or len(names)) - min(len(names), _MAX_NAMES)
    return separator.join(names[:_MAX_NAMES]) + (f"{separator}and {more:,} more" if more > 0 else "")


def _propose_size(facts: Facts) -> int | None:
    """Returns an image size for the network; None if the images have one size that is small enough."""
    sides = [min(size) for size in zip(facts.widths, facts.heights, strict=True)]
    if len(set(zip(facts.widths, facts.heights, strict=True))) == 1 and sides[0] <= _IMAGE_SIZES[-1]:
        return None
    median = statistics.median_low(sides)
    return max((size for size in _IMAGE_SIZES if size <= median), default=_IMAGE_SIZES[0])


def _sheet(facts: Facts, stored: Callable[[int], bytes]) -> list[dict[str, Any]]:
    """Returns the first images of every class, or of as many classes as the page can show."""
    names = facts.class_names[:_MAX_SHEET]
    per_class = max(1, min(_MAX_PER_CLASS, _MAX_SHEET // len(names)))
    positions: dict[int, list[int]] = {}
    for position, (label, split) in enumerate(zip(facts.labels, facts.splits, strict=True)):
        if split == "train" and len(positions.setdefault(label, [])) < per_class:
            positions[label].append(position)
    return [
        {"name": _printable(name), "images": [_thumbnail(stored(p)) for p in positions.get(label, [])]}
        for label, name in enumerate(names)
    ]


def _picture(facts: Facts, member: Member, stored: Callable[[int], bytes]) -> dict[str, str]:
    caption = f"{member.id}: {facts.class_names[member.label]}, {member.split}"
    return {"source": _thumbnail(stored(member.index)), "caption": _printable(caption)}


def _thumbnail(encoded: bytes) -> str:
    """Returns a small picture of an image as a data URI."""
    image = decoding.decode(encoded)
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), PIL.Image.Resampling.LANCZOS)
    png = io.BytesIO()
    image.save(png, "PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def _printable(text: str) -> str:
    """Replaces bytes of file names that are not UTF-8, which cannot be printed."""
    return text.encode(errors="backslashreplace").decode()


def _text(text: str) -> Text:
    """Returns a text in which brackets are not taken for markup."""
    return Text(_printable(text))
