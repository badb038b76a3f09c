"""Settles what killed runs have left in ML Metadata and below the root."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
# All failed executions, with the names of their components.
_FAILED = f"""
    SELECT Execution.id, Context.name FROM Execution JOIN Association ON execution_id = Execution.id
        JOIN Context ON Context.id = context_id JOIN Type ON Type.id = Context.type_id
        WHERE last_known_state = {_STATES.FAILED} AND Type.name = '{_NODE_TYPE}'
"""
_LISTED = 3


def settle(root: Path) -> str | None:
    """Marks executions that never ended as failed and their runs as abandoned, and removes unfinished files.

    These are the outputs of all failed executions (TFX leaves some where it cannot make the folder of
    another), and what TFX has left of any execution's temporary files. No run may be using the root, apart
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
    unended, failed_pushes = (
        [number for (number,) in _read(database, each)] for each in (_UNENDED, _FAILED_PUSHES)
    )
    names = _end(root, unended, failed_pushes) if unended or failed_pushes else []
    for number, node in _read(database, _FAILED):
        for place in list(_folder(root, node).glob(f"*/{number}")):
            shutil.rmtree(place, ignore_errors=True)
    if not names:
        return None
    named = listing.join(list(dict.fromkeys(names)), _LISTED)
    return (
        f"An earlier run was killed in {named}: ML Metadata now has this as failed, and the unfinished files "
        "are removed"
    )


def _end(root: Path, unended: Sequence[int], failed_pushes: Sequence[int]) -> list[str]:
    """Marks executions that never ended as failed, and versions that pushes have not recorded.

    Returns:
      The names of the components whose executions had not ended.
    """
    store = metadata.open_store(root / METADATA_FILE)
    for number in failed_pushes:
        for folder in _folders(root, store.get_contexts_by_execution(number)):
            _mark_unrecorded(store, root, folder)
    names = []
    for execution in store.get_executions_by_id(unended):
        contexts = store.get_contexts_by_execution(execution.id)
        for folder in _folders(root, contexts):
            names.append(folder.name)
            if folder.name == _PUSHER:
                _mark_unrecorded(store, root, folder)
        _note_abandoned(store, contexts)
        # The record comes last: if this process is killed, too, the next one repeats all of it.
        execution.last_known_state = metadata_store_pb2.Execution.FAILED
        store.put_executions([execution])
    return names


def _read(database: Path, query: str) -> list[tuple[Any, ...]]:
    with store_files.connect(database) as connection:
        return connection.execute(query).fetchall()


def _folder(root: Path, node: str) -> Path:
    """Returns the folder of a component, whose context has the name `PIPELINE.COMPONENT`."""
    pipeline, _, name = node.rpartition(".")
    return root / "pipelines" / pipeline / name


def _folders(root: Path, contexts: Iterable[metadata_store_pb2.Context]) -> Iterator[Path]:
    """Yields the folder of the component of an execution."""
    for context in contexts:
        if context.type == _NODE_TYPE:
            yield _folder(root, context.name)


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
