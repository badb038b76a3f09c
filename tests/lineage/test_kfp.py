import json

import pytest
from typer.testing import CliRunner

from lineage.__main__ import app
from tests import web_api

RUNS = "/apis/v2beta1/runs"


def _task(name, number, state, inputs=None, outputs=None):
    lists = {"inputs": inputs or {}, "outputs": outputs or {}}
    return {
        **{"run_id": "r-1", "task_id": f"t-{number}", "execution_id": str(number), "display_name": name},
        **{"state": state, "create_time": f"2026-03-01T10:0{number}:00Z"},
        **{"start_time": f"2026-03-01T10:0{number}:00Z", "end_time": f"2026-03-01T10:0{number}:30Z"},
        **{kind: {k: {"artifact_ids": ids} for k, ids in each.items()} for kind, each in lists.items()},
    }


def _type(title):
    return {"artifactType": {"instanceSchema": f"title: {title}\ntype: object\n"}}


# The parts of a compiled pipeline that are read.
CONTEXT = json.dumps({"configuration": [{"key": "trainer.epochs", "value": 2, "origin": "--set"}]})
_EXAMPLES, _MODEL, _REPORT = (
    {"artifacts": {name: _type(title)}}
    for name, title in (
        ("examples", "tfx.Examples"),
        ("model", "tfx.Model"),
        ("report", "components.ModelReport"),
    )
)
SPEC = {
    "components": {
        "ImportExampleGen": {"outputDefinitions": _EXAMPLES},
        "Trainer": {"inputDefinitions": _EXAMPLES, "outputDefinitions": _MODEL},
        "ModelReport": {"inputDefinitions": _MODEL, "outputDefinitions": _REPORT},
    },
    "root": {
        "dag": {
            "tasks": {
                **{name: {"componentRef": {"name": name}} for name in ("ImportExampleGen", "Trainer")},
                "ModelReport": {
                    "componentRef": {"name": "ModelReport"},
                    "inputs": {"parameters": {"context": {"runtimeValue": {"constant": CONTEXT}}}},
                },
            }
        }
    },
}


@pytest.fixture
def api():
    """An imitation of the API with two runs on two pages."""
    first = {
        **{"run_id": "r-1", "display_name": "tiny first", "state": "SUCCEEDED", "pipeline_spec": SPEC},
        **{"created_at": "2026-03-01T10:00:00Z", "finished_at": "2026-03-01T10:09:00Z"},
        "runtime_config": {"parameters": {"epochs": 30}},
        "run_details": {
            "task_details": [
                _task("root", 9, "SUCCEEDED"),
                _task("Trainer", 2, "SUCCEEDED", {"examples": ["7"]}, {"model": ["8"]}),
                _task("ImportExampleGen", 1, "SUCCEEDED", {}, {"examples": ["7"]}),
                _task("ModelReport", 3, "SUCCEEDED", {"model": ["8"]}, {"report": ["10"]}),
            ]
        },
    }
    second = {
        "run_id": "r-2",
        "display_name": "tiny second",
        "state": "RUNNING",
        "created_at": "2026-03-02T10:00:00Z",
    }

    def answer(request):
        if request.path != RUNS:
            return 404, {"message": "Not Found"}
        if request.query.get("page_token") == "more":
            return 200, {"runs": [second]}
        return 200, {"runs": [first], "next_page_token": "more"}

    with web_api.serve(answer) as served:
        yield served


def _ask(api, *arguments):
    result = CliRunner().invoke(app, [*arguments, "--kfp", api.url, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_runs_tasks_and_artifacts_come_from_the_api(api):
    rows = _ask(api, "runs")
    assert [(row["run"], row["name"], row["state"]) for row in rows] == [
        ("r-1", "tiny first", "complete"),
        ("r-2", "tiny second", "running"),
    ]
    assert rows[0]["seconds"] == 540
    shown = _ask(api, "show", "r-1")
    assert [row["component"] for row in shown["components"]] == ["ImportExampleGen", "Trainer", "ModelReport"]
    assert [row["seconds"] for row in shown["components"]] == [30.0] * 3
    # It tells no places; the working directory is none.
    assert [row["bytes"] for row in shown["artifacts"]] == [None] * 3
    settings = {row["key"]: row["value"] for row in shown["settings"]}
    assert settings["trainer.epochs"] == 2
    tree = _ask(api, "tree", "#8")
    assert (tree["type"], tree["made_by"]["component"]) == ("Model", "Trainer")
    assert [(each["type"], each["id"]) for each in tree["made_by"]["inputs"]] == [("Examples", "7")]
    assert tree["used_by"][0]["outputs"][0]["type"] == "components.ModelReport"
    assert {request.method for request in api.requests} == {"GET"}


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "not a host", "foo"])
@pytest.mark.filterwarnings("error")
def test_a_host_that_does_not_answer_is_a_sentence(host):
    result = CliRunner().invoke(app, ["runs", "--kfp", host])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: --kfp {host}: ")
    assert result.stderr.count("\n") == 1


def test_another_server_is_a_sentence():
    with web_api.serve(lambda request: (404, "nothing")) as served:
        result = CliRunner().invoke(app, ["runs", "--kfp", served.url])
    assert result.exit_code == 1
    assert "404" in result.stderr
