import contextlib
import fcntl
import hashlib
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lineage import differences, facts, graph, lock, mlmd, output, questions, views
from lineage.__main__ import app
from serving import recording
from serving.routing import Routes
from settings.places import LOCK_FILE, METADATA_FILE
from settings.steps import STEPS
from tests.lineage.conftest import FAILED, FIRST, KILLED, LAST, PLANS, WORSE
from tests.lineage.made_store import Plan, Store

REPOSITORY = Path(__file__).resolve().parents[2]


def _checksum(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(f).encode() + f.read_bytes() for f in files)).hexdigest()


def test_runs_have_their_figures_and_true_states(ask, root, ids):
    rows = ask(root, "runs")
    assert [row["run"] for row in rows] == ids
    assert [row["state"] for row in rows] == ["complete", "complete", "failed", "abandoned", "complete"]
    assert [row["accuracy"] for row in rows] == [0.8, 0.7, None, None, 0.95]
    assert [row["blessed"] for row in rows] == [True, False, None, None, True]
    assert [row["data"] for row in rows] == [plan.data for plan in PLANS]
    assert rows[WORSE]["pushed"] is None
    assert int(rows[LAST]["pushed"]) > int(rows[FIRST]["pushed"])


def test_only_the_newest_run_can_be_running(root, ids, tmp_path):
    copied = shutil.copytree(root, tmp_path / "runs")
    store = Store(copied, name="tiny")
    added = store.add(Plan(ends_at="Trainer", ended_by="killed"))
    store.close()
    for in_use, expected in ((False, "abandoned"), (True, "running")):
        read = mlmd.read_file(copied / METADATA_FILE, in_use)
        newest = read.runs[-1]
        assert (newest.id, newest.state) == (added, expected)
        assert newest.execution("Trainer").state == expected
        assert next(run for run in read.runs if run.id == ids[KILLED]).state == "abandoned"


def test_the_lock_of_a_run_is_seen_and_not_taken(tmp_path):
    assert not lock.is_held(tmp_path)
    with lock.exclusive(tmp_path):
        assert lock.is_held(tmp_path)
    assert not lock.is_held(tmp_path)
    with (tmp_path / LOCK_FILE).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("accuracy>0.75", [FIRST, LAST]),
        ("accuracy>0.75 and data=cifar10", [LAST]),
        ("data=cifar10 or state=failed", [FAILED, LAST]),
        ("trainer.epochs<=6", [WORSE, FAILED]),
        ("blessed=no", [WORSE]),
        ("git_commit=f00*", [WORSE]),
        ("accuracy!=0.8 and state=complete", [WORSE, LAST]),
    ],
)
def test_where_selects_runs(ask, root, ids, condition, expected):
    assert [row["run"] for row in ask(root, "runs", "--where", condition)] == [ids[i] for i in expected]


def test_sort_and_last(ask, root, ids):
    rows = ask(root, "runs", "--sort", "-accuracy", "--last", "4")
    assert [row["run"] for row in rows] == [ids[i] for i in (LAST, WORSE, FAILED, KILLED)]


def test_changed_shows_only_what_differs(ask, root):
    rows = ask(root, "runs", "--changed", "--where", "accuracy<0.9")
    assert {"run", "accuracy", "blessed", "trainer.epochs", "git_commit"} <= set(rows[0])
    assert not {"data", "model", "name", "tensorflow", "trainer.optimizer"} & set(rows[0])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["runs", "--where", "acuracy>0.9"], "did you mean accuracy"),
        (["runs", "--where", "epochs>0.9"], "trainer.epochs"),
        (["runs", "--where", "accuracy"], "expected conditions such as"),
        (["show", "2026-01-09"], "no such run"),
        (["show", "2026"], "runs begin so"),
        (["runs", "--where", "accuracy>high"], "high: expected a number"),
        (["runs", "--where", ""], "expected conditions such as"),
        (["runs", "--sort", ""], "there is no such fact"),
        (["show", ""], "'': no such run"),
        (["tree", "/nowhere/1"], "no artifact and no pushed version"),
        (["tree", "#99999"], "has no artifact of this number; the newest is #"),
        (["find", "colour=red"], "there is no such fact"),
    ],
)
def test_wrong_questions_get_a_sentence(ask, root, arguments, expected):
    before = _checksum(root)
    answer = ask(root, *arguments, fails=True)
    assert expected in answer
    assert answer.startswith("error: ") and answer.count("\n") == 1
    assert _checksum(root) == before


def test_an_unknown_run_is_answered_with_near_ones(ask, root, ids):
    mistyped = ids[LAST].replace(":", "-")
    assert ids[LAST] in ask(root, "show", mistyped, fails=True)


def _no_store(folder):
    return None


def _empty_file(folder):
    (folder / METADATA_FILE).touch()


def _text(folder):
    (folder / METADATA_FILE).write_text("not a database " * 1000)


def _without_tables(folder):
    with contextlib.closing(sqlite3.connect(folder / METADATA_FILE)) as connection:
        connection.execute("create table other(x)")


def _newer(folder):
    Store(folder).close()
    with contextlib.closing(sqlite3.connect(folder / METADATA_FILE)) as connection, connection:
        connection.execute("update MLMDEnv set schema_version = 99")


def _no_runs(folder):
    Store(folder).close()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_no_store, "expected a store of ML Metadata, found nothing"),
        (_empty_file, "found an empty file"),
        (_text, "found another kind of file"),
        (_without_tables, "it has no tables of ML Metadata"),
        (_newer, "its schema is newer"),
        (_no_runs, "holds no runs yet"),
    ],
)
def test_stores_that_cannot_be_read(ask, tmp_path, make, expected):
    make(tmp_path)
    before = _checksum(tmp_path)
    for command in (["runs"], ["clean", "--keep", "1", "--yes"]):
        answer = ask(tmp_path, *command, fails=True)
        assert expected in answer
        assert answer.count("\n") == 1
    assert _checksum(tmp_path) == before
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_store_that_another_process_writes(ask, root, tmp_path):
    database = tmp_path / METADATA_FILE
    shutil.copy(root / METADATA_FILE, database)
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "connection.execute('begin exclusive')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, database], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "locked\n"
        assert "another process is writing it" in ask(tmp_path, "runs", fails=True)
        writer.stdin.close()
    assert len(ask(tmp_path, "runs")) == len(PLANS)


@pytest.mark.parametrize("url", ["postgres://h/d", "mysql://h", "runs"])
def test_other_urls_are_refused_without_their_password(url):
    result = CliRunner().invoke(app, ["runs", "--store", url.replace("://", "://me:secret@")])
    assert result.exit_code == 1
    assert "expected mysql://" in result.stderr
    assert "secret" not in result.stderr


def test_a_server_that_does_not_answer(ask):
    result = CliRunner().invoke(app, ["runs", "--store", "mysql://me:secret@127.0.0.1:9/metadb"])
    assert result.exit_code == 1
    assert "secret" not in result.stderr
    assert "there is no server that answers" in result.stderr


def test_show_tells_what_was_cached_and_what_each_setting_came_from(ask, root, ids):
    shown = ask(root, "show", ids[WORSE])
    components = {row["component"]: row for row in shown["components"]}
    assert components["Transform"]["state"] == "cached"
    assert components["Transform"]["cached_from"] == ids[FIRST]
    assert components["Trainer"] == {
        **{"component": "Trainer", "state": "complete", "seconds": 60.0},
        **{"cached_from": None, "code": "c3" * 8},
    }
    settings = {row["key"]: (row["value"], row["origin"]) for row in shown["settings"]}
    assert settings["trainer.epochs"] == (5, "--set")
    assert settings["trainer.optimizer"][1] == "default"
    assert shown["environment"]["git_commit"] == "f00d"
    sizes = {row["type"]: row["bytes"] for row in shown["artifacts"]}
    assert sizes["Model"] > 0


def test_tree_goes_up_to_the_data_and_down_to_the_push(ask, root, ids):
    tree = ask(root, "tree", ids[LAST])
    assert tree["type"] == "Model"
    trainer = tree["made_by"]
    assert (trainer["component"], trainer["run"]) == ("Trainer", ids[LAST])
    assert trainer["settings"]["trainer.epochs"] == {"value": 20, "origin": "--set"}
    assert trainer["code"] == "a1" * 8
    inputs = {each["input"]: each for each in trainer["inputs"]}
    dataset = inputs["examples"]["made_by"]["inputs"][0]
    assert dataset["facts"]["digest"] == hashlib.sha256(b"cifar10").hexdigest()
    assert inputs["transform_graph"]["made_by"]["component"] == "Transform"
    (pushed,) = (each for each in _made_of(tree) if each["type"] == "PushedModel" and "repeated" not in each)
    assert Path(pushed["facts"]["pushed_destination"]).is_dir()


def _made_of(artifact):
    """Yields all artifacts that were made of one."""
    for execution in artifact.get("used_by", ()):
        for made in execution["outputs"]:
            yield made
            yield from _made_of(made)


def _sources(artifact):
    """Yields all artifacts that one was made of."""
    for source in (artifact.get("made_by") or {}).get("inputs", ()):
        yield source
        yield from _sources(source)


@pytest.mark.parametrize("below", ["", "content", "variables/"])
def test_tree_takes_the_place_of_a_pushed_version(ask, root, ids, below):
    place = next(row["place"] for row in ask(root, "serving")["versions"] if row["run"] == ids[FIRST])
    tree = ask(root, "tree", f"{place}/{below}")
    assert tree["type"] == "PushedModel"
    assert {each["type"] for each in tree["made_by"]["inputs"]} == {"ModelBlessing", "InfraBlessing"}
    model = next(each for each in _sources(tree) if each["type"] == "Model")
    assert ask(root, "tree", f"{model['uri']}/Format-Serving")["id"] == model["id"]
    assert ask(root, "tree", f"#{model['id']}")["uri"] == model["uri"]


def test_diff_names_what_changed(ask, root, ids):
    diff = ask(root, "diff", ids[FIRST], ids[WORSE])
    assert diff["settings"] == {"trainer.epochs": {"a": 10, "b": 5}}
    assert diff["data"] == diff["schema"] == {}
    assert diff["code"] == {"Trainer": {"a": "a1" * 8, "b": "c3" * 8}}
    assert diff["modules"] == ["models.training.loop"]
    assert diff["environment"] == {"git_commit": {"a": "8a4155b0c2", "b": "f00d"}}
    assert diff["metrics"]["accuracy"]["change"] == pytest.approx(-0.1)
    assert diff["comparison"] is None and "no report with predictions" in diff["not_compared"]
    other = ask(root, "diff", ids[FIRST], ids[LAST])["data"]
    assert other["name"] == {"a": "shapes", "b": "cifar10"}
    assert set(other) == {"name", "digest"}


def test_find_takes_types_with_and_without_prefix(ask, tmp_path):
    kubeflow = Store(tmp_path, kubeflow=True)
    run = kubeflow.add(Plan(accuracy=0.5))
    kubeflow.close()
    by_type = [ask(tmp_path, "find", f"type={name}")["artifacts"] for name in ("Model", "tfx.Model")]
    assert by_type[0] == by_type[1]
    assert [(each["type"], each["component"], each["run"]) for each in by_type[0]] == [
        ("Model", "Trainer", run)
    ]
    (report,) = ask(tmp_path, "find", "type=ModelReport", "accuracy>0.4")["artifacts"]
    assert report["accuracy"] == 0.5
    assert ask(tmp_path, "find", "accuracy>0.5") == {"runs": [], "artifacts": []}
    assert ask(tmp_path, "runs")[0]["accuracy"] == 0.5


def test_what_steps_on_kubeflow_note_is_read_as_what_the_runner_notes(ask, tmp_path):
    kubeflow = Store(tmp_path, kubeflow=True)
    runs = [kubeflow.add(plan) for plan in (PLANS[FIRST], PLANS[WORSE])]
    kubeflow.close()
    first, worse = ask(tmp_path, "runs")
    assert (first["state"], first["name"], first["accuracy"], worse["blessed"]) == (
        "complete",
        "tiny",
        0.8,
        False,
    )
    shown = ask(tmp_path, "show", runs[1])
    assert shown["environment"] == {
        **{"tensorflow": "2.21.0", "tfx": "1.21.0", "python": "3.13.5"},
        **{"git_commit": "f00d", "git_changes": False},
    }
    assert {row["component"] for row in shown["components"]} == set(STEPS) - {"Tuner"}
    diff = ask(tmp_path, "diff", *runs)
    assert diff["settings"] == {"trainer.epochs": {"a": 10, "b": 5}}
    assert diff["code"] == {"Trainer": {"a": "a1" * 8, "b": "c3" * 8}}
    assert diff["modules"] == ["models.training.loop"]


def test_find_takes_settings_of_the_run_that_made_an_artifact(ask, root, ids):
    found = ask(root, "find", "type=Model", "trainer.epochs<10")["artifacts"]
    assert [(each["run"], each["trainer.epochs"]) for each in found] == [(ids[WORSE], 5), (ids[FAILED], 6)]


def test_serving_tells_which_version_is_served_and_who_replaced_it(ask, root, ids, tmp_path):
    first, last = ask(root, "serving")["versions"]
    assert (first["run"], first["data"], first["accuracy"]) == (ids[FIRST], "shapes", 0.8)
    assert (first["served"], last["served"]) == (False, True)
    assert (first["replaced_by"], first["replaced_at"]) == (last["version"], last["pushed_at"])
    routes = Path(last["place"]).parent / "versions.json"
    routes.write_text(json.dumps({"stable": int(first["version"])}))
    try:
        assert [row["served"] for row in ask(root, "serving")["versions"]] == [True, False]
    finally:
        routes.unlink()


def test_a_version_that_answers_again_has_replaced_the_one_after_it(ask, root, ids, tmp_path):
    copied = shutil.copytree(root, tmp_path / "runs")
    first, last = (int(row["version"]) for row in ask(copied, "serving")["versions"])
    assert (
        recording.record(copied / METADATA_FILE, "tiny", "rollback", "", Routes(first, previous=last)) == []
    )
    routes = root / "serving" / "tiny" / "versions.json"
    routes.write_text(json.dumps({"stable": first, "previous": last}))
    try:
        answer = ask(copied, "serving")
    finally:
        routes.unlink()
    rows = [(row["served"], row["replaced_by"], row["replaced_at"]) for row in answer["versions"]]
    assert rows == [(True, None, None), (False, str(first), answer["changes"][0]["when"])]


def test_serving_tells_what_serving_versions_has_recorded(ask, root, ids, tmp_path):
    copied = shutil.copytree(root, tmp_path / "runs")
    first, last = (int(row["version"]) for row in ask(copied, "serving")["versions"])
    routes = Routes(stable=first, canary=last, percent=10)
    assert recording.record(copied / METADATA_FILE, "tiny", "canary", str(last), routes) == []
    (change,) = ask(copied, "serving")["changes"]
    assert (change["action"], change["version"]) == ("canary", str(last))
    assert (change["stable"], change["canary"], change["percent"]) == (first, last, 10)
    users = ask(copied, "tree", f"{root}/serving/tiny/{last}")["used_by"]
    assert [(each["component"], each["run"]) for each in users] == [("serving.versions", None)]


def test_without_a_terminal_each_fact_is_a_line(root, ids):
    result = CliRunner().invoke(app, ["runs", "--root", str(root)])
    assert f"{ids[LAST]} accuracy\t0.95" in result.stdout.splitlines()
    shown = CliRunner().invoke(app, ["show", "last", "--root", str(root)]).stdout.splitlines()
    assert "components Trainer state\tcomplete" in shown
    assert "settings trainer.epochs value\t20" in shown


def test_a_terminal_gets_tables(root, ids):
    read = mlmd.read_file(root / METADATA_FILE, in_use=False)
    console = Console(record=True, width=200, file=io.StringIO())
    first, worse = (facts.find_run(read, ids[i]) for i in (FIRST, WORSE))
    views.show(console, questions.show(worse))
    views.tree(console, graph.of_artifact(graph.find_artifact(read, ids[WORSE])))
    views.diff(console, differences.between(first, worse))
    views.serving(console, {"versions": questions.serving(read), "changes": []})
    shown = console.export_text()
    for expected in ("cached_from", "trainer.epochs=5 (--set)", "made of", "see above", "Data: the same"):
        assert expected in shown


def test_all_commands_answer_without_tensorflow(root, ids):
    """Runs the commands in one process that has nothing else loaded."""
    commands = [
        *(["runs"], ["show", "last"], ["tree", "last"], ["find", "type=Model"], ["serving"], ["check"]),
        *(["clean", "--keep", "1"], ["diff", ids[FIRST], ids[WORSE]]),
    ]
    code = f"""
import sys
from typer.testing import CliRunner
from lineage.__main__ import app
for command in {commands!r}:
    CliRunner().invoke(app, [*command, "--root", {str(root)!r}])
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"tensorflow", "tfx", "keras"}}))
"""
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


def test_elements_of_one_name_are_told_apart_by_their_numbers(capsys):
    changes = [{"version": "7", "action": "canary"}, {"version": "7", "action": "promote"}]
    output.answer({"changes": changes, "versions": changes[:1]}, False, print)
    assert capsys.readouterr().out.splitlines() == [
        *("changes 0 version\t7", "changes 0 action\tcanary"),
        *("changes 1 version\t7", "changes 1 action\tpromote"),
        *("versions 7 version\t7", "versions 7 action\tcanary"),
    ]
