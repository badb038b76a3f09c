"""Notes in ML Metadata what people ask about a run later: `python -m lineage` reads it.

All of it is custom properties, which other tools show, too: of the run's context its settings, environment,
code and outcome; of each execution its duration; of each artifact the size and checksum of its files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_metadata as mlmd
from tfx.orchestration import metadata as tfx_metadata
from tfx.orchestration.portable.mlmd import context_lib
from tfx.proto.orchestration import pipeline_pb2

from components import metadata
from components.artifacts import DatasetDirectory
from datasets import checksums
from pipeline import code_digest, environment
from settings.pipeline import PipelineConfig

_RUN_TYPE = "pipeline_run"  # TFX's type of the contexts of runs
# Metrics of the summary that are also properties of their own.
_FIGURES = ("accuracy", "f1_macro", "corrupted_accuracy")


def describe(
    config: PipelineConfig, data: str, entry_modules: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Describes a run that is about to begin.

    Args:
      config: the settings.
      data: name of the dataset.
      entry_modules: step -> the modules of this project that TFX loads for it.

    Returns:
      Name -> value of properties: `settings` (JSON, a list of `key`, `value` and `origin`), `data`, `model`
      (architecture), the environment as in `pipeline.environment.describe`, and `code`: JSON with the digest
      of each step's code under `steps`, of each module under `modules`.
    """
    steps = {step: code_digest.digest(*modules) for step, modules in entry_modules.items()}
    modules = code_digest.of_modules(*(name for names in entry_modules.values() for name in names))
    return {
        "settings": json.dumps(config.describe()),
        "data": data,
        "model": config.model.architecture,
        **environment.describe(),
        "code": json.dumps({"steps": steps, "modules": modules}),
    }


def begin(
    handle: tfx_metadata.Metadata, contexts: pipeline_pb2.NodeContexts, described: Mapping[str, Any]
) -> None:
    """Creates the context of a run, as its first component would do, and describes it.

    Args:
      handle: an open connection to ML Metadata.
      contexts: contexts of the first component.
      described: from `describe`.
    """
    created = context_lib.prepare_contexts(handle, contexts)
    kind = handle.store.get_context_type(_RUN_TYPE).id
    (run,) = (context for context in created if context.type_id == kind)
    _set(run, described)
    handle.store.put_contexts([run])


def end(store: mlmd.MetadataStore, summary: Mapping[str, Any]) -> None:
    """Notes how a run has ended: `state`, `seconds`, its metrics, and the whole `summary` as JSON.

    Args:
      store: metadata store.
      summary: the summary of the run, see `pipeline.local.summary`.
    """
    context = store.get_context_by_type_and_name(_RUN_TYPE, summary["run"])
    if context is None:
        return  # The run ended before it began.
    error = summary["error"]
    state = "complete" if error is None else "interrupted" if error["interrupted"] else "failed"
    figures = {name: value for name, value in (summary["test"] or {}).items() if name in _FIGURES}
    noted = {"state": state, "seconds": summary["seconds"], "blessed": int(summary["blessed"]), **figures}
    _set(context, {**noted, "summary": json.dumps(summary)})
    store.put_contexts([context])


def note_execution(store: mlmd.MetadataStore, execution_id: int, seconds: float, made: bool) -> None:
    """Records what is known of an execution that has just ended.

    Args:
      store: metadata store.
      execution_id: id of the execution.
      seconds: its duration.
      made: whether it made its outputs; one from the cache took those of another. Each artifact that it made
        gets `seconds`, and `files`, `bytes` and `sha256` as in `datasets.checksums`. The files of a dataset
        directory are not read again, since its digest is known.
    """
    (execution,) = store.get_executions_by_id([execution_id])
    _set(execution, {metadata.SECONDS: seconds})
    store.put_executions([execution])
    produced = metadata.produced(store, execution_id) if made else []
    for artifact in produced:
        _set(artifact, {metadata.SECONDS: seconds})
        if artifact.type != DatasetDirectory.TYPE_NAME:
            checksum = checksums.of_folder(Path(artifact.uri))
            _set(artifact, {"files": checksum.files, "bytes": checksum.size, "sha256": checksum.sha256})
    store.put_artifacts(produced)


def _set(record: Any, properties: Mapping[str, Any]) -> None:
    kinds = {bool: "int_value", int: "int_value", float: "double_value", str: "string_value"}
    for name, value in properties.items():
        if value is not None:
            setattr(record.custom_properties[name], kinds[type(value)], value)
