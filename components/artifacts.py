"""Artifact types of the custom components, and functions that read and write the files of artifacts.

All of them use TFX's fileio, since an artifact may be stored in a bucket.
"""

import json
import posixpath
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx.dsl.io import fileio
from tfx.types import artifact, artifact_utils
from tfx.utils import io_utils

import components
from datasets import directory

# Custom property of an artifact whose `uri` is a local copy: the URI of the original.
STORE_URI = "store_uri"


class DatasetDirectory(artifact.Artifact):
    """A dataset directory, which an Importer brings into the pipeline; see `datasets.directory`."""

    TYPE_NAME = "components.DatasetDirectory"


class DataGateReport(artifact.Artifact):
    """Holds the number of examples of each split and warnings, `data_gate.json`, and `findings.json`.

    `findings.json` describes equal and nearly equal images; `components.data_gate.pictures` lists its keys.
    """

    TYPE_NAME = "components.DataGateReport"


class ModelReport(artifact.Artifact):
    """Holds `metrics.json`, `predictions.parquet`, the figures, `index.html` and `report.md`."""

    TYPE_NAME = components.MODEL_REPORT


def place(input_artifact: artifact.Artifact) -> str:
    """Returns the URI of an artifact for people; that of the original if the step uses a local copy."""
    if input_artifact.has_custom_property(STORE_URI):
        return input_artifact.get_string_custom_property(STORE_URI)
    return input_artifact.uri


def example_files(examples: artifact.Artifact, split: str) -> list[str]:
    """Lists the TFRecord files of a split.

    Args:
      examples: an Examples artifact.
      split: name of the split.

    Returns:
      The paths of the files, sorted.
    """
    return sorted(fileio.glob(posixpath.join(artifact_utils.get_split_uri([examples], split), "*")))


def read_schema(schema: artifact.Artifact) -> schema_pb2.Schema:
    """Reads the schema of a Schema artifact."""
    return io_utils.parse_pbtxt_file(posixpath.join(schema.uri, directory.SCHEMA_FILE), schema_pb2.Schema())


def read_anomalies(anomalies: artifact.Artifact, split: str) -> anomalies_pb2.Anomalies:
    """Reads the anomalies that the ExampleValidator found in a split.

    Args:
      anomalies: an ExampleAnomalies artifact.
      split: name of the split.

    Returns:
      The anomalies.
    """
    path = posixpath.join(artifact_utils.get_split_uri([anomalies], split), "SchemaDiff.pb")
    with fileio.open(path, "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())


def read_json(input_artifact: artifact.Artifact, name: str) -> Any:
    """Reads a JSON file of an artifact.

    Args:
      input_artifact: artifact that holds the file.
      name: path of the file, relative to the artifact's URI.

    Returns:
      The decoded JSON value.
    """
    with fileio.open(posixpath.join(input_artifact.uri, name)) as file:
        return json.load(file)


def write_json(output_artifact: artifact.Artifact, name: str, value: Any) -> None:
    """Writes a JSON file into an artifact.

    Args:
      output_artifact: artifact that will hold the file.
      name: path of the file, relative to the artifact's URI.
      value: value that JSON can represent.
    """
    with fileio.open(posixpath.join(output_artifact.uri, name), "w") as file:
        file.write(json.dumps(value, indent=2))
