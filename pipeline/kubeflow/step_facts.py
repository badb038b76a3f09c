"""What a step on Kubeflow or Vertex notes about the artifacts that it makes; `python -m lineage` reads it.

On this machine the runner around the steps notes it (`pipeline.local.records`). There, only the container of
a step can, and only as properties of its output artifacts: these are all that TFX reports to the back end.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tfx.dsl.io import fileio

from components import metadata
from datasets import checksums
from pipeline import code_digest, environment

# Environment variable of a step's container: JSON, the digest of each module of this project that it runs.
MODULES_VARIABLE = "PIPELINE_STEP_MODULES"


def variables(entry_modules: tuple[str, ...]) -> list[dict[str, str]]:
    """Returns the environment variables of a step's container, in the form of a compiled pipeline.

    They change only with the step's code, so that the back end's cache, which compares them on Vertex, misses
    no more often.

    Args:
      entry_modules: the modules of this project that TFX loads for the step.
    """
    modules = code_digest.of_modules(*entry_modules)
    return [{"name": MODULES_VARIABLE, "value": json.dumps(modules)}]


def note(output_file: str, seconds: float) -> None:
    """Adds what is known of a step to the properties of its output artifacts.

    These are `seconds`, the environment as in `pipeline.environment.describe`, `modules` (JSON: module ->
    digest), and of files on this machine `files`, `bytes` and `sha256` as in `datasets.checksums`. Artifacts
    in a bucket have none of the last three: the step would have to read all that it has written.

    Args:
      output_file: path or URI of the ExecutorOutput that the step has written, as JSON.
      seconds: duration of the step.
    """
    with fileio.open(output_file) as file:
        reported = json.loads(file.read())
    facts = {metadata.SECONDS: round(seconds, 3), **environment.describe()}
    if modules := os.environ.get(MODULES_VARIABLE):
        facts["modules"] = modules
    for listed in reported.get("artifacts", {}).values():
        for artifact in listed["artifacts"]:
            artifact["metadata"] = {
                **artifact.get("metadata", {}),
                **facts,
                **_describe_files(artifact["uri"]),
            }
    with fileio.open(output_file, "w") as file:
        file.write(json.dumps(reported))


def _describe_files(uri: str) -> dict[str, Any]:
    if "://" in uri:
        return {}
    checksum = checksums.of_folder(Path(uri))
    return {"files": checksum.files, "bytes": checksum.size, "sha256": checksum.sha256}
