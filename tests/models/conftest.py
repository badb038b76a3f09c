"""Fixtures: raw examples, a real transform graph and TFX's FnArgs, without a pipeline."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import h5py
import keras
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import beam as tft_beam
from tfx_bsl.public import tfxio

from datasets import directory as dataset_directory
from models import preprocessing
from settings.training import TrainingSettings
from tests.models import samples

_COUNTS = {"train": 72, "val": 30}


class KilledError(Exception):
    """Stands in for a kill: no code under test handles it."""


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [])


@dataclasses.dataclass(frozen=True)
class RawExamples:
    """Raw examples on disk, with their schema."""

    directory: Path
    schema: schema_pb2.Schema
    schema_path: str
    transform_path: str

    def pattern(self, split: str) -> str:
        return str(self.directory / split / "*")

    def factory(self, patterns: list[str], options: Any, schema: schema_pb2.Schema) -> tf.data.Dataset:
        """Stands in for TFX's `data_accessor.tf_dataset_factory`; does the same for gzipped TFRecords."""
        source = tfxio.TFExampleRecord(file_pattern=patterns, schema=schema, telemetry_descriptors=["test"])
        return source.TensorFlowDataset(options)


@pytest.fixture(scope="session")
def raw_examples(tmp_path_factory: pytest.TempPathFactory) -> RawExamples:
    """Examples with PNG images of SIDE x SIDE pixels, and the transform graph of `preprocessing_fn`."""
    directory = tmp_path_factory.mktemp("raw")
    for split, count in _COUNTS.items():
        (directory / split).mkdir()
        images = samples.colored(count, samples.SIDE, seed=count)
        options = tf.io.TFRecordOptions(compression_type="GZIP")
        with tf.io.TFRecordWriter(str(directory / split / "data.gz"), options) as writer:
            for pixels, label in zip(images.pixels, images.labels, strict=True):
                writer.write(samples.example(samples.png(pixels), int(label)).SerializeToString())
    schema = dataset_directory.build_schema(samples.CLASS_NAMES)
    (directory / "schema.pbtxt").write_text(text_format.MessageToString(schema))
    transform_path = directory / "transform"
    write_transform_graph(schema, directory, transform_path)
    return RawExamples(directory, schema, str(directory / "schema.pbtxt"), str(transform_path))


def write_transform_graph(
    schema: schema_pb2.Schema, directory: Path, output: Path, side: int = samples.SIDE
) -> None:
    """Writes the transform graph of the train split, as the Transform component does.

    Args:
      schema: schema of the raw examples.
      directory: folder of the raw examples; temporary files are written there, too.
      output: folder to which the graph is written.
      side: height and width of the transformed images in pixels.
    """
    source = tfxio.TFExampleRecord(
        file_pattern=str(directory / "train" / "*"), schema=schema, telemetry_descriptors=["test"]
    )
    custom_config = {
        preprocessing.IMAGE_SIZE: [side, side],
        preprocessing.RESIZE: samples.RESIZE,
        preprocessing.BACKGROUND: list(samples.BACKGROUND),
        preprocessing.LARGEST: 1_000_000,
    }
    with beam.Pipeline() as pipeline, tft_beam.Context(temp_dir=str(directory / "beam")):
        raw = pipeline | source.BeamSource()
        transform_fn = (raw, source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing.preprocessing_fn(inputs, custom_config)
        )
        _ = transform_fn | tft_beam.WriteTransformFn(str(output))


def _write_weights(path: Path, backbone: keras.Model) -> tuple[Path, keras.Model]:
    from keras.src.legacy.saving import legacy_h5_format  # noqa: PLC0415  the published files' layout

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, backbone)
    return path, backbone


@pytest.fixture(scope="session")
def mobilenetv2_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A file in the format that Keras publishes, with random weights, and its backbone, with alpha 0.35."""
    keras.utils.set_random_seed(7)
    backbone = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    return _write_weights(tmp_path_factory.mktemp("weights") / "own.h5", backbone)


@pytest.fixture(scope="session")
def efficientnetv2b0_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A file in the format that Keras publishes, with random weights, and its backbone."""
    keras.utils.set_random_seed(7)
    backbone = keras.applications.EfficientNetV2B0(
        input_shape=(32, 32, 3), include_top=False, weights=None, include_preprocessing=False
    )
    return _write_weights(tmp_path_factory.mktemp("weights") / "efficientnet.h5", backbone)


@pytest.fixture
def fn_args(raw_examples: RawExamples, tmp_path: Path) -> Callable[..., Any]:
    """A function that creates TFX's FnArgs; keyword arguments override single fields."""

    def create(settings: TrainingSettings, **overrides: Any) -> Any:
        return types.SimpleNamespace(
            **{
                "train_files": [raw_examples.pattern("train")],
                "eval_files": [raw_examples.pattern("val")],
                "schema_path": raw_examples.schema_path,
                "transform_graph_path": raw_examples.transform_path,
                "data_accessor": types.SimpleNamespace(tf_dataset_factory=raw_examples.factory),
                "custom_config": {"settings": settings.model_dump(mode="json")},
                "hyperparameters": None,
                "model_run_dir": str(tmp_path / "model_run"),
                "serving_model_dir": str(tmp_path / "model" / "Format-Serving"),
                "working_dir": str(tmp_path / "working"),
                **overrides,
            }
        )

    return create


@pytest.fixture(scope="session")
def transform_output(raw_examples: RawExamples) -> tft.TFTransformOutput:
    return tft.TFTransformOutput(raw_examples.transform_path)
