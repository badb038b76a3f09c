"""Settings of the exported model: views of an image, calibration, when it abstains, and its formats."""

from __future__ import annotations

import importlib.util
import math
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from settings.base import ConfigError, OpenProportion, Proportion, Section, all_different

# Formats in which a model can be written besides the SavedModel.
Format = Literal["tflite", "tflite_int8", "onnx"]
# Packages, by the names under which they are imported, that write and run the format `onnx`.
_ONNX_PACKAGES = ("tf2onnx", "onnxruntime")


class ExportConfig(Section):
    """What the exported model computes besides the network."""

    views: Literal[1, 2, 6] = Field(
        1,
        description="views of each image whose answers the served model averages: 1, the image; 2, also its "
        "mirror image; 6, also both shifted by one pixel up and left, and down and right",
    )
    extra_views_below: OpenProportion | None = Field(
        None,
        description="look at more than the first view only where the highest probability of the first is "
        "below this, above 0 and below 1; null: for every image",
    )
    calibration: Literal["none", "temperature"] = Field(
        "temperature",
        description="how the probabilities are calibrated on the val split: `temperature`, which divides the "
        "logits by one number, or `none`",
    )
    abstain_below: OpenProportion | None = Field(
        None,
        description="where the highest probability is below this, above 0 and below 1, the model does not "
        "name a class: `abstained` is true and `class_name` empty; null: it always names one",
    )
    prediction_set: OpenProportion | None = Field(
        None,
        description="share of images, above 0 and below 1, such as 0.95, for which `prediction_set` of an "
        "answer holds the right class at least; null: answers have no such set",
    )

    formats: Annotated[tuple[Format, ...], pydantic.AfterValidator(all_different)] = Field(
        (),
        description="other formats that a model is written in, beside the SavedModel: `tflite`, "
        "`tflite_int8` and `onnx`. They compute one view of images that have the network's size",
    )
    min_agreement: Proportion = Field(
        0.995,
        description="least share of the test images, from 0 to 1, for which tflite and onnx must answer the "
        "same class as the SavedModel; a format below it is left out",
    )
    min_agreement_int8: Proportion = Field(0.985, description="the same for tflite_int8")

    @pydantic.model_validator(mode="after")
    def _extra_views_exist(self) -> ExportConfig:
        if self.extra_views_below is not None and self.views == 1:
            raise ValueError("extra_views_below needs views=2 or views=6, found views=1")
        return self

    @property
    def fewest_val_images(self) -> int:
        """How many images the val split needs."""
        return 1 if self.prediction_set is None else fewest_for_sets(self.prediction_set)

    def of_model(self) -> ExportConfig:
        """Returns the settings that the exported model depends on; the others have their defaults."""
        of_formats = {"formats", "min_agreement", "min_agreement_int8"}
        return ExportConfig(**self.model_dump(exclude=of_formats))

    def check_packages(self) -> None:
        """Checks that the packages are installed that write the formats.

        Raises:
          ConfigError: a package is missing.
        """
        missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
        if "onnx" in self.formats and missing:
            raise ConfigError(
                f"export.formats: onnx needs {' and '.join(_ONNX_PACKAGES)}; not installed: "
                f"{', '.join(missing)}. Install them with `uv sync --inexact --extra onnx`, or leave onnx out"
            )

    def min_agreement_of(self, name: Format) -> float:
        """Returns the least agreement with the SavedModel, from 0 to 1, of a format."""
        return self.min_agreement_int8 if name == "tflite_int8" else self.min_agreement


def fewest_for_sets(coverage: float) -> int:
    """Returns how many images tell which classes a set may leave out.

    Args:
      coverage: share of new images, between 0 and 1, whose class the sets have to hold.
    """
    return math.ceil(coverage / (1 - coverage) - 1e-9)  # 0.95 / (1 - 0.95) is a little above 19
