"""ModelReport as a TFX component."""

import json
import posixpath
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import v1 as tfx
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components import artifacts, metadata
from components.data_gate import gate
from components.evaluator.gates import Evaluation
from components.model_report import inference
from components.model_report import report as reports
from datasets import directory, features
from models import run_files

# The component that made each input, for the list of how long each took.
_MADE_BY = {
    "examples": "ImportExampleGen",
    "schema": "ImportSchemaGen",
    "statistics": "StatisticsGen",
    "anomalies": "ExampleValidator",
    "transform_graph": "Transform",
    "tuner_results": "Tuner",
    "model": "Trainer",
    "evaluation": "Evaluator",
}
# Of the report's metrics, what is also found in ML Metadata, and in the pages of Kubeflow and Vertex that
# show an artifact.
_PROPERTIES = ("accuracy", "f1_macro", "loss", "calibration_error")


@tfx.dsl.components.component
def ModelReport(  # noqa: N802 - the function is the component's type name.
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    schema: tfx.dsl.components.InputArtifact[standard_artifacts.Schema],
    statistics: tfx.dsl.components.InputArtifact[standard_artifacts.ExampleStatistics],
    anomalies: tfx.dsl.components.InputArtifact[standard_artifacts.ExampleAnomalies],
    transform_graph: tfx.dsl.components.InputArtifact[standard_artifacts.TransformGraph],
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    model_run: tfx.dsl.components.InputArtifact[standard_artifacts.ModelRun],
    evaluation: tfx.dsl.components.InputArtifact[standard_artifacts.ModelEvaluation],
    report: tfx.dsl.components.OutputArtifact[artifacts.ModelReport],
    context: tfx.dsl.components.Parameter[str],
    split: tfx.dsl.components.Parameter[str],
    source_digest: tfx.dsl.components.Parameter[str],
    tuner_results: tfx.dsl.components.InputArtifact[standard_artifacts.TunerResults] = None,
    baseline: tfx.dsl.components.InputArtifact[standard_artifacts.Model] = None,
) -> None:
    """Writes `metrics.json`, `predictions.parquet`, the figures, `index.html` and `report.md`.

    Args:
      examples: of which `split` is predicted.
      schema: the class names.
      statistics: the number of examples of each split and class.
      anomalies: what the ExampleValidator found.
      transform_graph: that the model was trained behind.
      model: the exported model.
      model_run: what the Trainer tells of the training.
      evaluation: what the Evaluator wrote.
      report: where the report is written.
      context: JSON, what the report says of the run: `name`, `architecture`, `image_size`,
        `configuration`, `model_card`.
      split: of `examples`.
      source_digest: of the code, so that changed code is not answered from the cache.
      tuner_results: the Tuner's trials, where there was one.
      baseline: the last blessed model, where there is one.
    """
    del source_digest
    class_names = directory.class_names(artifacts.read_schema(schema))
    test_files = artifacts.example_files(examples, split)
    model_directory = path_utils.serving_model_path(model.uri)
    evidence = reports.Evidence(
        predictions=inference.predict(model_directory, test_files),
        baseline=inference.predict(path_utils.serving_model_path(baseline.uri), test_files)
        if baseline
        else None,
        class_names=class_names,
        test_files=test_files,
        train_files=artifacts.example_files(examples, "train"),
        explain=lambda encoded, class_ids: inference.explain(
            model_directory, transform_graph.uri, encoded, class_ids
        ),
    )
    evaluated = Evaluation(evaluation.uri, class_names)
    gates = [each.to_json() for each in evaluated.gates()]
    made = {
        "examples": examples,
        "schema": schema,
        "statistics": statistics,
        "anomalies": anomalies,
        "transform_graph": transform_graph,
        "tuner_results": tuner_results,
        "model": model,
        "evaluation": evaluation,
    }
    with tempfile.TemporaryDirectory() as folder:
        written = reports.write(
            Path(folder),
            evidence,
            {
                **json.loads(context),
                "split": split,
                "blessed": evaluated.blessed,
                "gates": gates,
                "failed_gates": [each["sentence"] for each in gates if not each["passed"]],
                "slices": evaluated.slices(),
                "baseline": {"id": str(baseline.id), "uri": baseline.uri} if baseline else None,
                "history": artifacts.read_json(model_run, run_files.HISTORY),
                "hyperparameters": artifacts.read_json(model_run, run_files.HYPERPARAMETERS),
                "trials": _trials(tuner_results) if tuner_results else [],
                "data": _describe_data(statistics, anomalies, len(class_names)),
                "environment": artifacts.read_json(model_run, run_files.ENVIRONMENT),
                "components": _seconds(made),
            },
        )
        # Through TFX's file access, since the report may have to go into a bucket.
        for file in Path(folder).iterdir():
            fileio.copy(str(file), posixpath.join(report.uri, file.name))
    report.set_int_custom_property("blessed", int(evaluated.blessed))
    for name in _PROPERTIES:
        report.set_float_custom_property(name, written[name])


def _trials(results: standard_artifacts.TunerResults) -> list[dict[str, Any]]:
    return [
        {key: trial[key] for key in ("learning_rate", "batch_size", "score")}
        for trial in artifacts.read_json(results, "tuner_results.json")
    ]


def _describe_data(
    statistics: standard_artifacts.ExampleStatistics,
    anomalies: standard_artifacts.ExampleAnomalies,
    num_classes: int,
) -> dict[str, Any]:
    splits = artifact_utils.decode_split_names(statistics.split_names)
    found = {split: artifacts.read_anomalies(anomalies, split) for split in splits}
    return {
        "splits": {split: _count(statistics, split, num_classes) for split in splits},
        "anomalies": gate.describe_anomalies(found),
    }


def _count(statistics: standard_artifacts.ExampleStatistics, split: str, num_classes: int) -> dict[str, Any]:
    """Reads the number of examples, and of those of each class, from the statistics of a split."""
    path = posixpath.join(artifact_utils.get_split_uri([statistics], split), "FeatureStats.pb")
    with fileio.open(path, "rb") as file:
        (of_split,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read()).datasets
    counts = [0] * num_classes
    for feature in of_split.features:
        if feature.path.step[:] == [features.LABEL]:
            for bucket in feature.string_stats.rank_histogram.buckets:
                counts[int(bucket.label)] = round(bucket.sample_count)
    return {"examples": int(of_split.num_examples), "classes": counts}


def _seconds(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lists how long each component took; None where whoever ran it did not note that."""
    return [
        {
            "id": _MADE_BY[name],
            "seconds": artifact.get_float_custom_property(metadata.SECONDS)
            if artifact.has_custom_property(metadata.SECONDS)
            else None,
        }
        for name, artifact in made.items()
        if artifact
    ]
