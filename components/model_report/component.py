"""ModelReport as a TFX component."""

from pathlib import Path

from tfx import v1 as tfx
from tfx.components.util import model_utils
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components import artifacts
from components.model_report import report as reports
from components.model_report.predictions import predict
from datasets import directory
from models import trainer, training
from pipeline import evaluation as gates


@tfx.dsl.components.component
def ModelReport(  # noqa: N802 - the function is the component's type name.
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    schema: tfx.dsl.components.InputArtifact[standard_artifacts.Schema],
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    model_run: tfx.dsl.components.InputArtifact[standard_artifacts.ModelRun],
    evaluation: tfx.dsl.components.InputArtifact[standard_artifacts.ModelEvaluation],
    blessing: tfx.dsl.components.InputArtifact[standard_artifacts.ModelBlessing],
    report: tfx.dsl.components.OutputArtifact[artifacts.ModelReport],
    name: tfx.dsl.components.Parameter[str],
    architecture: tfx.dsl.components.Parameter[str],
    image_height: tfx.dsl.components.Parameter[int],
    image_width: tfx.dsl.components.Parameter[int],
    split: tfx.dsl.components.Parameter[str],
    source_digest: tfx.dsl.components.Parameter[str],
) -> None:
    """Writes `metrics.json`, figures and `index.html` for people.

    Args:
      examples: of which `split` is predicted.
      schema: the class names.
      model: the exported model.
      model_run: the Trainer's `history.json` and `hyperparameters.json`.
      evaluation: the Evaluator's gates.
      blessing: the Evaluator's verdict.
      report: where the report is written.
      name: of the pipeline.
      architecture: of the network.
      image_height: of the network's input, in pixels.
      image_width: likewise.
      split: of `examples`.
      source_digest: of this component's code, so that changed code is not answered from the cache.
    """
    del source_digest
    reports.write(
        Path(report.uri),
        predict(path_utils.serving_model_path(model.uri), artifacts.example_files(examples, split)),
        directory.class_names(artifacts.read_schema(schema)),
        artifacts.read_json(model_run, training.HISTORY),
        {
            "name": name,
            "architecture": architecture,
            "image_size": [image_height, image_width],
            "blessed": model_utils.is_model_blessed(blessing),
            "failed_gates": gates.failed_gates(evaluation.uri),
            "hyperparameters": artifacts.read_json(model_run, trainer.HYPERPARAMETERS),
        },
    )
