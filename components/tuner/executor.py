"""The Tuner's executor."""

from __future__ import annotations

import posixpath
from typing import Any

from tfx import types
from tfx.components.tuner import executor
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import json_utils

from models.search import results
from models.step import checkpoints_folder


class Executor(executor.Executor):
    """Runs the search so that it survives a kill, and writes all of its trials.

    TFX's own executor keeps the search's state in a folder of the execution, which the next run does not
    find, and writes only the trials that completed.
    """

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Searches and writes the results.

        Args:
          input_dict: the inputs of TFX's Tuner.
          output_dict: `best_hyperparameters` and `tuner_results`. The latter gets `trials.parquet` beside
            TFX's `tuner_results.json`, and its custom properties say how many trials there were (`trials`,
            `failed`), by which `algorithm`, and the `best_score`.
          exec_properties: `tuner_fn` and `custom_config`, which may name the folder of the search's state as
            `checkpoints`; otherwise it is `checkpoints`, two levels above the artifact `tuner_results`.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        written = artifact_utils.get_single_instance(output_dict[standard_component_specs.TUNER_RESULTS_KEY])
        custom = json_utils.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        state = checkpoints_folder(custom, written.uri)
        search = executor.search(input_dict, exec_properties, state)
        executor.write_best_hyperparameters(search, output_dict)
        trials, described = search.oracle.rows(), search.describe()
        results.write(posixpath.join(written.uri, results.TRIALS), trials, described)
        written.set_int_custom_property("trials", len(trials))
        written.set_int_custom_property("failed", sum(trial["score"] is None for trial in trials))
        written.set_float_custom_property("best_score", described["best_score"])
        written.set_string_custom_property("algorithm", described["algorithm"])
        search.remove_state()
