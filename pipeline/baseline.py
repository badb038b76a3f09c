"""Selects the baseline: the earlier model that a new one is compared with."""

from __future__ import annotations

import posixpath

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.dsl.components.common import resolver
from tfx.dsl.input_resolution.strategies import latest_blessed_model_strategy
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components import metadata
from models import export


class LatestOtherBlessedModel(resolver.ResolverStrategy):
    """The last blessed model of the same classes that is not the candidate itself.

    TFX's own strategy has two defects here. When a run is repeated unchanged, it returns the candidate
    itself, so that the Evaluator has a new input and evaluates again although nothing has changed. When
    the dataset has changed its classes, it returns a model of the old classes, which cannot be compared
    with the candidate; neither can a model whose files have been deleted.

    The inputs are `model` and `model_blessing` (all artifacts of these types) and `candidate` (this run's
    model). The outputs `model` and `model_blessing` hold one artifact each, or none.
    """

    def resolve_artifacts(self, store, input_dict):
        """Returns the last blessed model and its blessing, as the class describes."""
        (candidate,) = input_dict["candidate"]
        classes = _class_names(candidate)
        others = {
            "model": [m for m in input_dict["model"] if m.id != candidate.id and _class_names(m) == classes],
            "model_blessing": input_dict["model_blessing"],
        }
        blessed = latest_blessed_model_strategy.LatestBlessedModelStrategy().resolve_artifacts(store, others)
        return {**blessed, "candidate": input_dict["candidate"]}


def describe_lost(
    store: mlmd.MetadataStore, pipeline: str, selected: int | None, candidate: int
) -> str | None:
    """Describes the blessed models that would be the baseline if their files were not gone.

    Args:
      store: metadata store.
      pipeline: name of the pipeline.
      selected: id of the model that is the baseline; None if there is no baseline.
      candidate: id of the model that is compared with the baseline.

    Returns:
      A sentence; None if there are no such models.
    """
    artifacts = metadata.artifacts(store, pipeline)
    live = {a.id for a in artifacts if a.state == metadata_store_pb2.Artifact.LIVE}
    blessings: dict[int, list[int]] = {}  # id of a blessed model -> ids of its blessings
    for artifact in artifacts:
        if artifact.type == standard_artifacts.ModelBlessing.TYPE_NAME:
            properties = artifact.custom_properties
            if properties["blessed"].int_value:
                blessings.setdefault(properties["current_model_id"].int_value, []).append(artifact.id)
    lost = [
        model
        for model in artifacts
        if model.id in blessings
        and model.id > (selected or 0)
        and model.id != candidate
        and (model.id not in live or live.isdisjoint(blessings[model.id]))
    ]
    if not lost:
        return None
    newest = max(lost, key=lambda model: model.id)
    instead = (
        "the last one that is still there is the baseline"
        if selected
        else "there is no baseline, and the gates that limit a drop do not apply"
    )
    return f"The files of the last blessed model, {newest.uri}, or of its blessing are gone: {instead}"


def _class_names(model: tfx.types.Artifact) -> str | None:
    """Returns the text of the exported list of class names; None if the export has been deleted."""
    path = posixpath.join(path_utils.serving_model_path(model.uri), export.LABELS_FILE)
    if not fileio.exists(path):
        return None
    with fileio.open(path) as file:
        return file.read()


def latest_other_blessed_model(candidate: tfx.types.BaseChannel) -> tfx.dsl.Resolver:
    """Builds the node for local runs.

    Args:
      candidate: the model that this run trains.
    """
    return tfx.dsl.Resolver(strategy_class=LatestOtherBlessedModel, candidate=candidate, **_all_models())


def latest_blessed_model() -> tfx.dsl.Resolver:
    """Builds the node for Vertex, which supports only TFX's own strategies.

    The search runs before this run's model exists, so that it cannot return the candidate. It can return a
    model of other classes.
    """
    return tfx.dsl.Resolver(
        strategy_class=latest_blessed_model_strategy.LatestBlessedModelStrategy, **_all_models()
    )


def given_model(uri: str) -> tfx.dsl.Importer:
    """Builds the node for a fixed baseline.

    Args:
      uri: URI of the baseline's Model artifact.
    """
    return tfx.dsl.Importer(source_uri=uri, artifact_type=standard_artifacts.Model, output_key="model")


def _all_models() -> dict[str, tfx.types.BaseChannel]:
    return {
        "model": tfx.dsl.Channel(type=standard_artifacts.Model),
        "model_blessing": tfx.dsl.Channel(type=standard_artifacts.ModelBlessing),
    }
