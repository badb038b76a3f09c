import contextlib
import fcntl
import hashlib
import io
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import ml_metadata
import pytest
from ml_metadata.proto import metadata_store_pb2 as pb
from rich.console import Console
from typer.testing import CliRunner

from lineage import differences, facts, graph, lock, mlmd, model, output, questions, views
from lineage.__main__ import app
from lineage.model import Run
from pipeline.local import abandoned
from serving import recording
from serving.routing import Routes
from settings.pipeline import PipelineConfig
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
        ("corrupted_accuracy>0.45", [FIRST, LAST]),
        ("accuracy>0.75 and data=cifar10", [LAST]),
        ("data=cifar10 or state=failed", [FAILED, LAST]),
        ("trainer.epochs<=6", [WORSE, FAILED]),
        ("blessed=no", [WORSE]),
        ("git_commit=f00*", [WORSE]),
        ("accuracy!=0.8 and state=complete", [WORSE, LAST]),
        ("pushed!=-", [FIRST, LAST]),
        ("pushed=- and accuracy!=none", [WORSE]),
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
        (["runs", "--where", ""], "error: '': expected conditions such as"),
        (["runs", "--where", "colour=red"], "fact of a run; there are run, when, "),
        (["runs", "--sort", ""], "there is no such fact"),
        (["show", ""], "'': no such run"),
        (["tree", "/nowhere/1"], "no artifact and no pushed version"),
        (["tree", "#99999"], "has no artifact of this number; the newest is #"),
        (["find", "colour=red"], "there is no such fact of a run or an artifact"),
        (["show", "foo"], "no such run in {store}; the newest is {last}"),
        (["show", "lats"], "did you mean last?"),
        (["show", "2026-01-03T14"], "did you mean 2026-01-0"),
        (["tree", "last", "--html", "pyproject.toml/x"], "error: pyproject.toml/x: Not a directory"),
    ],
)
def test_wrong_questions_get_a_sentence(ask, root, ids, arguments, expected):
    before = _checksum(root)
    answer = ask(root, *arguments, fails=True)
    assert expected.format(store=root / METADATA_FILE, last=ids[LAST]) in answer
    assert answer.startswith("error: ") and answer.count("\n") == 1
    assert _checksum(root) == before


def test_an_unknown_run_is_answered_with_near_ones(ask, root, ids):
    mistyped = ids[LAST].replace(":", "-")
    assert ids[LAST] in ask(root, "show", mistyped, fails=True)


def _no_store(folder):
    return None


def _folder(folder):
    (folder / METADATA_FILE).mkdir()


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
        (_folder, "found something that is not a file"),
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
    for name in ("accuracy", "corrupted_accuracy"):
        assert diff["metrics"][name]["change"] == pytest.approx(-0.1)
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
    routes = Routes(stable=first, canary=last, percent=10, shadow=last)
    assert recording.record(copied / METADATA_FILE, "tiny", "canary", str(last), routes) == []
    (change,) = ask(copied, "serving")["changes"]
    assert (change["action"], change["version"]) == ("canary", str(last))
    assert (change["stable"], change["canary"], change["percent"]) == (first, last, 10)
    users = ask(copied, "tree", f"{root}/serving/tiny/{last}")["used_by"]
    assert [(each["component"], each["run"], each["as"]) for each in users] == [
        ("serving.versions", None, "canary, shadow")
    ]


def test_without_a_terminal_each_fact_is_a_line(ask, root, ids):
    result = CliRunner().invoke(app, ["runs", "--root", str(root)])
    assert f"{ids[LAST]}.accuracy\t0.95" in result.stdout.splitlines()
    shown = CliRunner().invoke(app, ["show", "last", "--root", str(root)]).stdout.splitlines()
    assert "components.Trainer.state\tcomplete" in shown
    assert "settings.trainer.epochs.value\t20" in shown
    assert {"notes\tnone", "hyperparameters\tnone", "trials\tnone"} <= set(shown)
    found = CliRunner().invoke(app, ["find", "type=Model", "--root", str(root)]).stdout.splitlines()
    models = ask(root, "find", "type=Model")["artifacts"]
    assert {f"artifacts.{row['id']}.component\tTrainer" for row in models} <= set(found)


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


def test_a_path_does_not_change_when_an_element_of_the_same_name_is_added(capsys):
    changes = [{"version": "7", "action": "canary"}, {"version": "7", "action": "promote"}]
    output.answer({"changes": changes, "versions": changes[:1]}, False, print)
    assert capsys.readouterr().out.splitlines() == [
        *("changes.7.action\tcanary", "changes.7.2.action\tpromote", "versions.7.action\tcanary"),
    ]


def test_each_setting_has_two_lines_and_a_list_of_numbers_one(root):
    plain = _invoke(root, "show", "last").stdout.splitlines()
    lines = {path: each for path, _, each in (line.partition("\t") for line in plain)}
    assert {path for path in lines if path.startswith("settings.trainer.epochs.")} == {
        *("settings.trainer.epochs.value", "settings.trainer.epochs.origin"),
    }
    assert lines["settings.model.background.value"] == "[255, 255, 255]"


def test_without_a_terminal_parts_that_are_the_same_say_so(root, ids):
    lines = _invoke(root, "diff", ids[FIRST], ids[WORSE]).stdout.splitlines()
    assert {"data\tsame", "schema\tsame"} <= set(lines)
    assert not any(line.endswith("\tnone") for line in lines)


def _on_terminal(view, answer, width, short=None):
    """Returns the lines that a terminal shows of an answer."""
    console = Console(record=True, width=width, file=io.StringIO())
    view(console, output.shortened(answer, short or {}))
    return console.export_text().splitlines()


def test_a_narrow_terminal_gets_short_ids_and_digests_and_no_broken_columns(root, ids):
    read = mlmd.read_file(root / METADATA_FILE, in_use=False)
    short = facts.short_ids(read)
    assert list(short.values()) == [name[:13] for name in ids]
    assert [facts.find_run(read, each).id for each in short.values()] == ids
    rows = questions.list_runs(read, None, None, None, changed=False)
    wide, narrow = (_on_terminal(views.runs, rows, width, short) for width in (200, 80))
    when, pushed = output.word(rows[LAST]["when"]), rows[LAST]["pushed"]
    cells = f"{short[ids[LAST]]} {when} tiny cifar10 cnn complete 0.95 0.94 yes - {pushed} 85"
    assert wide[-1].split() == cells.split()
    assert len(narrow) == 1 + len(ids) + 1
    assert narrow[len(ids)].split()[:3] == [short[ids[LAST]], "cifar10", "complete"]
    assert narrow[-1].startswith("no room for when, name, ")
    # More columns than have room: one run below the other.
    changed = questions.list_runs(read, None, None, None, changed=True)
    below = [line.split() for line in _on_terminal(views.runs, changed, 80, short)]
    digest = next(row["data_digest"] for row in changed)
    assert ["run", short[ids[LAST]]] in below and ["data_digest", digest[:12]] in below


def test_a_store_of_one_run_shortens_its_id_at_a_boundary():
    run = Run("1b4e28ba-2fa1-11d2-883f-0016d3cca427", "", 0, {})
    assert facts.short_ids(model.Store("", [run], [], [])) == {run.id: "1b4e28ba"}


def _invoke(root, *arguments):
    return CliRunner().invoke(app, [*arguments, "--root", str(root)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["find", "type=Modl"], "matches type=Modl; did you mean type=Model"),
        (["find", "type=Model", "accuracy>2"], "matches type=Model and accuracy>2\n"),
        (["runs", "--where", "data=cifar"], "matches data=cifar; did you mean data=cifar10?"),
        (["check", "last"], "everything is as it was"),
        (["clean", "--keep", "5"], "there is nothing to take away"),
    ],
)
def test_an_empty_answer_says_so_on_stderr(root, arguments, expected):
    for flags in ([], ["--json"]):
        result = _invoke(root, *arguments, *flags)
        assert result.exit_code == 0
        assert expected in result.stderr
        assert result.stderr.count("\n") == 1


def test_an_option_without_its_value_is_answered_with_the_usage():
    result = CliRunner().invoke(app, ["show", "last", "--root"])
    assert result.exit_code == 2
    assert "Usage: " in result.stderr and "--root' requires an argument" in " ".join(result.stderr.split())


def test_a_store_without_a_pushed_model_says_so(tmp_path):
    store = Store(tmp_path)
    store.add(PLANS[FAILED])
    store.close()
    result = _invoke(tmp_path, "serving")
    assert result.stdout.splitlines() == ["versions\tnone", "changes\tnone"]
    assert "has no pushed model" in result.stderr


def test_tree_names_the_model_that_a_step_compares_with(ask, root, ids):
    first = ask(root, "tree", ids[FIRST])
    uses = {(each["component"], each["run"], each["as"]) for each in first["used_by"]}
    assert {
        ("Evaluator", ids[FIRST], "model"),
        ("Evaluator", ids[WORSE], "baseline_model"),
        ("ModelReport", ids[WORSE], "baseline"),
    } <= uses
    shown = "\n".join(_on_terminal(views.tree, first, 200))
    assert f"Evaluator as baseline_model in run {ids[WORSE]}" in shown
    (report,) = ask(root, "find", "type=ModelReport", f"run={ids[WORSE]}")["artifacts"]
    other = _on_terminal(views.tree, ask(root, "tree", report["id"]), 200)
    assert any(f"baseline: Model #{first['id']}" in line for line in other)


def test_a_model_that_servingcheck_refuses_is_not_blessed_and_not_pushed(ask, tmp_path):
    store = Store(tmp_path)
    runs = [
        store.add(Plan(settings={"trainer.epochs": 1}, accuracy=0.9, served=False)),
        store.add(Plan(settings={"trainer.epochs": 2}, accuracy=0.9, served=False, blessed=False)),
    ]
    store.close()
    rows = ask(tmp_path, "runs")
    assert [(row["blessed"], row["refused_by"], row["pushed"]) for row in rows] == [
        (False, "ServingCheck", None),
        (False, "Evaluator, ServingCheck", None),
    ]
    assert len(ask(tmp_path, "runs", "--where", "refused_by=ServingCheck")) == 1
    notes = {row["type"]: row["note"] for row in ask(tmp_path, "show", runs[0])["artifacts"]}
    assert (notes["PushedModel"], notes["InfraBlessing"], notes["ModelBlessing"]) == (
        *("not pushed", "not blessed"),
        None,
    )
    (found, _) = ask(tmp_path, "find", "type=PushedModel", "pushed=no")["artifacts"]
    assert (found["pushed"], found["note"]) == (False, "not pushed")
    tree = ask(tmp_path, "tree", runs[0])
    assert any("  not pushed" in line for line in _on_terminal(views.tree, tree, 200))
    assert ask(tmp_path, "diff", *runs)["outcome"]["refused_by"] == {
        "a": "ServingCheck",
        "b": "Evaluator, ServingCheck",
    }


def test_the_seconds_of_a_killed_run_are_unknown_before_and_after_the_next_run(ask, root, ids, tmp_path):
    copied = shutil.copytree(root, tmp_path / "runs")

    def seconds():
        shown = ask(copied, "show", ids[KILLED])
        trainer = next(each for each in shown["components"] if each["component"] == "Trainer")
        return shown["state"], shown["seconds"], trainer["seconds"]

    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(copied / METADATA_FILE)
    store = ml_metadata.MetadataStore(config)
    # A killed run has not noted how long the component took.
    number = mlmd.read_file(copied / METADATA_FILE, in_use=False).runs[KILLED].execution("Trainer").id
    (trainer,) = store.get_executions_by_id([int(number)])
    del trainer.custom_properties["seconds"]
    store.put_executions([trainer])
    assert seconds() == ("abandoned", None, None)
    assert "killed in Trainer" in abandoned.settle(copied)
    assert seconds() == ("abandoned", None, None)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A root with a run for which the Tuner chose settings, one without a Tuner, and an interrupted one."""
    folder = tmp_path_factory.mktemp("tuned")
    store = Store(folder)
    searched = {"tuner.space.trainer.batch_size.min": 16}
    chosen = {"trainer.batch_size": 64, "model.cnn.dropout": 0.3}
    plans = (
        Plan(accuracy=0.9, settings={"trainer.batch_size": 250, **searched}, tuned=chosen),
        Plan(accuracy=0.8, settings={"trainer.batch_size": 250}),
        Plan(settings={"seed": 5}, ends_at="Trainer", ended_by="interrupted"),
    )
    runs = [store.add(plan) for plan in plans]
    store.close()
    return folder, runs


def test_settings_have_the_values_that_the_tuner_chose(ask, tuned):
    folder, (searched, untuned, _) = tuned
    for batch_size, run in ((64, searched), (250, untuned)):
        (row,) = ask(folder, "runs", "--where", f"trainer.batch_size={batch_size} and accuracy>0")
        assert row["run"] == run
    settings = {
        row["key"]: (row["value"], row["origin"]) for row in ask(folder, "show", searched)["settings"]
    }
    assert settings["trainer.batch_size"] == (64, "Tuner")
    assert ask(folder, "tree", searched)["made_by"]["settings"]["model.cnn.dropout"] == {
        "value": 0.3,
        "origin": "Tuner",
    }
    diff = ask(folder, "diff", searched, untuned)
    assert diff["settings"]["trainer.batch_size"] == {"a": 64, "b": 250}


def test_diff_fills_in_hyperparameters_that_only_one_run_has_searched(ask, tmp_path):
    store = Store(tmp_path)
    key, other = "trainer.batch_size", "model.cnn.dropout"
    runs = [store.add(Plan(tuned={key: 64, other: 0.7})), store.add(Plan(tuned={key: 64}))]
    store.close()
    default = PipelineConfig().model.cnn.dropout
    assert ask(tmp_path, "diff", *runs)["hyperparameters"] == {other: {"a": 0.7, "b": default}}


def test_changed_shows_a_setting_that_only_some_runs_have(ask, tuned):
    rows = ask(tuned[0], "runs", "--changed")
    assert [row["tuner.space.trainer.batch_size.min"] for row in rows] == [16, None, None]
    assert [row["trainer.batch_size"] for row in rows][:2] == [64, 250]
    assert not any(key.startswith("hyperparameters.") for key in rows[0])


def test_a_component_in_which_a_signal_ended_the_run_is_interrupted(ask, tuned):
    folder, (_, _, run) = tuned
    shown = ask(folder, "show", run)
    states = {row["component"]: row["state"] for row in shown["components"]}
    assert (shown["state"], states["Trainer"], states["Transform"]) == (
        "interrupted",
        "interrupted",
        "cached",
    )


def test_trials_count_from_one_and_tell_why_they_failed(tmp_path):
    from models.search import results  # noqa: PLC0415 - it loads TensorFlow.

    common = {"epochs": 2, "images": 100, "seconds": 1.5, "curve": [0.9]}
    trials = [
        {"trial": 1, "state": "complete", "score": 0.9, "reason": None, "model.cnn.filters": [16], **common},
        {
            "trial": 2,
            "state": "failed",
            "score": None,
            "reason": "killed",
            "model.cnn.filters": [8],
            **common,
        },
    ]
    results.write(str(tmp_path / results.TRIALS), trials, {})
    artifact = model.Artifact("1", model.TUNER_RESULTS, str(tmp_path), model.LIVE, 0, {})
    execution = model.Execution("1", "Tuner", "Tuner", model.COMPLETE, 0, 0, {}, outputs=[("", artifact)])
    read = facts.trials(Run("r", "", 0, {}, executions=[execution]))
    assert [(row["trial"], row["state"], row["score"], row["reason"]) for row in read] == [
        (1, "complete", 0.9, None),
        (2, "failed", None, "killed"),
    ]
    assert [row["model.cnn.filters"] for row in read] == [[16], [8]]


def test_the_settings_of_a_run_are_once_in_a_tree(ask, root, ids):
    tree = ask(root, "tree", ids[FIRST])
    tree["used_by"].append({**tree["made_by"], "outputs": []})  # as a Tuner has them, too
    shown = _on_terminal(views.tree, tree, 80)
    assert "\n".join(shown).count("trainer.epochs=10") == 1
    assert any("settings as above" in line for line in shown)


def test_one_long_value_of_a_difference_is_wrapped_in_its_cell(ask, root, ids):
    diff = ask(root, "diff", ids[FIRST], ids[WORSE])
    long = {"a": "[[16, 32], [32, 64], [16, 32, 64]]", "b": None}
    diff["settings"] |= {"tuner.space.augmentation.blur_fraction.min": long}
    shown = _on_terminal(views.diff, diff, 80)
    assert any(line.split() == ["trainer.epochs", "10", "5"] for line in shown)
    assert max(map(len, shown)) <= 80


def test_the_seconds_of_a_running_run_are_those_since_it_began(root, ids):
    read = mlmd.read_file(root / METADATA_FILE, in_use=True)
    row = facts.of_run(read.runs[LAST])
    assert row["state"] == "running"
    assert row["seconds"] == 85  # noted at its end, which this store already has
    run = Run("r", "", round(1000 * (time.time() - 30)), {}, model.RUNNING)
    assert facts.of_run(run)["seconds"] == pytest.approx(30, abs=5)
