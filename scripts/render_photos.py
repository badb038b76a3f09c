"""Renders pictures that resemble photographs of 40 classes of objects, in many sizes and formats.

A class is a shape with a pattern, such as `striped star`. Everything else varies from picture to picture: the
colours, the light, the pose, the background, the sharpness, the size and the file format. Some JPEG files are
stored rotated, with the rotation in EXIF, as cameras do.

    python scripts/render_photos.py photos
    python -m datasets.image_folder photos photos-dataset
    python local_runner.py --data photos-dataset --config configs/photos.yaml
"""

from __future__ import annotations

import concurrent.futures
import functools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import typer
from scipy import ndimage

Plane = np.ndarray  # float32 [height, width]

_SIDES = (200, 1600)  # in pixels, of the longer side
_ASPECTS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 2.4)  # width : height
# File formats with their shares; `rotated.jpg` is a JPEG file that is stored rotated.
_FORMATS = {"jpg": 0.55, "rotated.jpg": 0.15, "png": 0.15, "webp": 0.15}
_ORIENTATION = 0x0112  # EXIF tag
# EXIF orientation -> the transposition of the upright picture that is stored.
_STORED = {
    3: PIL.Image.Transpose.ROTATE_180,
    6: PIL.Image.Transpose.ROTATE_90,
    8: PIL.Image.Transpose.ROTATE_270,
}


def _polygon(x: Plane, y: Plane, corners: int, depth: float) -> Plane:
    """Returns the depth below the edge of a star; a regular polygon for a depth of 0."""
    sector = 2 * math.pi / corners
    angle = np.abs((np.arctan2(y, x) % sector) - sector / 2) / (sector / 2)  # 0 between corners, 1 at them
    edge = math.cos(sector / 2) / np.cos(angle * sector / 2)
    return edge * (1 - depth * (1 - angle)) - np.hypot(x, y)


def _box(x: Plane, y: Plane, width: float, height: float) -> Plane:
    return np.minimum(width - np.abs(x), height - np.abs(y))


# Shape -> depth below its edge, positive inside, for coordinates in which the shape fits the unit circle.
SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "ball": lambda x, y: 0.9 - np.hypot(x, y),
    "ring": lambda x, y: 0.28 - np.abs(0.66 - np.hypot(x, y)),
    "star": lambda x, y: _polygon(x, y, 5, 0.5),
    "triangle": lambda x, y: _polygon(x, y, 3, 0.0),
    "plank": lambda x, y: _box(x, y, 0.95, 0.3),
    "cross": lambda x, y: np.maximum(_box(x, y, 0.95, 0.28), _box(x, y, 0.28, 0.95)),
    "moon": lambda x, y: np.minimum(0.9 - np.hypot(x, y), np.hypot(x - 0.5, y) - 0.6),
    "arrow": lambda x, y: np.maximum(
        np.minimum(_box(x + 0.35, y, 0.6, 0.2), 0.25 - x),
        np.minimum(x - 0.1, (0.95 - x - np.abs(y) * 1.2) / 1.56),
    ),
}
# Pattern -> which of two colours a point has, in [0, 1].
PATTERNS: dict[str, Callable[[Plane, Plane], Plane]] = {
    "plain": lambda x, y: np.zeros_like(x),
    "striped": lambda x, y: (np.sin(x * 16) > 0).astype(np.float32),
    "checked": lambda x, y: (np.sin(x * 12) * np.sin(y * 12) > 0).astype(np.float32),
    "dotted": lambda x, y: (np.sin(x * 13) * np.sin(y * 13) > 0.45).astype(np.float32),
    "ringed": lambda x, y: (np.sin(np.hypot(x, y) * 22) > 0).astype(np.float32),
}
CLASSES = [f"{pattern} {shape}" for shape in SHAPES for pattern in PATTERNS]


def render(name: str, draw: random.Random) -> PIL.Image.Image:
    """Renders a picture.

    Args:
      name: one of CLASSES.
      draw: chooses everything but the class.

    Returns:
      An upright RGB picture, whose longer side has 200 to 1600 pixels.
    """
    pattern, shape = name.split()
    longer = round(math.exp(draw.uniform(*map(math.log, _SIDES))))
    aspect = draw.choice(_ASPECTS)
    width, height = (longer, round(longer / aspect)) if aspect >= 1 else (round(longer * aspect), longer)
    noise = np.random.default_rng(draw.getrandbits(64))
    down, right = np.mgrid[:height, :width].astype(np.float32)
    picture = _background(width, height, draw, noise)

    radius = min(width, height) * draw.uniform(0.28, 0.48)
    center_x = draw.uniform(radius * 0.9, width - radius * 0.9)
    center_y = draw.uniform(radius * 0.9, height - radius * 0.9)
    angle, tilt = draw.uniform(-math.pi, math.pi), draw.uniform(0.7, 1.0)
    light = draw.uniform(0, 2 * math.pi)

    def coordinates(shift: float) -> tuple[Plane, Plane]:
        x = (right - center_x - shift * math.cos(light)) / radius
        y = (down - center_y - shift * math.sin(light)) / radius / tilt
        return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)

    shadow = SHAPES[shape](*coordinates(-draw.uniform(0.05, 0.15) * radius))
    picture *= 1 - draw.uniform(0.3, 0.6) * np.clip(shadow * 8 + 0.5, 0, 1)[..., None]
    x, y = coordinates(0.0)
    depth = SHAPES[shape](x, y)
    first, second = _two_colors(draw)
    share = PATTERNS[pattern](x, y)[..., None]
    colors = first * (1 - share) + second * share
    # The surface rises from the edge inwards, and is brighter where it faces the light.
    surface = np.sqrt(np.clip(depth, 0, 0.35) / 0.35)
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(surface, radius / 25), 1 / radius)
    towards = -(slope_x * math.cos(light) + slope_y * math.sin(light))
    shade = np.clip(0.75 - 0.12 * towards + 0.05 * noise.standard_normal(), 0.25, 1.25)[..., None]
    inside = np.clip(depth * radius + 0.5, 0, 1)[..., None]
    picture = picture * (1 - inside) + colors * shade * inside
    return PIL.Image.fromarray(_photograph(picture, draw, noise))


def write(
    folder: Path, name: str, number: int, seed: int, formats: tuple[str, ...] = tuple(_FORMATS)
) -> Path:
    """Renders a picture and writes it into the folder of its class.

    Args:
      folder: where the folders of the classes are.
      name: one of CLASSES.
      number: number of the picture within its class.
      seed: another seed gives other pictures.
      formats: the file formats to choose from.

    Returns:
      The written file.
    """
    draw = random.Random(f"{seed} {name} {number}")
    picture = render(name, draw)
    suffix = draw.choices(formats, [_FORMATS[each] for each in formats])[0]
    path = folder / name / f"{number:04d}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, object] = {} if suffix == "png" else {"quality": draw.randint(70, 95)}
    if suffix == "rotated.jpg":
        orientation = draw.choice(list(_STORED))
        exif = PIL.Image.Exif()
        exif[_ORIENTATION] = orientation
        picture, options["exif"] = picture.transpose(_STORED[orientation]), exif
    picture.save(path, **options)
    return path


def write_all(
    folder: Path, classes: int, per_class: int, seed: int, formats: tuple[str, ...] = tuple(_FORMATS)
) -> None:
    """Writes `per_class` pictures of each of the first `classes` of CLASSES, on all cores."""
    jobs = [(name, number) for name in CLASSES[:classes] for number in range(per_class)]
    with concurrent.futures.ProcessPoolExecutor() as pool:
        list(pool.map(functools.partial(_write_one, folder, seed, formats), jobs, chunksize=8))


def _write_one(folder: Path, seed: int, formats: tuple[str, ...], job: tuple[str, int]) -> None:
    write(folder, *job, seed, formats)


def _two_colors(draw: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Returns two colours that differ in brightness."""
    dark = np.array([draw.uniform(0, 0.45) for _ in range(3)], np.float32)
    bright = np.array([draw.uniform(0.55, 1) for _ in range(3)], np.float32)
    return (dark, bright) if draw.random() < 0.5 else (bright, dark)


def _background(width: int, height: int, draw: random.Random, noise: np.random.Generator) -> np.ndarray:
    """Returns a smooth texture of clouds, grain or patches, float32 [height, width, 3]."""
    rows, columns = draw.choice([(4, 4), (3, 60), (60, 3), (24, 24), (8, 8)])
    coarse = noise.uniform(0, 1, (rows, columns, 1)) + 0.3 * noise.uniform(0, 1, (rows, columns, 3))
    image = PIL.Image.fromarray((coarse / 1.3 * 255).astype(np.uint8)).resize(
        (width, height), draw.choice([PIL.Image.Resampling.BICUBIC, PIL.Image.Resampling.BILINEAR])
    )
    low, high = sorted(draw.uniform(0.1, 1) for _ in range(2))
    return np.asarray(image, np.float32) / 255 * (high - low) + low


def _photograph(picture: np.ndarray, draw: random.Random, noise: np.random.Generator) -> np.ndarray:
    """Adds a vignette, blur, exposure and the noise of a sensor; returns uint8 [height, width, 3]."""
    height, width, _ = picture.shape
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    picture = picture * (1 - draw.uniform(0, 0.35) * (rows**2 + columns**2) / 2)[..., None]
    blur = draw.choice([0, 0, draw.uniform(0, 0.004)]) * min(height, width)
    picture = ndimage.gaussian_filter(picture, (blur, blur, 0)) * draw.uniform(0.7, 1.15)
    picture += draw.uniform(0.005, 0.04) * noise.standard_normal(picture.shape, np.float32)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def main(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write, with a folder for each class.")
    ],
    *,
    classes: Annotated[int, typer.Option(min=2, max=len(CLASSES), help="Number of classes.")] = len(CLASSES),
    per_class: Annotated[int, typer.Option(min=1, help="Pictures of each class.")] = 25,
    seed: Annotated[int, typer.Option(help="Another seed gives other pictures.")] = 0,
    formats: Annotated[
        str, typer.Option(help="File formats to choose from, separated by commas.")
    ] = ",".join(_FORMATS),
) -> None:
    """Renders pictures that resemble photographs, one folder for each class."""
    write_all(out, classes, per_class, seed, tuple(formats.split(",")))


if __name__ == "__main__":
    typer.run(main)
