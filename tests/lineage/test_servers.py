"""The commands on stores of servers: MySQL, and ML Metadata over gRPC."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb
from typer.testing import CliRunner

from lineage.__main__ import app
from settings.places import METADATA_FILE
from tests import web_api
from tests.lineage import metadata_server
from tests.lineage.conftest import FIRST, LAST, PLANS, WORSE
from tests.lineage.made_store import Store

_START_SECONDS = 60


def _ask(url, *arguments):
    """Runs a command, and returns its answer, decoded from JSON."""
    result = CliRunner().invoke(app, [*arguments, "--store", url, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def served(root):
    with metadata_server.serve(root / METADATA_FILE) as url:
        yield url


@pytest.mark.parametrize("command", ["runs", "show", "tree", "diff", "find", "serving"])
def test_a_server_of_ml_metadata_gives_the_answers_of_its_file(ask, root, ids, served, command):
    arguments = {
        "show": ["last"],
        "tree": [ids[LAST]],
        "diff": [ids[FIRST], ids[WORSE]],
        "find": ["type=Model"],
    }
    asked = [command, *arguments.get(command, [])]
    expected = ask(root, *asked)
    found = _ask(served, *asked)
    if command in ("runs", "show"):
        # Nothing tells whether a run of a server still goes on.
        states = {"abandoned": "unconfirmed"}
        rows = expected if command == "runs" else [expected]
        rows = [{**row, "state": states.get(row["state"], row["state"])} for row in rows]
        expected = rows if command == "runs" else rows[0]
    assert found == expected


def test_a_server_of_something_else_is_a_sentence(tmp_path):
    with web_api.serve(lambda request: (200, "hello")) as other:
        result = CliRunner().invoke(app, ["runs", "--store", other.url.replace("http:", "grpc:")])
    assert result.exit_code == 1
    assert "something else than a server of ML Metadata answers" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def mysql(tmp_path_factory):
    """The port of a server of MariaDB with databases, an account that writes, and one that only reads."""
    if not (shutil.which("mariadbd") and shutil.which("mariadb-install-db")):
        pytest.skip("MariaDB's server is not installed (Debian's package mariadb-server)")
    with _serve_mysql(tmp_path_factory.mktemp("mysql")) as port:
        yield port


@contextlib.contextmanager
def _serve_mysql(folder):
    # As root, it would change to another user, to whom pytest's folders are closed.
    user = ["--user=root"] if os.geteuid() == 0 else []
    options = ["--no-defaults", f"--datadir={folder}/data", *user]
    setup = ["mariadb-install-db", *options, "--auth-root-authentication-method=normal"]
    subprocess.run(setup, check=True, capture_output=True)
    statements = folder / "init.sql"
    statements.write_text(
        "create database mlmd;\n"
        "create database empty;\n"
        "create user writer identified by 'w';\n"
        "create user reader identified by 'r';\n"
        "grant all on *.* to writer;\n"
        "grant select on *.* to reader;\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    network = [
        "--bind-address=127.0.0.1",
        f"--port={port}",
        f"--socket={folder}/socket",
        "--skip-name-resolve",
    ]
    command = ["mariadbd", *options, *network, f"--init-file={statements}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            _wait(port, server, folder / "log")
            yield port
        finally:
            server.terminate()


def _wait(port, server, log):
    deadline = time.monotonic() + _START_SECONDS
    while True:
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)


@pytest.fixture(scope="module")
def database(mysql, tmp_path_factory):
    """The URL of a MySQL database with runs, for an account that only reads."""
    config = pb.ConnectionConfig()
    config.mysql.host, config.mysql.port, config.mysql.database = "127.0.0.1", mysql, "mlmd"
    config.mysql.user, config.mysql.password = "writer", "w"
    store = Store(tmp_path_factory.mktemp("made"), name="tiny", server=config)
    for index in (FIRST, WORSE):
        store.add(PLANS[index])
    store.close()
    return f"mysql://reader@localhost:{mysql}/mlmd"


def test_the_commands_read_a_mysql_database(database, ids, monkeypatch):
    monkeypatch.setenv("MYSQL_PWD", "r")
    rows = _ask(database, "runs")
    assert [(row["run"], row["state"], row["accuracy"]) for row in rows] == [
        (ids[FIRST], "complete", 0.8),
        (ids[WORSE], "complete", 0.7),
    ]
    assert _ask(database, "diff", ids[FIRST], ids[WORSE])["modules"] == ["models.training.loop"]
    assert _ask(database, "tree", ids[FIRST])["type"] == "Model"
    assert _ask(database, "show", "last")["environment"]["git_commit"] == "f00d"
    assert len(_ask(database, "find", "type=Model")["artifacts"]) == 2
    (version,) = _ask(database, "serving")["versions"]
    assert (version["run"], version["served"]) == (ids[FIRST], False)


@pytest.mark.parametrize(
    ("account", "name", "expected"),
    [
        ("reader:wrong", "mlmd", "the server refused the user or the password"),
        ("reader:r", "other", "no such database"),
        ("reader:r", "empty", "it has no tables of ML Metadata"),
    ],
)
def test_a_mysql_database_that_cannot_be_read_is_a_sentence(mysql, capfd, account, name, expected):
    result = CliRunner().invoke(app, ["runs", "--store", f"mysql://{account}@127.0.0.1:{mysql}/{name}"])
    assert result.exit_code == 1
    assert expected in result.stderr
    assert ":r@" not in result.stderr and "wrong" not in result.stderr.partition("cannot be read")[0]
    assert result.stderr.count("\n") == 1
    assert capfd.readouterr().err == ""  # ML Metadata's own log
