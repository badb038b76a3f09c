"""The Pusher's executor."""

from __future__ import annotations

from typing import Any

from tfx import types
from tfx.components.pusher import executor
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, json_utils, proto_utils

from components.pusher import destinations

# Keys of the component's custom_config: the options of the store, and whether a pushed model answers at once.
STORE, PROMOTE = "store", "promote"


class Executor(executor.Executor):
    """Pushes a blessed model so that servers never see a part of it.

    TFX's own executor copies into the version's final folder, leaves what it has copied if it is killed, may
    use a lower number than a version that is there already, and cannot write to s3:// and minio://.
    """

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model to the destination if both blessings allow it.

        Args:
          input_dict: `model_blessing` and `infra_blessing`, which holds the model.
          output_dict: `pushed_model`, which receives a copy of the model, and whose custom properties say
            whether it was pushed, where, and as which version.
          exec_properties: `push_destination`, JSON of a PushDestination with a `filesystem`, whose
            `base_directory` is a path or a URI; `custom_config`, JSON with the options of the store and with
            `promote`, which is `auto` or `manual`.

        Raises:
          destinations.PushError: the model cannot be pushed.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        model = self.GetModelPath(input_dict)
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        custom = json_utils.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        waits = custom[PROMOTE] == "manual"
        place, version = destinations.push(model, destination.filesystem.base_directory, custom[STORE], waits)
        # Lineage refers to this copy, which stays when a server's folder is cleaned.
        io_utils.copy_dir(model, pushed.uri)
        self._MarkPushed(pushed, pushed_destination=place, pushed_version=version)
