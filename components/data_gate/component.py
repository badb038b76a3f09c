"""DataGate as a TFX component."""

import json
import logging
import posixpath

import apache_beam as beam
from tfx import v1 as tfx
from tfx.types import artifact_utils, standard_artifacts

from components import artifacts
from components.data_gate import gate, images, pictures, report_files
from datasets import directory
from settings.data_gate import DataGateConfig

_LOG = logging.getLogger(__name__)


@tfx.dsl.components.component(use_beam=True)
def DataGate(  # noqa: N802 - the function's name is the component's type name.
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    schema: tfx.dsl.components.InputArtifact[standard_artifacts.Schema],
    anomalies: tfx.dsl.components.InputArtifact[standard_artifacts.ExampleAnomalies],
    report: tfx.dsl.components.OutputArtifact[artifacts.DataGateReport],
    limits: tfx.dsl.components.Parameter[str],
    image_height: tfx.dsl.components.Parameter[int],
    image_width: tfx.dsl.components.Parameter[int],
    resizes: tfx.dsl.components.Parameter[bool],
    background: tfx.dsl.components.Parameter[str],
    min_val_images: tfx.dsl.components.Parameter[int],
    source_digest: tfx.dsl.components.Parameter[str],
    beam_pipeline: tfx.dsl.components.BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Stops the run if a model cannot be trained on the data, or if its test would not be fair.

    Every image is looked at: can it be decoded, has it the expected size, is it equal or nearly equal to
    another one? Beam looks at several shards at a time where it has several workers.

    Args:
      examples: the examples of all splits.
      schema: schema with the class names.
      anomalies: the anomalies that the ExampleValidator found.
      report: artifact that receives `data_gate.json` and `findings.json` if the data has no problems.
      limits: the settings of `settings.data_gate.DataGateConfig` as a JSON object.
      image_height: height of the network's input, in pixels.
      image_width: width of the network's input, in pixels.
      resizes: whether images of other sizes are resized; if not, an image of another size is a problem.
      background: JSON list of red, green and blue behind transparent pixels, each from 0 to 255.
      min_val_images: how many images in val the settings of the exported model need.
      source_digest: digest of this component's code, so that changed code does not get cached results.
      beam_pipeline: the pipeline that TFX makes for the component.

    Raises:
      gate.DataAnomaliesError: the data has problems; the message names split, feature and reason of each.
    """
    del source_digest
    accepted = DataGateConfig.model_validate_json(limits)
    splits = artifact_utils.decode_split_names(examples.split_names)
    split_anomalies = {split: artifacts.read_anomalies(anomalies, split) for split in splits}
    gate.raise_if_any(gate.describe_anomalies(split_anomalies))
    class_names = directory.class_names(artifacts.read_schema(schema))
    files = {split: artifacts.example_files(examples, split) for split in splits}
    size = None if resizes else (image_height, image_width)
    red, green, blue = json.loads(background)
    expected = images.Expected(size, accepted.max_image_pixels, (red, green, blue))
    seen, fingerprints = images.look(beam_pipeline, files, expected, posixpath.join(report.uri, "shards"))
    problems = [line for split, found in seen.items() for line in gate.check_images(split, found, size)]
    gate.raise_if_any([*problems, *gate.check_val(seen["val"].examples, min_val_images)])
    findings = fingerprints.findings()
    checks = (
        gate.check_classes(fingerprints.class_counts(len(class_names)), class_names, accepted),
        gate.check_duplicates(findings, class_names, accepted),
    )
    gate.raise_if_any([line for problems, _ in checks for line in problems])
    warnings = [line for _, lines in checks for line in lines]
    for line in warnings:
        _LOG.warning(line)
    counts = {split: found.examples for split, found in seen.items()}
    artifacts.write_json(report, report_files.SUMMARY, {"examples": counts, "warnings": warnings})
    described = pictures.describe(findings, files, class_names, images.Decoder(expected.background))
    artifacts.write_json(report, report_files.FINDINGS, described)
