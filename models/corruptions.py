"""Corruptions of images, such as blur and noise, by which the robustness of a model is measured."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

_Function = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def blur(image: np.ndarray, radius: float, generator: np.random.Generator) -> np.ndarray:
    """Blurs with a Gaussian whose standard deviation is `radius` times the shorter side."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius * min(image.shape[:2]))))


def noise(image: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    """Adds Gaussian noise to each pixel and channel; `deviation` is its standard deviation, of 255."""
    added = deviation * generator.standard_normal(image.shape, np.float32)
    return np.rint(image + added).clip(0, 255).astype(np.uint8)


def darkness(image: np.ndarray, factor: float, generator: np.random.Generator) -> np.ndarray:
    """Multiplies each pixel by `factor`."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))


def contrast(image: np.ndarray, factor: float, generator: np.random.Generator) -> np.ndarray:
    """Multiplies each pixel's difference from the mean luma of the image by `factor`."""
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor))


def jpeg(image: np.ndarray, quality: float, generator: np.random.Generator) -> np.ndarray:
    """Compresses the image as a JPEG file of a `quality`, from 1 to 95, and decodes it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file))


def shift(image: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Shifts in a random direction by `fraction` of the sides, rounded to whole pixels.

    The image is mirrored at its edges, as by the augmentation of training images.
    """
    direction = generator.uniform(0, 2 * math.pi)
    down, right = (
        round(fraction * side * part)
        for side, part in zip(image.shape[:2], (math.sin(direction), math.cos(direction)), strict=True)
    )
    margin = max(abs(down), abs(right))
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "symmetric")
    height, width = image.shape[:2]
    return padded[margin - down :, margin - right :][:height, :width]


def rotation(image: np.ndarray, degrees: float, generator: np.random.Generator) -> np.ndarray:
    """Rotates about the centre by `degrees`, to a random side.

    The image is mirrored at its edges, as by the augmentation of training images.
    """
    height, width = image.shape[:2]
    # No corner is farther from the centre than this, so that the rotated image needs no pixel beyond.
    reach = math.ceil(math.hypot(height, width) / 2) + 1
    above, left = max(0, reach - height // 2), max(0, reach - width // 2)
    padded = np.pad(image, ((above, above), (left, left), (0, 0)), "symmetric")
    angle = degrees * generator.choice((-1, 1))
    rotated = Image.fromarray(padded).rotate(angle, Image.Resampling.BILINEAR)
    return np.asarray(rotated)[above : above + height, left : left + width]


@dataclass(frozen=True)
class Corruption:
    """A corruption and the strengths at which it is measured.

    Attributes:
      function: corrupts an image, uint8 [height, width, 3], by a strength, with a generator's random numbers.
      strengths: the strengths, from weak to strong.
      description: what a strength means, with `{}` in the place of its number.
      scale: what a strength is multiplied with for `description`.
    """

    function: _Function
    strengths: tuple[float, float, float]
    description: str
    scale: float = 1


# Lengths are relative to the image, so that they look alike at any size: at 32 pixels, the blurs are of 0.5,
# 1 and 1.5 pixels. Shifts and rotations go beyond those of training images, which the presets shift by up to
# a tenth of the sides, and rotate by up to 10 degrees.
CORRUPTIONS = {
    "blur": Corruption(blur, (1 / 64, 2 / 64, 3 / 64), "blur of {} % of the shorter side", 100),
    "noise": Corruption(noise, (10, 20, 30), "noise of {} of 255"),
    "darkness": Corruption(darkness, (0.6, 0.4, 0.2), "brightness x {}"),
    "contrast": Corruption(contrast, (0.6, 0.4, 0.2), "contrast x {}"),
    "jpeg": Corruption(jpeg, (30, 15, 8), "JPEG of quality {}"),
    "shift": Corruption(shift, (0.15, 0.25, 0.35), "shift by {} % of the sides", 100),
    "rotation": Corruption(rotation, (15, 30, 45), "rotation by {} degrees"),
}
# Every corruption at each of its strengths.
CELLS = [(name, strength) for name, each in CORRUPTIONS.items() for strength in each.strengths]
STRENGTHS = ("weak", "medium", "strong")  # what the strengths of each corruption are called


def by_name(values: Sequence[float]) -> dict[str, list[float]]:
    """Groups values that are in the order of `CELLS`: name of the corruption -> those of its strengths."""
    grouped: dict[str, list[float]] = {name: [] for name in CORRUPTIONS}
    for (name, _), value in zip(CELLS, values, strict=True):
        grouped[name].append(value)
    return grouped


def corrupt(images: np.ndarray, name: str, strength: float, seed: int = 0) -> np.ndarray:
    """Corrupts images.

    Args:
      images: uint8 [count, height, width, 3].
      name: name of the corruption, a key of `CORRUPTIONS`.
      strength: its strength, see the function; not only those of the table.
      seed: seed of the random numbers. An image gets the same ones whatever images are beside it, and for
        every strength.

    Returns:
      The corrupted images, uint8 [count, height, width, 3].
    """
    function = CORRUPTIONS[name].function
    corrupted = np.empty_like(images)
    for index, image in enumerate(images):
        generator = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(image).data)])
        corrupted[index] = function(image, strength, generator)
    return corrupted


def describe(name: str, strength: float) -> str:
    """Describes a strength of a corruption in words, such as "JPEG of quality 15"."""
    corruption = CORRUPTIONS[name]
    return corruption.description.format(f"{strength * corruption.scale:.3g}")
