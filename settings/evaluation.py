"""The gates that a model has to pass, and what its report says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import pydantic
from pydantic import Field

from settings.base import ConfigError, Proportion, Section, all_different

# Slices that are computed from the image.
BRIGHTNESS, CONTRAST = "brightness", "contrast"


class EvaluationConfig(Section):
    """The gates that a model passes before it is pushed, measured on the test split; null leaves one out."""

    min_accuracy: Proportion = Field(0.5, description="lowest accuracy that is blessed")
    min_f1_macro: Proportion | None = Field(None, description="lowest mean F1 over the classes")
    min_class_precision: Proportion | None = Field(None, description="lowest precision of any class")
    min_class_recall: Proportion | None = Field(None, description="lowest recall of any class")
    max_calibration_error: Proportion | None = Field(
        None, description="highest expected calibration error of the predicted class's probability"
    )
    max_accuracy_drop: Proportion | None = Field(
        0.0, description="how far under the last blessed model's accuracy a model may be"
    )
    # On 1,000 test images of a class, chance alone moves it by 3 or 4 points from training to training.
    max_class_precision_drop: Proportion | None = Field(
        0.08, description="how far any class's precision may be under the last blessed model's"
    )
    max_class_recall_drop: Proportion | None = Field(
        0.08, description="how far any class's recall may be under the last blessed model's"
    )
    slices: Annotated[tuple[str, ...], pydantic.AfterValidator(all_different)] = Field(
        (BRIGHTNESS, CONTRAST),
        description="what the test split is also measured by, part for part: `brightness` and `contrast` "
        "of the image, or any feature of the examples that the schema has",
    )

    def check_slices(self, features: Iterable[str]) -> None:
        """Raises a ConfigError if a slice is neither of the image nor among the features of the examples."""
        known = (BRIGHTNESS, CONTRAST, *features)
        for name in self.slices:
            if name not in known:
                raise ConfigError(
                    f"evaluation.slices: expected some of {', '.join(known)}; found {name!r}. A feature of "
                    "the examples has to be in the dataset's schema.pbtxt, too"
                )


class ModelCardConfig(Section):
    """What the report says of the model's use, in the words of those who answer for it."""

    intended_use: str = Field(
        "Classifies single images of the kind that it was trained on into the classes listed above.",
        description="what the model is for",
    )
    limits: str = Field(
        "It names one of its classes for any image, also for one that shows none of them. How it does on "
        "images from other sources was not measured.",
        description="what it is not for, and what is not known of it",
    )
