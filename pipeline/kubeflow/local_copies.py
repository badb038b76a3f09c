"""Where a step on open-source Kubeflow finds its artifacts: at local copies of what is in the store.

Before a step starts, Kubeflow's launcher downloads its input artifacts to local paths, and afterwards it
uploads its output artifacts from there (`LocalPathForURI` in kubeflow/pipelines,
backend/src/v2/component/launcher_v2.go). A step that uses these paths instead of the artifacts' URIs needs no
credentials and no library for the store, whatever store it is.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import artifacts
from settings.places import LOCAL_COPIES

# First argument of the entry point of a step that uses local copies.
FLAG = LOCAL_COPIES
# Scheme of a URI -> the root of the local copies.
_ROOTS = {"gs": "/gcs", "minio": "/minio", "s3": "/s3"}
# Folder that stands for `/` in tests, which cannot write to the root of a file system.
PREFIX_VARIABLE = "KUBEFLOW_LOCAL_COPIES"


def local_path(uri: str) -> str:
    """Returns the path at which the launcher puts the copy of an artifact.

    Args:
      uri: URI of the artifact.

    Raises:
      ValueError: the launcher does not copy artifacts with such a URI.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in _ROOTS:
        raise ValueError(
            f"{uri}: expected a URI of a store that Kubeflow copies artifacts from: "
            f"{', '.join(f'{known}://' for known in _ROOTS)}. Compile the pipeline with such a root"
        )
    return posixpath.join(os.environ.get(PREFIX_VARIABLE, "") + _ROOTS[scheme], rest)


def use(executor_input: dict[str, Any]) -> dict[str, str]:
    """Replaces the URIs of a step's artifacts by the paths of their local copies, and creates the outputs.

    The launcher creates only the parent of an output's folder. Inputs keep their URI as the custom property
    `artifacts.STORE_URI`, so that a step can name them.

    Args:
      executor_input: an ExecutorInput as a JSON object; changed in place.

    Returns:
      Path of each local copy -> URI.
    """
    uris: dict[str, str] = {}
    for side in ("inputs", "outputs"):
        for listed in executor_input.get(side, {}).get("artifacts", {}).values():
            for artifact in listed.get("artifacts", []):
                path = local_path(artifact["uri"])
                uris[path] = artifact["uri"]
                artifact["uri"] = path
                if side == "outputs":
                    Path(path).mkdir(parents=True, exist_ok=True)
                else:
                    artifact.setdefault("metadata", {})[artifacts.STORE_URI] = uris[path]
    return uris


def restore(output_file: Path, uris: Mapping[str, str]) -> None:
    """Writes URIs again where a step has reported the paths of local copies.

    Args:
      output_file: the ExecutorOutput that the step wrote, as JSON.
      uris: path of each local copy -> URI.
    """
    reported = json.loads(output_file.read_text(encoding="utf-8"))
    output_file.write_text(json.dumps(_with_uris(reported, uris)), encoding="utf-8")


def _with_uris(value: Any, uris: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _with_uris(item, uris) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_uris(item, uris) for item in value]
    if isinstance(value, str):
        for path, uri in uris.items():
            if value == path or value.startswith(f"{path}/"):
                return uri + value[len(path) :]
    return value
