"""Builds the command line of Beam for the steps."""

from __future__ import annotations

import posixpath
from typing import Any

from settings.beam import BeamConfig, DataflowConfig, DirectConfig

# TFX builds and ships a wheel of itself to the workers as soon as Beam gets any argument, which takes
# seconds in every step, unless an image for the workers is named. Our workers have TFX in their image, and
# runners that do not start workers from an image ignore the name.
_NO_WHEEL = "--sdk_container_image=none"
# On Dataflow, the Beam of the image pickles the main module of a step for the workers by default. Nothing
# that workers run is defined there. The Beam of Python 3.10 does not know the flag and ignores it.
_NO_MAIN_SESSION = "--no_save_main_session"


def arguments(config: BeamConfig, root: str, image: str | None) -> list[str]:
    """Returns the command line of Beam.

    Args:
      config: the runner and its options.
      root: folder or URI below which all runs write; Dataflow's temporary files go there.
      image: container image with this project's code, for runners that start workers from an image.

    Returns:
      The arguments; an empty list if Beam runs within the process of each step.
    """
    options = config.options
    if isinstance(options, DirectConfig):
        if options.processes == 1:
            return []
        return [
            "--direct_running_mode=multi_processing",
            f"--direct_num_workers={options.processes}",
            _NO_WHEEL,
        ]
    defaults: dict[str, Any] = {"runner": f"{config.runner.capitalize()}Runner"}
    if isinstance(options, DataflowConfig):
        defaults |= {"temp_location": posixpath.join(root, "beam"), "sdk_container_image": image}
    elif options.environment_type == "DOCKER":
        defaults["environment_config"] = image
    values = defaults | {key: value for key, value in options if value not in (None, (), False)}
    flags = [
        f"--{key}" if each is True else f"--{key}={each}"
        for key, value in values.items()
        for each in (value if isinstance(value, tuple) else (value,))
    ]
    if isinstance(options, DataflowConfig):
        flags.append(_NO_MAIN_SESSION)
    return flags if "sdk_container_image" in values else [*flags, _NO_WHEEL]
