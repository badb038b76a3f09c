"""The gates that a model has to pass before it is pushed, and the texts of its model card."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import pydantic
from pydantic import Field

from settings.base import ConfigError, Fraction, NonNegativeInt, Proportion, Section, all_different

# Names of the slices that are computed from the image.
BRIGHTNESS, CONTRAST = "brightness", "contrast"


class EvaluationConfig(Section):
    """The gates that a model passes before it is pushed, measured on the test split; null turns one off."""

    min_accuracy: Proportion = Field(0.5, description="lowest accuracy of a blessed model, from 0 to 1")
    min_confidence_above_guessing: Fraction | None = Field(
        0.99,
        description="lowest confidence, at least 0 and under 1, that the accuracy is above the share of the "
        "largest class among the test images, by an exact binomial test; null: no gate",
    )
    max_classes_never_predicted: NonNegativeInt | None = Field(
        0,
        description="largest number of classes that have test images but are never predicted; null: no gate",
    )
    min_f1_macro: Proportion | None = Field(
        None, description="lowest unweighted mean of the classes' F1 scores, from 0 to 1; null: no gate"
    )
    min_class_precision: Proportion | None = Field(
        None, description="lowest precision of every class, from 0 to 1; null: no gate"
    )
    min_class_recall: Proportion | None = Field(
        None, description="lowest recall of every class, from 0 to 1; null: no gate"
    )
    max_calibration_error: Proportion | None = Field(
        None,
        description="highest expected calibration error of the predicted class's probability, from 0 to 1; "
        "null: no gate",
    )
    corruptions: NonNegativeInt = Field(
        500,
        description="number of test images on which the model is measured with blur, noise, darkness, less "
        "contrast, JPEG, shift and rotation, each at three strengths, chosen evenly over the classes; 0: not "
        "measured",
    )
    min_corrupted_accuracy: Proportion | None = Field(
        None,
        description="lowest mean accuracy over all corruptions and strengths, from 0 to 1; null: no gate",
    )
    max_accuracy_drop: Proportion | None = Field(
        0.0,
        description="largest allowed drop of accuracy below the last blessed model's, from 0 to 1; "
        "null: no gate",
    )
    # With 1,000 test images per class, chance alone moves precision and recall by 3 or 4 percentage points
    # between two trainings.
    max_class_precision_drop: Proportion | None = Field(
        0.08,
        description="largest allowed drop of any class's precision below the last blessed model's, from 0 "
        "to 1; null: no gate",
    )
    max_class_recall_drop: Proportion | None = Field(
        0.08,
        description="largest allowed drop of any class's recall below the last blessed model's, from 0 to "
        "1; null: no gate",
    )
    slices: Annotated[tuple[str, ...], pydantic.AfterValidator(all_different)] = Field(
        (BRIGHTNESS, CONTRAST),
        description="properties by which the test split is divided into slices that are evaluated "
        "separately: `brightness` and `contrast` of the image, or any feature of the examples in the schema",
    )

    @pydantic.model_validator(mode="after")
    def _corruptions_are_measured(self) -> EvaluationConfig:
        if self.min_corrupted_accuracy is not None and not self.corruptions:
            raise ValueError(
                "min_corrupted_accuracy needs images to be measured on: expected corruptions above 0, found 0"
            )
        return self

    def check_slices(self, features: Iterable[str]) -> None:
        """Checks that every slice is a property of the image or a feature of the examples.

        Args:
          features: names of the features in the dataset's schema.

        Raises:
          ConfigError: a slice is neither.
        """
        known = (BRIGHTNESS, CONTRAST, *features)
        for name in self.slices:
            if name not in known:
                raise ConfigError(
                    f"evaluation.slices: expected some of {', '.join(known)}; found {name!r}. To slice by "
                    "another feature of the examples, add it to the dataset's schema.pbtxt"
                )


class ModelCardConfig(Section):
    """Statements about the model's use, written by those responsible for it and shown in its report."""

    intended_use: str = Field(
        "Classifies single images of the kind that it was trained on into the classes listed above.",
        description="the uses that the model is intended for",
    )
    limits: str = Field(
        "It cannot tell that an image shows none of its classes. How it does on images from other sources "
        "was not measured.",
        description="uses that the model is not suited for, and properties that were not measured",
    )
