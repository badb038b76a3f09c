"""DataGate as a TFX component."""

from tfx import v1 as tfx
from tfx.types import artifact_utils, standard_artifacts

from components import artifacts
from components.data_gate import gate


@tfx.dsl.components.component
def DataGate(  # noqa: N802 - the function's name is the component's type name.
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    anomalies: tfx.dsl.components.InputArtifact[standard_artifacts.ExampleAnomalies],
    report: tfx.dsl.components.OutputArtifact[artifacts.DataGateReport],
    image_height: tfx.dsl.components.Parameter[int],
    image_width: tfx.dsl.components.Parameter[int],
    resizes: tfx.dsl.components.Parameter[bool],
    source_digest: tfx.dsl.components.Parameter[str],
) -> None:
    """Stops the run on any anomaly, and on any image that cannot be decoded or has an unexpected size.

    Args:
      examples: the examples of all splits.
      anomalies: the anomalies that the ExampleValidator found.
      report: artifact that receives `data_gate.json` if the data has no problems.
      image_height: height of the network's input, in pixels.
      image_width: width of the network's input, in pixels.
      resizes: whether images of other sizes are resized; if not, an image of another size is a problem.
      source_digest: digest of this component's code, so that changed code does not get cached results.

    Raises:
      gate.DataAnomaliesError: the data has problems; the message names split, feature and reason of each.
    """
    del source_digest
    splits = artifact_utils.decode_split_names(examples.split_names)
    split_anomalies = {split: artifacts.read_anomalies(anomalies, split) for split in splits}
    gate.raise_if_any(gate.describe_anomalies(split_anomalies))
    counts, problems = gate.check_images(
        {split: artifacts.example_files(examples, split) for split in splits},
        None if resizes else (image_height, image_width),
    )
    gate.raise_if_any(problems)
    artifacts.write_json(report, "data_gate.json", {"examples": counts})
