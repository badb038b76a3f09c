"""Builds the pipeline's graph; the only place where components are wired."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path

from tfx import v1 as tfx
from tfx.dsl.components.base import base_beam_component

from components import artifacts
from components.data_gate.component import DataGate
from components.evaluator import gates
from components.evaluator.component import Evaluator
from components.example_gen.component import ImportExampleGen
from components.model_report.component import ModelReport
from components.pusher import executor as pusher_executor
from components.pusher.component import Pusher
from components.serving_check.component import ServingCheck
from components.tuner.component import Tuner
from datasets import directory
from pipeline import baseline, beam, code_digest, vertex_endpoint, vertex_training
from settings.kubeflow import Target
from settings.pipeline import PipelineConfig
from settings.places import METADATA_FILE, pipeline_directory, serving_directory

# Step -> the modules of this project that TFX loads for it.
ENTRY_MODULES = {
    "ImportExampleGen": ("components.example_gen.component",),
    "DataGate": ("components.data_gate.component",),
    "Transform": ("models.preprocessing",),
    "Tuner": ("components.tuner.component", "models.tuner"),
    "Trainer": ("models.trainer",),
    "Evaluator": ("components.evaluator.component", "components.evaluator.slices", gates.METRICS_MODULE),
    "ModelReport": ("components.model_report.component",),
    "ServingCheck": ("components.serving_check.component",),
    "Pusher": ("components.pusher.component",),
}


def create_pipeline(
    config: PipelineConfig,
    name: str,
    dataset: directory.Dataset,
    data_digest: str,
    target: Target = "local",
) -> tfx.dsl.Pipeline:
    """Creates the pipeline for one dataset.

    Args:
      config: the whole configuration.
      name: name of the pipeline and of the served model.
      dataset: the dataset directory with the examples, or a copy of it on this machine.
      data_digest: its digest, see `datasets.digest`.
      target: where the pipeline will run: on this machine, on Vertex, or on open-source Kubeflow.

    Returns:
      The pipeline, for the TFX runner of that target.
    """
    root = config.root if "://" in config.root else str(Path(config.root).absolute())
    data = str(dataset.path)
    if target != "local" and config.kubeflow.data_uri:
        data = config.kubeflow.data_uri
    height, width = config.model.input_size(dataset.image_size)
    digests = {step: code_digest.digest(*modules) for step, modules in ENTRY_MODULES.items()}

    # Copies the examples of all splits, and the schema, out of the dataset directory. On other machines, a
    # run may read another directory than this one, so that only the step itself knows its digest.
    importer = tfx.dsl.Importer(
        source_uri=data,
        artifact_type=artifacts.DatasetDirectory,
        custom_properties={"digest": data_digest} if target == "local" else None,
        output_key="dataset",
    ).with_id("Dataset")
    example_gen = ImportExampleGen(
        dataset=importer.outputs["dataset"],
        expected_digest=data_digest,
        source_digest=digests["ImportExampleGen"],
    )
    examples, schema = example_gen.outputs["examples"], example_gen.outputs["schema"]

    # Computes statistics and compares them with the dataset's schema. The schema also tells StatisticsGen
    # not to treat image bytes as text.
    statistics_gen = tfx.components.StatisticsGen(examples=examples, schema=schema)
    example_validator = tfx.components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema
    )

    # Stops the run if the data has anomalies, if an image cannot be decoded or has the wrong size, or if test
    # images are also in train.
    data_gate = DataGate(
        examples=examples,
        schema=schema,
        anomalies=example_validator.outputs["anomalies"],
        limits=config.data_gate.model_dump_json(),
        image_height=height,
        image_width=width,
        resizes=config.model.image_size is not None,
        background=json.dumps(config.model.background),
        min_val_images=config.export.fewest_val_images,
        source_digest=digests["DataGate"],
    )

    # Builds the graph from encoded images to the network's input. The transformed examples are not
    # materialised: as floats, the images would take ten times the space of the encoded ones.
    transform = tfx.components.Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn="models.preprocessing.preprocessing_fn",
        materialize=False,
        disable_statistics=True,
        splits_config=tfx.proto.SplitsConfig(analyze=["train"], transform=["train"]),
        custom_config={
            "image_size": [height, width],
            "resize": config.model.resize,
            "background": list(config.model.background),
            "max_pixels": config.data_gate.max_image_pixels,
            "source_digest": digests["Transform"],
        },
    )
    transform.add_upstream_node(data_gate)

    training_inputs = {
        "examples": examples,
        "schema": schema,
        "transform_graph": transform.outputs["transform_graph"],
        "train_args": tfx.proto.TrainArgs(splits=["train"]),
        "eval_args": tfx.proto.EvalArgs(splits=["val"]),
    }

    kfp = config.kubeflow.kfp
    keeps_checkpoints = target == "kfp" and kfp.checkpoints is not None
    checkpoints = {"checkpoints": kfp.checkpoints} if keeps_checkpoints else {}
    search_survives = kfp.checkpoints is not None and kfp.is_on_volume(kfp.checkpoints, "Tuner")

    # Searches for the settings with the highest validation accuracy.
    tuner = None
    if config.has_tuner:
        tuner = Tuner(
            **training_inputs,
            tuner_fn="models.tuner.tuner_fn",
            custom_config={
                "settings": config.tuner_settings().to_json(),
                "source_digest": digests["Tuner"],
                **(checkpoints if search_survives else {}),
            },
        )

    # Trains with the Tuner's best hyperparameters and exports the model with the Transform graph.
    in_custom_job = target == "vertex" and config.kubeflow.trains_in_custom_job
    trainer_type = (
        tfx.extensions.google_cloud_ai_platform.Trainer if in_custom_job else tfx.components.Trainer
    )
    trainer = trainer_type(
        **training_inputs,
        hyperparameters=tuner.outputs["best_hyperparameters"] if tuner else None,
        run_fn="models.trainer.run_fn",
        custom_config={
            "settings": config.trainer_settings().to_json(),
            "source_digest": digests["Trainer"],
            **(vertex_training.custom_config(config.kubeflow) if in_custom_job else {}),
            **checkpoints,
        },
    )
    model = trainer.outputs["model"]

    # Blesses the model if it passes all gates, some of which compare it with the baseline. One is about
    # corrupted images.
    baseline_node = _baseline(config, target, model)
    baseline_model = baseline_node.outputs["model"] if baseline_node else None
    evaluator = Evaluator(
        examples=examples,
        schema=schema,
        model=model,
        baseline_model=baseline_model,
        example_splits=["test"],
        eval_config=gates.eval_config(
            config.evaluation,
            num_classes=len(dataset.class_names),
            source_digest=digests["Evaluator"],
        ),
        module_path="components.evaluator.slices",
    )
    blessing = evaluator.outputs["blessing"]

    # Checks the predictions of the exported model in a separate process, and adds to it what servers need.
    serving_check = ServingCheck(
        model=model,
        examples=examples,
        schema=schema,
        split="test",
        limits=config.serving_check.model_dump_json(),
        export=config.export.model_dump_json(),
        source_digest=digests["ServingCheck"],
    )

    # Writes a report with metrics, plots and examples.
    report = ModelReport(
        examples=examples,
        schema=schema,
        statistics=statistics_gen.outputs["statistics"],
        anomalies=example_validator.outputs["anomalies"],
        data_gate=data_gate.outputs["report"],
        transform_graph=transform.outputs["transform_graph"],
        tuner_results=tuner.outputs["tuner_results"] if tuner else None,
        model=model,
        model_run=trainer.outputs["model_run"],
        baseline=baseline_model,
        evaluation=evaluator.outputs["evaluation"],
        serving_check=serving_check.outputs["blessing"] if config.export.formats else None,
        context=json.dumps(
            {
                "name": name,
                "architecture": config.model.architecture,
                "image_size": [height, width],
                "configuration": config.describe(),
                "model_card": config.describe_model(),
            }
        ),
        split="test",
        source_digest=digests["ModelReport"],
    )

    pusher = _pusher(config, target, root, name, blessing, serving_check.outputs["blessing"])

    components = [
        importer,
        example_gen,
        statistics_gen,
        example_validator,
        data_gate,
        transform,
        *([tuner] if tuner else []),
        trainer,
        *([baseline_node] if baseline_node else []),
        evaluator,
        serving_check,
        report,
        pusher,
    ]
    # Only components that use Beam get its arguments. TFX's `beam_pipeline_args` of the pipeline would add
    # them to all steps, and a changed argument would invalidate all steps in the back ends' caches.
    arguments = beam.arguments(config.beam, root, config.kubeflow.image)
    for component in components:
        if isinstance(component, base_beam_component.BaseBeamComponent):
            component.with_beam_pipeline_args(arguments)
    return tfx.dsl.Pipeline(
        pipeline_name=name,
        pipeline_root=pipeline_directory(root, name),
        components=components,
        enable_cache=target == "local" or config.kubeflow.cache,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            posixpath.join(root, METADATA_FILE)
        )
        if target == "local"
        else None,
    )


def _pusher(
    config: PipelineConfig,
    target: Target,
    root: str,
    name: str,
    blessing: tfx.types.BaseChannel,
    infra_blessing: tfx.types.BaseChannel,
) -> tfx.components.Pusher:
    """Pushes the model that ServingCheck's blessing holds, if both it and the Evaluator bless the model."""
    inputs = {"model_blessing": blessing, "infra_blessing": infra_blessing}
    if config.pusher.target == "vertex_endpoint":
        return tfx.extensions.google_cloud_ai_platform.Pusher(
            **inputs, custom_config=vertex_endpoint.custom_config(config.pusher, config.kubeflow.vertex, name)
        )
    destination = serving_directory(root, name)
    if target != "local" and config.kubeflow.serving:
        destination = posixpath.join(config.kubeflow.serving, name)
    return Pusher(
        **inputs,
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=destination)
        ),
        custom_config={
            pusher_executor.STORE: {"endpoints": config.kubeflow.kfp.store.endpoints_of(destination)},
            pusher_executor.PROMOTE: config.pusher.promote,
            "source_digest": code_digest.digest(*ENTRY_MODULES["Pusher"]),
        },
    )


def _baseline(
    config: PipelineConfig, target: Target, candidate: tfx.types.BaseChannel
) -> tfx.dsl.Resolver | tfx.dsl.Importer | None:
    if target == "local":
        node = baseline.latest_other_blessed_model(candidate)
    elif config.kubeflow.baseline_model:
        node = baseline.given_model(config.kubeflow.baseline_model)
    elif target == "vertex":
        node = baseline.latest_blessed_model()
    else:
        return None
    return node.with_id("Baseline")
