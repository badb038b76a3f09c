"""Draws a small dataset of ten shapes in 32x32 pixels, for machines without a network and for tests.

Each image has a shape of random size, position, rotation and colour on a shaded background, with clutter
and noise. A small network learns the classes in minutes, and no network classifies all images correctly.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import PIL.ImageDraw
import typer

from datasets import directory, overview, terminal
from datasets.directory import SPLITS, Dataset

SIDE = 32
TRAIN, VAL, TEST = 1600, 400, 400

# Shapes are drawn at this multiple of the image size and scaled down, which smooths their edges.
_SCALE = 4
_MAX_ROTATION = math.pi / 6  # radians, in either direction
# Mean size of an image as PNG; used only to choose the number of shards.
_PNG_BYTES = 3000

# Corners (x, y) of an outline in the unit circle; y points downwards.
_Outline = list[tuple[float, float]]


def convert(out: Path, train: int = TRAIN, val: int = VAL, test: int = TEST, seed: int = 0) -> Dataset:
    """Draws the images and writes them as a dataset directory.

    Args:
      out: the dataset directory to write.
      train: number of training images, shared equally among the classes.
      val: number of validation images.
      test: number of test images.
      seed: the same seed draws the same images.

    Returns:
      The written dataset.

    Raises:
      DatasetError: `out` is not empty, or a split would be empty.
    """
    names = sorted(_OUTLINES)
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    expected_bytes = {split: count * _PNG_BYTES for split, count in counts.items()}
    with (
        terminal.progress("Drawing shapes", sum(counts.values())) as advance,
        directory.create(out, names, expected_bytes, seed) as writer,
    ):
        for number, (split, count) in enumerate(counts.items()):
            for index in range(count):
                label = index % len(names)
                image = draw(names[label], np.random.default_rng([seed, number, index]))
                png = io.BytesIO()
                PIL.Image.fromarray(image).save(png, "PNG")
                writer.add(split, image=png.getvalue(), label=label, id=f"{split}_{index:05d}".encode())
                advance(1)
    return directory.read(out)


def draw(shape: str, rng: np.random.Generator) -> np.ndarray:
    """Draws an image of a shape.

    Args:
      shape: name of a class.
      rng: generator of all random properties of the image.

    Returns:
      RGB pixels, uint8 [32, 32, 3].
    """
    side = SIDE * _SCALE
    # Shapes are light and backgrounds dark, in any hue. With unrestricted colours, 1,600 images are too few
    # to learn from.
    top, bottom = rng.uniform(0, 120, (2, 3))
    shade = np.linspace(0, 1, side)[:, None, None]
    background = np.broadcast_to(top + (bottom - top) * shade, (side, side, 3))
    picture = PIL.Image.fromarray(background.astype(np.uint8))
    pen = PIL.ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 4)):
        pen.line(rng.uniform(0, side, 4).tolist(), fill=_light_colour(rng), width=int(rng.integers(2, 5)))
    radius = rng.uniform(0.25, 0.42) * side
    centre = rng.uniform(radius, side - radius, 2)
    rotation = rng.uniform(-_MAX_ROTATION, _MAX_ROTATION)
    corners = _place(_OUTLINES[shape](), centre, radius, rotation, rng.uniform(0.8, 1))
    pen.polygon(corners, fill=_light_colour(rng))
    for _ in range(rng.integers(0, 4)):
        x, y = rng.uniform(0, side, 2)
        size = rng.uniform(2, 9)
        pen.ellipse((x - size, y - size, x + size, y + size), fill=_light_colour(rng))
    small = np.asarray(picture.resize((SIDE, SIDE), PIL.Image.Resampling.BOX), np.float32)
    noisy = small + rng.normal(0, rng.uniform(4, 20), small.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def prepare(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset directory to write.")],
    train: Annotated[int, typer.Option(min=1, help="Number of training images.")] = TRAIN,
    val: Annotated[int, typer.Option(min=1, help="Number of validation images.")] = VAL,
    test: Annotated[int, typer.Option(min=1, help="Number of test images.")] = TEST,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same images.")] = 0,
) -> None:
    """Draws a small dataset of ten shapes in 32x32 pixels and writes it as a dataset directory."""
    overview.show(convert(out, train, val, test, seed))


def _light_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.uniform(100, 255, 3).astype(int).tolist()
    return red, green, blue


def _place(
    outline: _Outline, centre: np.ndarray, radius: float, rotation: float, squeeze: float
) -> list[tuple[float, float]]:
    """Scales an outline, squeezes its height, rotates it (in radians) and moves it to `centre`, in pixels."""
    points = np.array(outline) * (radius, radius * squeeze)
    cosine, sine = math.cos(rotation), math.sin(rotation)
    return [(float(x), float(y)) for x, y in points @ np.array([[cosine, sine], [-sine, cosine]]) + centre]


def _arc(start: float, stop: float, radius: float = 1, x: float = 0, y: float = 0) -> _Outline:
    """Returns points of an arc; `start` and `stop` are in full turns, clockwise from the right."""
    angles = 2 * math.pi * np.linspace(start, stop, 40)
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def _corners(number: int) -> _Outline:
    angles = (2 * math.pi * index / number for index in range(number))
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


def _star() -> _Outline:
    return [(x * r, y * r) for (x, y), r in zip(_corners(10), (1, 0.45) * 5, strict=True)]


def _cross() -> _Outline:
    w = 0.3
    quarter = [(w, -1.0), (w, -w), (1.0, -w)]
    points: _Outline = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


def _ring() -> _Outline:
    # A single outline that runs around the outer circle and back around the inner one.
    return _arc(0, 1) + _arc(1, 0, radius=0.6)


def _crescent() -> _Outline:
    return _arc(0.15, 0.85) + _arc(0.8, 0.2, radius=0.86, x=0.33)


def _heart() -> _Outline:
    angles = 2 * math.pi * np.linspace(0, 1, 60)
    x = np.sin(angles) ** 3
    y = -(13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)) / 16
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _arrow() -> _Outline:
    return [(1, 0), (0.2, -0.75), (0.2, -0.3), (-1, -0.3), (-1, 0.3), (0.2, 0.3), (0.2, 0.75)]


_OUTLINES: dict[str, Callable[[], _Outline]] = {
    "arrow": _arrow,
    "circle": lambda: _arc(0, 1),
    "crescent": _crescent,
    "cross": _cross,
    "heart": _heart,
    "hexagon": lambda: _corners(6),
    "ring": _ring,
    "square": lambda: [(-0.75, -0.75), (0.75, -0.75), (0.75, 0.75), (-0.75, 0.75)],
    "star": _star,
    "triangle": lambda: _corners(3),
}


if __name__ == "__main__":
    terminal.run(prepare)
