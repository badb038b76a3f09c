"""ImportExampleGen as a TFX component."""

import posixpath

from tfx import v1 as tfx
from tfx.components.example_gen import utils
from tfx.components.util import examples_utils
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_artifacts

from components import artifacts
from components.example_gen import ingestion
from datasets import directory


@tfx.dsl.components.component
def ImportExampleGen(  # noqa: N802 - the function's name is the component's type name.
    dataset: tfx.dsl.components.InputArtifact[artifacts.DatasetDirectory],
    examples: tfx.dsl.components.OutputArtifact[standard_artifacts.Examples],
    schema: tfx.dsl.components.OutputArtifact[standard_artifacts.Schema],
    expected_digest: tfx.dsl.components.Parameter[str],
    source_digest: tfx.dsl.components.Parameter[str],
) -> None:
    """Copies the shards and the schema of a dataset directory, and verifies every record.

    TFX's component of this name sends all records through a Beam pipeline, which shuffles and compresses
    them. The records of a dataset directory are shuffled already, and encoded images cannot be compressed
    further; Beam's runner in the process, in addition, keeps all of them in memory.

    Args:
      dataset: the dataset directory.
      examples: artifact that receives the shards of each split, uncompressed. Its custom property
        `input_fingerprint` is the digest of the dataset directory.
      schema: artifact that receives the schema.
      expected_digest: the digest that the dataset directory must have, or `digest.ANY`. As a
        parameter it also keeps the examples of other data from being taken from the cache.
      source_digest: digest of this component's code, so that changed code does not get cached results.

    Raises:
      DatasetError: the dataset directory is incomplete or damaged, or has another digest.
    """
    del source_digest
    # The property has to be set before the URIs of the splits are known.
    examples.split_names = artifact_utils.encode_split_names(list(directory.SPLITS))
    ingested = ingestion.ingest(
        dataset.uri,
        {split: artifact_utils.get_split_uri([examples], split) for split in directory.SPLITS},
        expected_digest,
    )
    with fileio.open(posixpath.join(schema.uri, directory.SCHEMA_FILE), "wb") as file:
        file.write(ingested.schema)
    # The same properties as TFX's ExampleGens set. Its only file format for TFRecords is called `gzip`; all
    # readers find out from the suffix of a file whether it is compressed.
    examples_utils.set_payload_format(examples, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
    examples.set_int_custom_property(utils.SPAN_PROPERTY_NAME, 0)
    examples.set_string_custom_property(utils.FINGERPRINT_PROPERTY_NAME, ingested.digest)
    for split, count in ingested.counts.items():
        examples.set_int_custom_property(f"{split}_examples", count)
