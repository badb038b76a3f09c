"""The pipeline's graph: the only place where components are wired."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path

from tfx import v1 as tfx
from tfx.dsl.components.base import base_beam_component
from tfx.proto import example_gen_pb2

from components.data_gate.component import DataGate
from components.evaluator import gates
from components.model_report.component import ModelReport
from components.serving_check.component import ServingCheck
from datasets import directory
from pipeline import baseline, beam, code_digest, vertex_training
from settings.kubeflow import Target
from settings.pipeline import PipelineConfig
from settings.places import METADATA_FILE, pipeline_directory, serving_directory

# Step -> the modules with this project's code that it enters by.
ENTRY_MODULES = {
    "DataGate": ("components.data_gate.component",),
    "Transform": ("models.preprocessing",),
    "Tuner": ("models.tuner",),
    "Trainer": ("models.trainer",),
    "Evaluator": ("components.evaluator.slices", gates.METRICS_MODULE),
    "ModelReport": ("components.model_report.component",),
    "ServingCheck": ("components.serving_check.component",),
}


def create_pipeline(
    config: PipelineConfig, name: str, dataset: directory.Dataset, target: Target = "local"
) -> tfx.dsl.Pipeline:
    """Wires all components for one dataset.

    Args:
      config: the whole configuration.
      name: of the pipeline and of the served model.
      dataset: the dataset directory that the examples come from.
      target: where the pipeline is to run: on this machine, on Vertex, or on open-source Kubeflow.

    Returns:
      The pipeline, for a TFX runner of that target.
    """
    root = config.root if "://" in config.root else str(Path(config.root).absolute())
    data = str(dataset.path)
    if target != "local" and config.kubeflow.data_uri:
        data = config.kubeflow.data_uri
    height, width = config.model.input_size(dataset.image_size)
    digests = {step: code_digest.digest(*modules) for step, modules in ENTRY_MODULES.items()}

    # Takes the dataset's splits as they are.
    example_gen = tfx.components.ImportExampleGen(
        input_base=data,
        input_config=example_gen_pb2.Input(
            splits=[
                example_gen_pb2.Input.Split(name=split, pattern=f"{split}/{directory.SHARD_PATTERN}")
                for split in directory.SPLITS
            ]
        ),
    )
    examples = example_gen.outputs["examples"]

    # Measures the examples and compares them with the schema that came with them, which also tells the
    # statistics that the images are no words to be counted.
    schema_gen = tfx.components.ImportSchemaGen(schema_file=posixpath.join(data, directory.SCHEMA_FILE))
    schema = schema_gen.outputs["schema"]
    statistics_gen = tfx.components.StatisticsGen(examples=examples, schema=schema)
    example_validator = tfx.components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema
    )

    # Stops the run here when anything is wrong with the data.
    data_gate = DataGate(
        examples=examples,
        anomalies=example_validator.outputs["anomalies"],
        image_height=height,
        image_width=width,
        resizes=config.model.image_size is not None,
        source_digest=digests["DataGate"],
    )

    # Builds the graph from encoded images to the network's input. Nothing is materialised: as floats,
    # the images would take ten times the space of the encoded ones.
    transform = tfx.components.Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn="models.preprocessing.preprocessing_fn",
        materialize=False,
        disable_statistics=True,
        splits_config=tfx.proto.SplitsConfig(analyze=["train"], transform=["train"]),
        custom_config={
            "image_size": [height, width],
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

    # Searches learning rate and batch size.
    tuner = None
    if config.has_tuner:
        tuner = tfx.components.Tuner(
            **training_inputs,
            tuner_fn="models.tuner.tuner_fn",
            custom_config={
                "settings": config.tuner_settings().to_json(),
                "source_digest": digests["Tuner"],
            },
        )

    # Trains with what the Tuner found, and exports the model together with the Transform graph.
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
        },
    )
    model = trainer.outputs["model"]

    # Blesses a model that passes the gates and is not worse than the last one that did.
    baseline_node = _baseline(config, target, model)
    baseline_model = baseline_node.outputs["model"] if baseline_node else None
    evaluator = tfx.components.Evaluator(
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

    # Shows people what the model does.
    report = ModelReport(
        examples=examples,
        schema=schema,
        statistics=statistics_gen.outputs["statistics"],
        anomalies=example_validator.outputs["anomalies"],
        transform_graph=transform.outputs["transform_graph"],
        tuner_results=tuner.outputs["tuner_results"] if tuner else None,
        model=model,
        model_run=trainer.outputs["model_run"],
        baseline=baseline_model,
        evaluation=evaluator.outputs["evaluation"],
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

    # Asks the exported model for predictions, in a process of its own.
    serving_check = ServingCheck(
        model=model,
        examples=examples,
        schema=schema,
        split="test",
        source_digest=digests["ServingCheck"],
    )

    # Pushes only a model that is good, and that answers.
    pusher = tfx.components.Pusher(
        model=model,
        model_blessing=blessing,
        infra_blessing=serving_check.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=serving_directory(root, name))
        ),
    )

    components = [
        example_gen,
        statistics_gen,
        schema_gen,
        example_validator,
        data_gate,
        transform,
        *([tuner] if tuner else []),
        trainer,
        *([baseline_node] if baseline_node else []),
        evaluator,
        report,
        serving_check,
        pusher,
    ]
    # Not for the whole pipeline, as TFX has it: for the back ends' caches, every step would have changed.
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
