"""Settles what killed runs have left in ML Metadata and below the root."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from components import metadata
from datasets import listing
from lineage import model
from pipeline.local import store as store_files
from settings.places import METADATA_FILE, serving_directory, unrecorded_mark

_NODE_TYPE, _RUN_TYPE = "node", "pipeline_run"  # TFX's types of contexts
_STATE = "state"  # custom property of a run's context, see `pipeline.local.records`
# TFX's folder of a component for what executions need while they run; it leaves most of that there.
_SYSTEM = ".system"
_DESTINATION = "pushed_destination"  # custom property of a pushed model
_PUSHER = "Pusher"
# ML Metadata of TFX 1.21 has no queries by state, and would read the thousands of executions of all runs.
_STATES = metadata_store_pb2.Execution
_UNENDED = f"SELECT id FROM Execution WHERE last_known_state IN ({_STATES.NEW}, {_STATES.RUNNING})"
# Of each pipeline the last execution of its Pusher, if that has failed: perhaps after its push.
_FAILED_PUSHES = f"""
    SELECT Execution.id FROM Execution WHERE last_known_state = {_STATES.FAILED} AND Execution.id IN (
        SELECT MAX(execution_id) FROM Association JOIN Context ON Context.id = context_id
        JOIN Type ON Type.id = Context.type_id
        WHERE Type.name = '{_NODE_TYPE}' AND Context.name LIKE '%.{_PUSHER}' GROUP BY Context.id)
"""
_LISTED = 3


def settle(root: Path) -> str | None:
    """Marks executions that never ended as failed and their runs as abandoned, and removes their files.

    What TFX has left of any execution's temporary files is removed, too. No run may be using the root, apart
    from the caller, whose components have all ended or been interrupted.

    Args:
      root: folder of the runs, with a metadata store.

    Returns:
      A sentence that names the components whose executions had not ended; None if there are none.

    Raises:
      sqlite3.Error, ml_metadata.errors.StatusError: the store cannot be read or written.
    """
    for place in root.glob(f"pipelines/*/*/{_SYSTEM}"):
        shutil.rmtree(place, ignore_errors=True)
    database = root / METADATA_FILE
    unended, failed_pushes = _read(database, _UNENDED), _read(database, _FAILED_PUSHES)
    if not unended and not failed_pushes:
        return None
    store = metadata.open_store(database)
    for number in failed_pushes:
        for folder in _folders(root, store.get_contexts_by_execution(number)):
            _mark_unrecorded(store, root, folder)
    if not unended:
        return None
    names = []
    for execution in store.get_executions_by_id(unended):
        contexts = store.get_contexts_by_execution(execution.id)
        for folder in _folders(root, contexts):
            names.append(folder.name)
            if folder.name == _PUSHER:
                _mark_unrecorded(store, root, folder)
            for place in list(folder.glob(f"*/{execution.id}")):
                shutil.rmtree(place, ignore_errors=True)
        _note_abandoned(store, contexts)
        # The record comes last: if this process is killed, too, the next one repeats all of it.
        execution.last_known_state = metadata_store_pb2.Execution.FAILED
        store.put_executions([execution])
    named = listing.join(list(dict.fromkeys(names)), _LISTED)
    return (
        f"An earlier run was killed in {named}: ML Metadata now has this as failed, and the unfinished files "
        "are removed"
    )


def _read(database: Path, query: str) -> list[int]:
    """Returns the ids of the executions that a query finds."""
    with store_files.connect(database) as connection:
        return [number for (number,) in connection.execute(query)]


def _folders(root: Path, contexts: Iterable[metadata_store_pb2.Context]) -> Iterator[Path]:
    """Yields the folder of the component of an execution."""
    for context in contexts:
        if context.type == _NODE_TYPE:
            pipeline, _, node = context.name.rpartition(".")
            yield root / "pipelines" / pipeline / node


def _mark_unrecorded(store: mlmd.MetadataStore, root: Path, pusher: Path) -> None:
    """Marks the newest version if a push ended early after it, so that the next push need not repeat it.

    Args:
      store: metadata store.
      root: folder of the runs.
      pusher: folder of the Pusher's outputs.
    """
    folder = Path(serving_directory(str(root), pusher.parent.name))
    pushed = store.get_artifacts_by_type(model.PUSHED)
    recorded = {each.custom_properties[_DESTINATION].string_value for each in pushed}
    versions = [each.name for each in folder.glob("*") if each.name.isdecimal()]
    newest = max(versions, key=int, default=None)
    if newest and str(folder / newest) not in recorded:
        (folder / unrecorded_mark(newest)).touch()


def _note_abandoned(store: mlmd.MetadataStore, contexts: Iterable[metadata_store_pb2.Context]) -> None:
    runs = [each for each in contexts if each.type == _RUN_TYPE and _STATE not in each.custom_properties]
    for run in runs:
        run.custom_properties[_STATE].string_value = model.ABANDONED
    store.put_contexts(runs)
