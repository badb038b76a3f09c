"""The TFX component ModelReport, which writes the report on a trained model."""

import functools
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
from components.data_gate import gate as data_checks
from components.data_gate import report_files as data_files
from components.evaluator import robustness
from components.evaluator.gates import Evaluation
from components.model_report import inference, search, views
from components.model_report import report as reports
from components.serving_check.formats import files as format_files
from datasets import directory, features
from models import run_files
from models.search import results

# Input -> the component that wrote it. The report lists how long each of these components took.
_PRODUCERS = {
    "examples": "ImportExampleGen",
    "statistics": "StatisticsGen",
    "anomalies": "ExampleValidator",
    "data_gate": "DataGate",
    "transform_graph": "Transform",
    "tuner_results": "Tuner",
    "model": "Trainer",
    "evaluation": "Evaluator",
    "serving_check": "ServingCheck",
}
# Metrics that also become properties of the report's artifact, so that ML Metadata holds them and the
# artifact's page in Kubeflow and Vertex shows them.
_PROPERTIES = ("accuracy", "f1_macro", "loss", "calibration_error")


@tfx.dsl.components.component
def ModelReport(  # noqa: N802 - the function is the component's type name.
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    schema: tfx.dsl.components.InputArtifact[standard_artifacts.Schema],
    statistics: tfx.dsl.components.InputArtifact[standard_artifacts.ExampleStatistics],
    anomalies: tfx.dsl.components.InputArtifact[standard_artifacts.ExampleAnomalies],
    data_gate: tfx.dsl.components.InputArtifact[artifacts.DataGateReport],
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
    serving_check: tfx.dsl.components.InputArtifact[standard_artifacts.InfraBlessing] = None,
) -> None:
    """Writes `metrics.json`, `predictions.parquet`, the figures, `index.html` and `report.md`.

    Args:
      examples: examples, whose `split` the models predict.
      schema: schema with the class names.
      statistics: statistics with the number of examples per split and class.
      anomalies: anomalies that the ExampleValidator found.
      data_gate: what the DataGate found.
      transform_graph: output of Transform, which knows how long that step took.
      model: exported model.
      model_run: history, hyperparameters and environment that the Trainer recorded.
      evaluation: output of the Evaluator: metrics, slices and gates.
      report: output artifact, where the files of the report are written.
      context: JSON object with the keys of `metrics.json` that describe the run: `name`, `architecture`,
        `image_size`, `configuration` and `model_card`.
      split: name of the split to report on.
      source_digest: digest of the component's code. It is not read; as a parameter it makes the cache miss
        when the code has changed.
      tuner_results: trials of the Tuner; None if it did not run.
      baseline: last blessed model; None if there is none.
      serving_check: output of ServingCheck, which describes the formats of the model; None if it has none.
    """
    del source_digest
    class_names = directory.class_names(artifacts.read_schema(schema))
    test_files = artifacts.example_files(examples, split)
    model_directory = path_utils.serving_model_path(model.uri)
    described = json.loads(context)
    configuration = {row["key"]: row["value"] for row in described["configuration"]}
    predictions = inference.predict(model_directory, test_files)
    measured, corrupted = robustness.read(evaluation.uri) or (None, None)
    count, below = configuration["export.views"], configuration["export.extra_views_below"]
    evidence = reports.Evidence(
        predictions=predictions,
        baseline=inference.predict(path_utils.serving_model_path(baseline.uri), test_files)
        if baseline
        else None,
        class_names=class_names,
        test_files=test_files,
        train_files=artifacts.example_files(examples, "train"),
        explain=functools.partial(inference.explain, model_directory),
        background=tuple(configuration["model.background"]),
        abstain_below=configuration["export.abstain_below"],
        corrupted=corrupted,
    )
    evaluated = Evaluation(evaluation.uri, class_names)
    gates = [gate.to_json() for gate in evaluated.gates()]
    inputs = {
        "examples": examples,
        "statistics": statistics,
        "anomalies": anomalies,
        "data_gate": data_gate,
        "transform_graph": transform_graph,
        "tuner_results": tuner_results,
        "model": model,
        "evaluation": evaluation,
        "serving_check": serving_check,
    }
    with tempfile.TemporaryDirectory() as folder:
        metrics = reports.write(
            Path(folder),
            evidence,
            {
                **described,
                "split": split,
                "blessed": evaluated.blessed,
                "gates": gates,
                "failed_gates": [gate["sentence"] for gate in gates if not gate["passed"]],
                "slices": evaluated.slices(),
                "corruptions": measured,
                "baseline": {"id": str(baseline.id), "uri": artifacts.place(baseline)} if baseline else None,
                "history": artifacts.read_json(model_run, run_files.HISTORY),
                "hyperparameters": artifacts.read_json(model_run, run_files.HYPERPARAMETERS),
                "views": views.measure(model_directory, test_files, predictions, count, below)
                if count > 1
                else None,
                "formats": format_files.read(serving_check.uri) if serving_check else None,
                **_describe_search(tuner_results),
                "data": {
                    **_describe_data(statistics, anomalies, len(class_names)),
                    "warnings": artifacts.read_json(data_gate, data_files.SUMMARY)["warnings"],
                },
                "data_findings": artifacts.read_json(data_gate, data_files.FINDINGS),
                "environment": artifacts.read_json(model_run, run_files.ENVIRONMENT),
                "components": _list_durations(inputs),
            },
        )
        # TFX's fileio also writes to buckets, where the artifact may be.
        for file in Path(folder).iterdir():
            fileio.copy(str(file), posixpath.join(report.uri, file.name))
    report.set_int_custom_property("blessed", int(evaluated.blessed))
    for name in _PROPERTIES:
        report.set_float_custom_property(name, metrics[name])
    if measured:
        report.set_float_custom_property("corrupted_accuracy", measured["accuracy"])


def _describe_search(tuner_results: standard_artifacts.TunerResults | None) -> dict[str, Any]:
    """Returns `trials` and `search` of `metrics.json`."""
    if tuner_results is None:
        return {"trials": [], "search": None}
    trials, described = results.read(posixpath.join(tuner_results.uri, results.TRIALS))
    return {"trials": trials, "search": search.describe(trials, described)}


def _describe_data(
    statistics: standard_artifacts.ExampleStatistics,
    anomalies: standard_artifacts.ExampleAnomalies,
    num_classes: int,
) -> dict[str, Any]:
    splits = artifact_utils.decode_split_names(statistics.split_names)
    anomalies_by_split = {split: artifacts.read_anomalies(anomalies, split) for split in splits}
    return {
        "splits": {split: _count(statistics, split, num_classes) for split in splits},
        "anomalies": data_checks.describe_anomalies(anomalies_by_split),
    }


def _count(statistics: standard_artifacts.ExampleStatistics, split: str, num_classes: int) -> dict[str, Any]:
    """Reads the number of examples of a split, and of each class, from the statistics."""
    path = posixpath.join(artifact_utils.get_split_uri([statistics], split), "FeatureStats.pb")
    with fileio.open(path, "rb") as file:
        (split_statistics,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read()).datasets
    counts = [0] * num_classes
    for feature in split_statistics.features:
        if feature.path.step[:] == [features.LABEL]:
            for bucket in feature.string_stats.rank_histogram.buckets:
                counts[int(bucket.label)] = round(bucket.sample_count)
    return {"examples": int(split_statistics.num_examples), "classes": counts}


def _list_durations(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lists how many seconds the component behind each input took; None if its runner did not record it."""
    return [
        {
            "id": _PRODUCERS[name],
            "seconds": artifact.get_float_custom_property(metadata.SECONDS)
            if artifact.has_custom_property(metadata.SECONDS)
            else None,
        }
        for name, artifact in inputs.items()
        if artifact
    ]
