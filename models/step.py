"""What TFX hands to `run_fn` and `tuner_fn`, read and checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.utils import io_utils

from datasets import directory
from models.data import images
from models.data.images import Images
from models.training import precision
from settings.training import TrainingSettings

SETTINGS = "settings"  # the key in custom_config of TrainingSettings, as JSON


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of a training or tuning step.

    Attributes:
      settings: the part of the configuration that is about training.
      class_names: by label.
      transform: the output of Transform.
    """

    settings: TrainingSettings
    class_names: list[str]
    transform: tft.TFTransformOutput
    _fn_args: Any
    _schema: schema_pb2.Schema

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def read_images(self, limit: int | None = None, part: tuple[int, int] = (0, 1)) -> tuple[Images, Images]:
        """Decodes the train split, or `limit` images of it, and the whole val split; or a part of both."""
        train = self._read(self._fn_args.train_files, limit, part)
        return train, self._read(self._fn_args.eval_files, None, part)

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
      fn_args: TFX's FnArgs; `custom_config["settings"]` is `TrainingSettings.model_dump(mode="json")`,
        and the files and the schema are of raw examples. Of a precision of `auto`, the settings that are
        returned say what it is on this machine.
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
