"""Artifact types of the custom components, and reading what TFX's own artifacts hold."""

import glob
import os

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact, artifact_utils


class DataGateReport(artifact.Artifact):
    """`data_gate.json`: how many examples of each split were looked at."""

    TYPE_NAME = "DataGateReport"


class ModelReport(artifact.Artifact):
    """`metrics.json`, `index.html` and the figures on which the page draws."""

    TYPE_NAME = "ModelReport"


def example_files(examples: artifact.Artifact, split: str) -> list[str]:
    """Returns the TFRecord files of a split of an Examples artifact, sorted."""
    return sorted(glob.glob(os.path.join(artifact_utils.get_split_uri([examples], split), "*")))


def read_schema(schema: artifact.Artifact) -> schema_pb2.Schema:
    """Reads a Schema artifact."""
    with open(os.path.join(schema.uri, "schema.pbtxt"), encoding="utf-8") as file:
        return text_format.Parse(file.read(), schema_pb2.Schema())
