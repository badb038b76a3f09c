"""Reads and checks the arguments that TFX passes to `run_fn` and `tuner_fn`."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Mapping
from typing import Any

import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.utils import io_utils

from datasets import directory
from models.data import images
from models.data.images import Images
from models.training import precision
from settings.training import TrainingSettings

SETTINGS = "settings"  # key in custom_config of the TrainingSettings, as JSON
# Key in custom_config of the folder for states of trainings and searches; without it, the folder's name.
CHECKPOINTS = "checkpoints"


def checkpoints_folder(custom_config: Mapping[str, Any], uri: str) -> str:
    """Returns the folder for the state of a training or a search.

    It is outside the folder of this execution, so that the next run finds it.

    Args:
      custom_config: the component's; it may name the folder.
      uri: an output artifact of the component; otherwise the folder is two levels above it.
    """
    component = posixpath.dirname(posixpath.dirname(uri))
    return custom_config.get(CHECKPOINTS) or posixpath.join(component, CHECKPOINTS)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of a training or tuning step.

    Attributes:
      settings: the training part of the configuration.
      class_names: names of the classes, indexed by label.
      transform: output of the Transform component.
    """

    settings: TrainingSettings
    class_names: list[str]
    transform: tft.TFTransformOutput
    _fn_args: Any
    _schema: schema_pb2.Schema

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are smaller."""
        return len(self.class_names)

    def read_images(self, limit: int | None = None, part: tuple[int, int] = (0, 1)) -> tuple[Images, Images]:
        """Decodes the images of the train and val splits.

        Args:
          limit: number of training images, chosen at random; None reads all. The val split has no limit.
          part: (index, count) of a worker: reads only that worker's part of both splits.

        Returns:
          The training and the validation images.

        Raises:
          ValueError: a split, or this part of it, has no examples.
        """
        train = self._read(self._fn_args.train_files, limit, part)
        return train, self.read_val_images(part)

    def read_val_images(self, part: tuple[int, int] = (0, 1)) -> Images:
        """Decodes the images of the val split, or of a worker's part of it; see `read_images`."""
        return self._read(self._fn_args.eval_files, None, part)

    def _read(self, files: list[str], limit: int | None, part: tuple[int, int]) -> Images:
        return images.read(
            files,
            self._fn_args.data_accessor.tf_dataset_factory,
            self._schema,
            self.transform,
            cache_mebibytes=self.settings.trainer.cache_mebibytes,
            limit=limit,
            seed=self.settings.seed,
            part=part,
        )


def read(fn_args: Any) -> Arguments:
    """Reads the arguments that TFX's Trainer and Tuner have in common.

    Args:
      fn_args: TFX's FnArgs; `custom_config["settings"]` is `TrainingSettings.model_dump(mode="json")`, and
        the files and the schema are those of the raw examples.

    Returns:
      The arguments. In their settings, a precision of `auto` is resolved for this machine.
    """
    schema = io_utils.parse_pbtxt_file(fn_args.schema_path, schema_pb2.Schema())
    settings = TrainingSettings.model_validate(fn_args.custom_config[SETTINGS])
    resolved = {"precision": precision.resolve(settings.trainer.precision)}
    return Arguments(
        settings=settings.model_copy(update={"trainer": settings.trainer.model_copy(update=resolved)}),
        class_names=list(directory.class_names(schema)),
        transform=tft.TFTransformOutput(fn_args.transform_graph_path),
        _fn_args=fn_args,
        _schema=schema,
    )
