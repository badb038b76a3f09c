"""The limits of the check of the images before the training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from settings.base import Flag, Proportion, Section

# Pillow, with which reports read images, refuses images with more pixels as a possible attack.
_MOST_PIXELS = 178_956_970


class DataGateConfig(Section):
    """What DataGate accepts before anything is trained."""

    max_leaked_fraction: Proportion = Field(
        0.0,
        description="largest share of the test images that may also be in train, pixel by pixel, from 0 to 1",
    )
    # Some labels are wrong even in well-known data sets: 0.5 % in the test set of CIFAR-10 and 6 % in that of
    # ImageNet (Northcutt et al., "Pervasive Label Errors in Test Sets Destabilize Machine Learning
    # Benchmarks", 2021). Equal images with different labels are only the errors that show by themselves.
    max_contradicting_fraction: Proportion = Field(
        0.01,
        description="largest share of the images that may also occur, pixel by pixel, with another label, "
        "from 0 to 1",
    )
    allow_untrained_classes: Flag = Field(
        False, description="whether a class may have val or test images, but no training images"
    )
    max_image_pixels: Annotated[int, Field(strict=True, ge=1, le=_MOST_PIXELS)] = Field(
        100_000_000,
        description="largest number of pixels of an image, from 1 to 178956970; larger ones are refused "
        "before they are decoded, also by the served model",
    )
