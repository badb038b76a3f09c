"""DataGate as a TFX component."""

from tfx import v1 as tfx
from tfx.types import artifact_utils, standard_artifacts

from components import artifacts
from components.data_gate import gate


@tfx.dsl.components.component
def DataGate(  # noqa: N802 - the function is the component's type name.
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    anomalies: tfx.dsl.components.InputArtifact[standard_artifacts.ExampleAnomalies],
    report: tfx.dsl.components.OutputArtifact[artifacts.DataGateReport],
    image_height: tfx.dsl.components.Parameter[int],
    image_width: tfx.dsl.components.Parameter[int],
    resizes: tfx.dsl.components.Parameter[bool],
    source_digest: tfx.dsl.components.Parameter[str],
) -> None:
    """Fails the run on any anomaly and on any image that cannot be decoded or has an unexpected size.

    Args:
      examples: all splits.
      anomalies: what the ExampleValidator found.
      report: where `data_gate.json` is written when all is well.
      image_height: of the network's input, in pixels.
      image_width: likewise.
      resizes: whether images of another size are resized; if not, they are a problem.
      source_digest: of this component's code, so that changed code is not answered from the cache.

    Raises:
      gate.DataAnomaliesError: naming split, feature and reason.
    """
    del source_digest
    splits = artifact_utils.decode_split_names(examples.split_names)
    found = {split: artifacts.read_anomalies(anomalies, split) for split in splits}
    gate.raise_if_any(gate.describe_anomalies(found))
    counts, problems = gate.check_images(
        {split: artifacts.example_files(examples, split) for split in splits},
        None if resizes else (image_height, image_width),
    )
    gate.raise_if_any(problems)
    artifacts.write_json(report, "data_gate.json", {"examples": counts})
