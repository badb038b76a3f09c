"""Records changes of the versions that answer in ML Metadata, beside the runs that made these versions.

A change is an execution of type `serving.versions`, whose inputs are the `PushedModel` artifacts of the
versions that have a role after it. A store is never created: a machine that only serves has none.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import os
import re
import sqlite3
from pathlib import Path, PurePosixPath
from typing import Any

from serving.routing import Routes

TYPE = "serving.versions"
# Name of the store in the folder of all runs, which holds the folder of the pushed models.
STORE = "metadata.sqlite"
# Custom properties of a `PushedModel`, as the Pusher writes them.
_PLACE, _VERSION = "pushed_destination", "pushed_version"
# The end of ML Metadata's messages, which only says how it asks its database.
_STATEMENT = re.compile(r"\W*query: (SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|BEGIN|COMMIT)\b.*")


class RecordingError(RuntimeError):
    """A change that cannot be recorded; the message names the store and the reason."""


def record(store: Path, model: str, action: str, version: str, routes: Routes) -> list[int]:
    """Records a change.

    Args:
      store: SQLite file of ML Metadata.
      model: name of the model.
      action: `promote`, `rollback`, `canary` or `shadow`.
      version: what the command named: a number, `newest` or `none`.
      routes: the roles of the versions after the change.

    Returns:
      The versions with a role that are not in the store, because they were pushed elsewhere.

    Raises:
      RecordingError: there is no store, or it cannot be read or written.
    """
    if not store.is_file():
        raise RecordingError(f"there is no {store}")
    try:
        _check_is_store(store)
        return _record(store, model, action, version, routes)
    except ImportError:
        raise RecordingError(f"{store} needs the package ml-metadata, which is not installed") from None
    except Exception as error:  # ML Metadata raises RuntimeError and exceptions of its own
        reason = _STATEMENT.sub("", " ".join(str(error).split()))
        raise RecordingError(f"{store}: {reason or type(error).__name__}") from error


def _check_is_store(store: Path) -> None:
    """Raises an error for files that are no store, in which ML Metadata would create its tables."""
    with contextlib.closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("SELECT schema_version FROM MLMDEnv")


def _record(store: Path, model: str, action: str, version: str, routes: Routes) -> list[int]:
    # A machine without a store does not need the package.
    import ml_metadata as mlmd  # noqa: PLC0415
    from ml_metadata.proto import metadata_store_pb2 as proto  # noqa: PLC0415

    connection = proto.ConnectionConfig()
    connection.sqlite.filename_uri = str(store)
    connection.sqlite.connection_mode = proto.SqliteMetadataSourceConfig.READWRITE
    metadata = mlmd.MetadataStore(connection)

    texts = {
        "model": model,
        "action": action,
        "version": version,
        "user": _user(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    roles = {"stable": routes.stable, "canary": routes.canary, "shadow": routes.shadow}
    numbers = {**roles, "percent": routes.percent if routes.canary else None, "previous": routes.previous}
    execution_type = proto.ExecutionType(name=TYPE)
    execution_type.properties.update(dict.fromkeys(texts, proto.STRING) | dict.fromkeys(numbers, proto.INT))
    execution = proto.Execution(
        type_id=metadata.put_execution_type(execution_type), last_known_state=proto.Execution.COMPLETE
    )
    for name, text in texts.items():
        execution.properties[name].string_value = text
    for name, number in numbers.items():
        if number is not None:
            execution.properties[name].int_value = number

    # ML Metadata takes one event per artifact, and a canary may be the shadow, too.
    roles_of: dict[int, list[str]] = {}
    for role, number in roles.items():
        if number:
            roles_of.setdefault(number, []).append(role)
    pushed = _pushed(metadata, model)
    missing = [number for number in roles_of if number not in pushed]
    inputs = []
    for number in roles_of.keys() & pushed.keys():
        event = proto.Event(artifact_id=pushed[number].id, type=proto.Event.INPUT)
        for role in roles_of[number]:
            event.path.steps.add().key = role
        inputs.append((pushed[number], event))
    context = metadata.get_context_by_type_and_name("pipeline", model)
    metadata.put_execution(execution, inputs, [context] if context else [])
    return missing


def _pushed(metadata: Any, model: str) -> dict[int, Any]:
    """Returns the `PushedModel` artifacts of a model by version."""
    found = {}
    for artifact in metadata.get_artifacts_by_type("PushedModel"):
        properties = artifact.custom_properties
        place = PurePosixPath(properties[_PLACE].string_value if _PLACE in properties else "")
        version = properties[_VERSION].string_value if _VERSION in properties else ""
        # The folder of the models may have been moved since.
        if version.isdecimal() and place.parts[-2:] == (model, version):
            found[int(version)] = artifact
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers often run under a number that has no name
        return str(os.getuid())
