"""Artifact types of the custom components, and reading and writing what artifacts hold.

All through TFX's fileio, since an artifact may lie in a bucket.
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


class DataGateReport(artifact.Artifact):
    """`data_gate.json`: how many examples of each split were looked at."""

    TYPE_NAME = "components.DataGateReport"


class ModelReport(artifact.Artifact):
    """`metrics.json`, `predictions.parquet`, the figures, `index.html` and `report.md`."""

    TYPE_NAME = components.MODEL_REPORT


def example_files(examples: artifact.Artifact, split: str) -> list[str]:
    """Returns the TFRecord files of a split of an Examples artifact, sorted."""
    return sorted(fileio.glob(posixpath.join(artifact_utils.get_split_uri([examples], split), "*")))


def read_schema(schema: artifact.Artifact) -> schema_pb2.Schema:
    """Reads a Schema artifact."""
    return io_utils.parse_pbtxt_file(posixpath.join(schema.uri, directory.SCHEMA_FILE), schema_pb2.Schema())


def read_anomalies(anomalies: artifact.Artifact, split: str) -> anomalies_pb2.Anomalies:
    """Reads what the ExampleValidator found in a split."""
    path = posixpath.join(artifact_utils.get_split_uri([anomalies], split), "SchemaDiff.pb")
    with fileio.open(path, "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())


def read_json(of: artifact.Artifact, name: str) -> Any:
    """Reads a JSON file of an artifact."""
    with fileio.open(posixpath.join(of.uri, name)) as file:
        return json.load(file)


def write_json(of: artifact.Artifact, name: str, value: Any) -> None:
    """Writes a JSON file of an artifact."""
    with fileio.open(posixpath.join(of.uri, name), "w") as file:
        file.write(json.dumps(value, indent=2))
