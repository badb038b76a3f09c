"""The Evaluator's executor."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components.evaluator import executor
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import path_utils

from components import artifacts
from components.evaluator import gates, robustness


class Executor(executor.Executor):
    """Evaluates a model with TFMA, and before that on corrupted images.

    TFMA gets the mean accuracy on corrupted images as a metric, so that its gate decides with the others.
    """

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluates the model and writes the blessing.

        Args:
          input_dict: the inputs of TFX's Evaluator.
          output_dict: `evaluation` and `blessing`. The former gets the files that `robustness.read` reads,
            if the configuration asks for corrupted images.
          exec_properties: those of TFX's Evaluator; `eval_config` is from `gates.eval_config`.
        """
        config = json_format.Parse(
            exec_properties[standard_component_specs.EVAL_CONFIG_KEY], config_pb2.EvalConfig()
        )
        count = gates.corrupted_images(config)
        if not count:
            super().Do(input_dict, output_dict, exec_properties)
            return
        (split,) = json.loads(exec_properties[standard_component_specs.EXAMPLE_SPLITS_KEY])
        examples, model = (
            artifact_utils.get_single_instance(input_dict[key])
            for key in (standard_component_specs.EXAMPLES_KEY, standard_component_specs.MODEL_KEY)
        )
        measured, example = robustness.measure(
            path_utils.serving_model_path(model.uri), artifacts.example_files(examples, split), count
        )
        gates.set_corrupted_accuracy(config, measured["accuracy"], *robustness.lowest(measured))
        complete = json_format.MessageToJson(config)
        super().Do(
            input_dict, output_dict, {**exec_properties, standard_component_specs.EVAL_CONFIG_KEY: complete}
        )
        evaluation = output_dict[standard_component_specs.EVALUATION_KEY]
        robustness.write(artifact_utils.get_single_uri(evaluation), measured, example)
