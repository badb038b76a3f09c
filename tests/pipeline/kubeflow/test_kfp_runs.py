import json

import pytest
import yaml

from pipeline.kubeflow import kfp_runs, submission
from settings import loading
from settings.base import ConfigError
from tests import certificates, web_api

EXPERIMENTS, RUNS, RECURRING = (f"/apis/v2beta1/{name}" for name in ("experiments", "runs", "recurringruns"))


def _task(name, state, **more):
    return {"display_name": name, "state": state, **more}


def kubeflow(states):
    """Imitates the API server of Kubeflow Pipelines.

    The experiment `known` exists. Each poll of a run returns the next of `states`; the last one is repeated.
    """
    remaining = list(states)

    def answer(request):
        if request.path == EXPERIMENTS and request.method == "GET":
            (predicate,) = json.loads(request.query["filter"])["predicates"]
            known = predicate == {"operation": "EQUALS", "key": "display_name", "stringValue": "known"}
            return 200, {"experiments": [{"experiment_id": "e-known"}]} if known else {}
        if request.path == EXPERIMENTS:
            return 200, {"experiment_id": "e-new", **request.body}
        if request.path == RUNS:
            return 200, {"run_id": "r-1", "state": "PENDING", **request.body}
        if request.path == f"{RUNS}/r-1":
            return 200, remaining.pop(0) if len(remaining) > 1 else remaining[0]
        if request.path == RECURRING:
            return 200, {"recurring_run_id": "s-1", **request.body}
        return 404, {"error": "Not Found", "code": 5, "message": "Not Found"}

    return answer


@pytest.fixture
def api():
    with web_api.serve(kubeflow([{"state": "SUCCEEDED"}])) as served:
        yield served


@pytest.fixture
def submit(compiled_files, api):
    def submit_(*overrides, schedule=None):
        host = f"kubeflow.kfp.host={api.url}/"
        settings = loading.load(overrides=[host, *overrides])
        request = submission.read(compiled_files["kfp"], "kfp", settings)
        return kfp_runs.submit(request, settings.kubeflow.kfp, schedule)

    return submit_


def test_a_run_has_the_compiled_pipeline_its_parameters_and_its_root(submit, api, compiled_files):
    submitted = submit(
        *("trainer.epochs=30", "root=gs://other/runs", "kubeflow.kfp.service_account=runner"),
        "kubeflow.kfp.experiment=known",
    )
    assert submitted.link == f"{api.url}/#/runs/details/r-1"
    (created,) = api.received("POST", RUNS)
    assert created.body["pipeline_spec"] == yaml.safe_load(compiled_files["kfp"].read_text())
    assert created.body["runtime_config"] == {
        "parameters": {"epochs": 30, "serving_uri": "gs://other/runs/serving/tiny"},
        "pipeline_root": "gs://other/runs/pipelines/tiny",
    }
    assert created.body["experiment_id"] == "e-known"
    assert created.body["service_account"] == "runner"
    assert created.body["display_name"].startswith("tiny ")
    assert "authorization" not in created.headers


def test_a_missing_experiment_is_created_in_the_namespace(submit, api):
    submit("kubeflow.kfp.namespace=team")
    (listed,), (created_experiment,) = api.received("GET", EXPERIMENTS), api.received("POST", EXPERIMENTS)
    assert listed.query["namespace"] == "team"
    assert created_experiment.body == {"display_name": "Default", "namespace": "team"}
    (created,) = api.received("POST", RUNS)
    assert created.body["experiment_id"] == "e-new"


def test_token_and_cookie_are_sent(submit, api, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "cookie").write_text("authservice_session=abc\n")
    submit(f"kubeflow.kfp.token_file={tmp_path / 'token'}", f"kubeflow.kfp.cookie_file={tmp_path / 'cookie'}")
    assert {r.headers["authorization"] for r in api.requests} == {"Bearer secret"}
    assert {r.headers["cookie"] for r in api.requests} == {"authservice_session=abc"}


def test_a_schedule_creates_a_recurring_run_at_second_0(submit, api):
    submitted = submit("trainer.epochs=30", schedule="30 3 * * 1")
    assert submitted.link == f"{api.url}/#/recurringrun/details/s-1"
    assert submitted.poll is None
    (created,) = api.received("POST", RECURRING)
    assert created.body["trigger"] == {"cron_schedule": {"cron": "0 30 3 * * 1"}}
    assert created.body["runtime_config"]["parameters"] == {"epochs": 30}
    assert created.body["mode"] == "ENABLE"
    assert created.body["max_concurrency"] == "1"
    assert not api.received("POST", RUNS)


def test_a_run_is_followed_step_by_step(submit, api):
    api.answer = kubeflow(
        [
            {"state": "PENDING"},
            {"state": "RUNNING", "run_details": {"task_details": [_task("root", "RUNNING")]}},
            {
                "state": "RUNNING",
                "run_details": {"task_details": [_task("Transform", "SKIPPED"), _task("Trainer", "RUNNING")]},
            },
            {
                "state": "FAILED",
                "error": {"code": 13, "message": "the run as a whole"},
                "run_details": {
                    "task_details": [
                        _task("Transform", "SKIPPED"),
                        _task("Trainer", "FAILED", error={"code": 13, "message": "out of memory"}),
                        _task("Trainer-driver", "SUCCEEDED"),
                    ]
                },
            },
        ]
    )
    poll = submit().poll
    found = [poll() for _ in range(4)]
    assert [p.state for p in found] == ["waiting", "running", "running", "failed"]
    assert found[1].steps == {}
    assert found[2].steps == {"Transform": "cached", "Trainer": "running"}
    assert found[3].problems == ["Trainer failed: out of memory", "the run as a whole"]


def test_polling_retries_after_an_error_of_the_server(submit, api, monkeypatch):
    poll = submit().poll
    answers = iter([(503, "upstream connect error"), (200, {"state": "SUCCEEDED"})])
    api.answer = lambda request: next(answers)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert poll().state == "done"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((401, {"message": "no token"}), "does not accept these credentials: no token. Set kubeflow.kfp"),
        ((403, {"error": "not in the namespace"}), "not in the namespace. Set kubeflow.kfp.token_file"),
        ((404, "<html>"), "has no API of Kubeflow Pipelines 2: Not Found"),
        ((400, {"message": "unknown parameter"}), "refused the run: unknown parameter"),
        ((200, "<html>Log in</html>"), "If it asks for a login, set"),
    ],
)
def test_errors_of_kubeflow_are_explained(submit, api, answer, expected):
    api.answer = lambda request: answer
    with pytest.raises(submission.SubmissionError) as refused:
        submit()
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("override", "error", "expected"),
    [
        ("kubeflow.kfp.host=http://127.0.0.1:9", submission.SubmissionError, "cannot reach .*127.0.0.1:9"),
        ("kubeflow.kfp.host=localhost:8080", ConfigError, "the URL of .*found localhost:8080"),
        ("kubeflow.kfp.host=null", ConfigError, "such as http://localhost:8080; found nothing"),
        ("kubeflow.kfp.token_file=/nowhere", ConfigError, "token_file: /nowhere: No such file"),
    ],
)
def test_a_wrong_host_or_file_is_named_in_the_error(submit, override, error, expected):
    with pytest.raises(error, match=expected):
        submit(override)


@pytest.mark.parametrize("content", [b"", b"\n", b"first\nsecond", b"\xff\xfe"])
def test_an_invalid_token_is_refused_and_not_shown(submit, tmp_path, content):
    token = tmp_path / "token"
    token.write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"token_file: .*token: (expected one line|it is not text)"
    ) as refused:
        submit(f"kubeflow.kfp.token_file={token}")
    assert "second" not in str(refused.value)


def test_a_login_page_in_answer_to_a_recurring_run_is_an_error(submit, api):
    known = kubeflow([])
    api.answer = lambda r: (200, "<html>") if r.path == RECURRING else known(r)
    with pytest.raises(submission.SubmissionError, match="If it asks for a login, set"):
        submit(schedule="0 3 * * 1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a key and a self-signed certificate for `localhost`."""
    return certificates.create(tmp_path_factory.mktemp("certificate") / "certificate.pem", "localhost")


def test_ca_file_makes_a_host_trusted(submit, certificate):
    with web_api.serve(kubeflow([]), certificate) as api:
        host = f"kubeflow.kfp.host={api.url}"
        with pytest.raises(submission.SubmissionError, match=r"cannot trust .*set kubeflow\.kfp\.ca_file"):
            submit(host)
        assert submit(host, f"kubeflow.kfp.ca_file={certificate}").link.startswith(api.url)
