import contextlib
import re
import sqlite3
import sys

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2
from typer.testing import CliRunner

from serving import recording, routing, versions
from serving.routing import Routes
from tests.serving import samples


def open_store(path, mode=metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE):
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(path)
    connection.sqlite.connection_mode = mode
    return mlmd.MetadataStore(connection)


@pytest.fixture
def runs(tmp_path):
    """A folder of runs with versions 1 to 3 of model m, of which ML Metadata knows the first two."""
    store = open_store(
        tmp_path / "metadata.sqlite", metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    )
    pushed = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="PushedModel"))
    for version in (1, 2, 3):
        samples.pretend(tmp_path / "serving/m" / str(version))
        if version < 3:
            for name in ("m", "other"):
                artifact = metadata_store_pb2.Artifact(type_id=pushed, uri=f"/copies/{name}/{version}")
                place = f"/moved/since/{name}/{version}"
                artifact.custom_properties["pushed_destination"].string_value = place
                artifact.custom_properties["pushed_version"].string_value = str(version)
                store.put_artifacts([artifact])
    # A model that was not blessed has an artifact without these properties.
    store.put_artifacts([metadata_store_pb2.Artifact(type_id=pushed, uri="/copies/m/0")])
    pipeline = store.put_context_type(metadata_store_pb2.ContextType(name="pipeline"))
    store.put_contexts([metadata_store_pb2.Context(type_id=pipeline, name="m")])
    return tmp_path


def run(runs, *arguments):
    result = CliRunner().invoke(versions.app, [*arguments, "--models", str(runs / "serving")])
    assert result.exit_code == 0, result.output
    return result.stderr


def recorded(runs):
    """The executions of the changes, as dictionaries, and the inputs of each: role -> URI."""
    store = open_store(runs / "metadata.sqlite")
    found = []
    for execution in store.get_executions_by_type(recording.TYPE):
        values = {
            name: value.string_value if value.HasField("string_value") else value.int_value
            for name, value in execution.properties.items()
        }
        events = store.get_events_by_execution_ids([execution.id])
        assert {event.type for event in events} <= {metadata_store_pb2.Event.INPUT}
        uris = {a.id: a.uri for a in store.get_artifacts_by_id([event.artifact_id for event in events])}
        found.append((values, {event.path.steps[0].key: uris[event.artifact_id] for event in events}))
    return found


def test_each_change_is_an_execution_with_the_models_that_have_a_role(runs, monkeypatch):
    monkeypatch.setenv("LOGNAME", "anna")
    assert run(runs, "promote", "1") == ""
    assert run(runs, "canary", "2", "--percent", "25") == ""
    said = run(runs, "rollback")
    assert said == f"{runs}/metadata.sqlite has no PushedModel of 3; the record is without it\n"
    (promote, promoted), (canary, tried), (rollback, returned) = recorded(runs)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", promote.pop("time"))
    common = {"model": "m", "user": "anna"}
    assert promote == {**common, "action": "promote", "version": "1", "stable": 1, "previous": 3}
    assert promoted == {"stable": "/copies/m/1"}
    roles = {"stable": 1, "canary": 2, "percent": 25, "previous": 3}
    assert canary.items() >= {**common, "action": "canary", "version": "2", **roles}.items()
    assert tried == {"stable": "/copies/m/1", "canary": "/copies/m/2"}
    assert rollback.items() >= {"action": "rollback", "version": "3", "stable": 3, "previous": 1}.items()
    assert returned == {}
    store = open_store(runs / "metadata.sqlite")
    context = store.get_context_by_type_and_name("pipeline", "m")
    assert len(store.get_executions_by_context(context.id)) == 3


def test_the_newest_version_is_recorded_by_its_number(runs):
    (runs / "serving/m/3/saved_model.pb").unlink()
    run(runs, "promote", "newest")
    run(runs, "shadow", "1")
    run(runs, "shadow", "none")
    (newest, promoted), (shadow, compared), (ended, alone) = recorded(runs)
    assert (newest["version"], newest["stable"]) == ("newest", 2)
    assert promoted == alone == {"stable": "/copies/m/2"}
    assert (shadow["action"], shadow["version"], ended["version"]) == ("shadow", "1", "none")
    assert compared == {"stable": "/copies/m/2", "shadow": "/copies/m/1"}


def test_a_canary_that_is_the_shadow_is_one_input(runs):
    run(runs, "promote", "1")
    run(runs, "canary", "2")
    assert run(runs, "shadow", "2") == ""
    values, inputs = recorded(runs)[-1]
    assert (values["canary"], values["shadow"]) == (2, 2)
    assert inputs == {"stable": "/copies/m/1", "canary": "/copies/m/2"}
    store = open_store(runs / "metadata.sqlite")
    paths = [[step.key for step in event.path.steps] for event in store.get_events_by_artifact_ids([2, 3])]
    assert ["canary", "shadow"] in paths


def test_a_message_has_no_statement_of_the_database(runs):
    with contextlib.closing(sqlite3.connect(runs / "metadata.sqlite")) as connection:
        connection.execute("DROP TABLE Event")
        connection.commit()
    said = run(runs, "promote", "1")
    assert said.startswith(f"It is not recorded in ML Metadata: {runs}/metadata.sqlite: ")
    assert "Event" in said
    assert "SELECT" not in said
    assert "INSERT" not in said


def _foreign(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text TEXT)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "there is no {path}"),
        (lambda path: path.mkdir(), "there is no {path}"),
        (lambda path: path.write_bytes(b""), "{path}: no such table: MLMDEnv"),
        (lambda path: path.write_text("not a database" * 99), "{path}: file is not a database"),
        (_foreign, "{path}: no such table: MLMDEnv"),
    ],
)
def test_a_change_holds_although_it_cannot_be_recorded(runs, tmp_path, make, reason):
    path = tmp_path / "elsewhere.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    said = run(runs, "promote", "1", "--metadata", str(path))
    assert said == f"It is not recorded in ML Metadata: {reason.format(path=path)}\n"
    assert routing.read(runs / "serving/m") == Routes(stable=1, previous=3)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert recorded(runs) == []


def test_the_package_need_not_be_installed(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_metadata", None)
    assert "needs the package ml-metadata" in run(runs, "promote", "1")
    assert routing.read(runs / "serving/m").stable == 1
