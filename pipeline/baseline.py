"""Which earlier model a new one has to hold its own against."""

from __future__ import annotations

import posixpath

from tfx import v1 as tfx
from tfx.dsl.components.common import resolver
from tfx.dsl.input_resolution.strategies import latest_blessed_model_strategy
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from models import export


class LatestOtherBlessedModel(resolver.ResolverStrategy):
    """The last blessed model of the same classes that is not the candidate itself.

    TFX's own strategy returns, when a run is repeated unchanged, the very model that the run is about:
    the Evaluator then has a new input and evaluates again, although nothing has changed. And it returns
    a model of other classes, once the dataset has got another one: such a model cannot be compared, nor
    can one whose files are gone.

    The inputs are `model` and `model_blessing` (all there are) and `candidate` (this run's model); the
    outputs `model` and `model_blessing` hold one artifact each, or none.
    """

    def resolve_artifacts(self, store, input_dict):
        """Returns the last blessed model and its blessing; see the class."""
        (candidate,) = input_dict["candidate"]
        classes = _class_names(candidate)
        others = {
            "model": [m for m in input_dict["model"] if m.id != candidate.id and _class_names(m) == classes],
            "model_blessing": input_dict["model_blessing"],
        }
        blessed = latest_blessed_model_strategy.LatestBlessedModelStrategy().resolve_artifacts(store, others)
        return {**blessed, "candidate": input_dict["candidate"]}


def _class_names(model: tfx.types.Artifact) -> str | None:
    """Returns the exported list of class names; None if the export is gone."""
    path = posixpath.join(path_utils.serving_model_path(model.uri), export.LABELS_FILE)
    if not fileio.exists(path):
        return None
    with fileio.open(path) as file:
        return file.read()


def latest_other_blessed_model(candidate: tfx.types.BaseChannel) -> tfx.dsl.Resolver:
    """Builds the node for runs on one machine; `candidate` is the model in training."""
    return tfx.dsl.Resolver(strategy_class=LatestOtherBlessedModel, candidate=candidate, **_all_models())


def latest_blessed_model() -> tfx.dsl.Resolver:
    """Builds the node for Vertex, which knows TFX's own strategies only.

    It searches before this run's model is there, so that this cannot be the answer. A model of other
    classes can.
    """
    return tfx.dsl.Resolver(
        strategy_class=latest_blessed_model_strategy.LatestBlessedModelStrategy, **_all_models()
    )


def given_model(uri: str) -> tfx.dsl.Importer:
    """Builds the node for a model that is known; `uri` is that of the artifact."""
    return tfx.dsl.Importer(source_uri=uri, artifact_type=standard_artifacts.Model, output_key="model")


def _all_models() -> dict[str, tfx.types.BaseChannel]:
    return {
        "model": tfx.dsl.Channel(type=standard_artifacts.Model),
        "model_blessing": tfx.dsl.Channel(type=standard_artifacts.ModelBlessing),
    }
