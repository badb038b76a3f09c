import json

import google.auth
import pytest
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1, storage
from google.cloud.aiplatform_v1.services.pipeline_service import transports as pipeline_transports
from google.cloud.aiplatform_v1.services.schedule_service import transports as schedule_transports

from pipeline.kubeflow import submission, vertex_runs
from settings import loading
from settings.base import ConfigError
from tests import web_api

PARENT = "/v1/projects/p/locations/europe-west4"
JOBS, SCHEDULES = f"{PARENT}/pipelineJobs", f"{PARENT}/schedules"
PAGES = "https://console.cloud.google.com/vertex-ai/locations/europe-west4"


class Credentials(AnonymousCredentials):
    """Anonymous credentials that can be refreshed, as the clients do when they are refused."""

    def refresh(self, request):
        pass


def _task(name, state, **more):
    return {"taskName": name, "state": state, "taskId": "1", **more}


def vertex(states):
    """Imitates the APIs of Vertex and Cloud Storage.

    Only `gs://bucket` exists. Each poll of a run returns the next of `states`; the last one is repeated.
    """
    remaining = list(states)

    def answer(request):
        if request.path.startswith("/storage/v1/b/"):
            name = request.path.rpartition("/")[2]
            found = (200, {"name": name}), (404, {"error": {"code": 404, "message": "not there"}})
            return found[name != "bucket"]
        # Vertex's answers name the project by its number instead of its id.
        if (request.method, request.path) == ("POST", JOBS):
            return 200, {"name": "projects/123/locations/europe-west4/pipelineJobs/tiny-1"}
        if (request.method, request.path) == ("POST", SCHEDULES):
            return 200, {"name": "projects/123/locations/europe-west4/schedules/77"}
        assert request.path == "/v1/projects/123/locations/europe-west4/pipelineJobs/tiny-1"
        return 200, remaining.pop(0) if len(remaining) > 1 else remaining[0]

    return answer


def _refused(status, message, reason=None, **metadata):
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "metadata": metadata}]
    error = {"code": status, "message": message, "details": details if reason else []}
    return status, {"error": error}


@pytest.fixture
def api(monkeypatch):
    """Connects the real clients to an API on this machine instead of Google's."""
    with web_api.serve(vertex([{"state": "PIPELINE_STATE_SUCCEEDED"}])) as served:
        host = served.url.removeprefix("http://")

        def client(client_class, transport):
            return lambda region, credentials: client_class(
                transport=transport(host=host, url_scheme="http", credentials=credentials)
            )

        pipelines = client(
            aiplatform_v1.PipelineServiceClient, pipeline_transports.PipelineServiceRestTransport
        )
        schedules = client(
            aiplatform_v1.ScheduleServiceClient, schedule_transports.ScheduleServiceRestTransport
        )
        monkeypatch.setattr(vertex_runs, "_pipelines", pipelines)
        monkeypatch.setattr(vertex_runs, "_schedules", schedules)
        monkeypatch.setattr(
            vertex_runs,
            "_storage",
            lambda project, credentials: storage.Client(
                project, credentials, client_options={"api_endpoint": served.url}
            ),
        )
        monkeypatch.setattr(google.auth, "default", lambda scopes: (Credentials(), None))
        yield served


@pytest.fixture
def submit(compiled_files):
    def submit_(*overrides, schedule=None, file="vertex"):
        place = ("kubeflow.vertex.project=p", "kubeflow.vertex.region=europe-west4")
        settings = loading.load(overrides=[*place, *overrides])
        request = submission.read(compiled_files[file], "vertex", settings)
        return vertex_runs.submit(request, settings.kubeflow.vertex, schedule)

    return submit_


def test_a_custom_job_for_another_project_or_region_is_refused(submit, api):
    assert submit(file="vertex-no-tune").link
    for override in ("kubeflow.vertex.project=q", "kubeflow.vertex.region=us-central1"):
        key, _, found = override.partition("=")
        with pytest.raises(ConfigError, match=rf"{key}: expected .* custom job was compiled, found {found}"):
            submit(override, file="vertex-no-tune")


def test_a_run_has_the_compiled_pipeline_and_all_settings(submit, api, compiled_files):
    submitted = submit(
        *("trainer.epochs=30", "kubeflow.vertex.service_account=s@p.iam.gserviceaccount.com"),
        *("kubeflow.vertex.network=projects/1/global/networks/n", "kubeflow.vertex.encryption_key=k"),
        *("kubeflow.vertex.labels={team: vision}", "kubeflow.cache=false"),
    )
    assert submitted.link == f"{PAGES}/pipelines/runs/tiny-1?project=p"
    (created,) = api.received("POST", JOBS)
    compiled = json.loads(compiled_files["vertex"].read_text())
    spec, expected = created.body["pipelineSpec"], compiled["pipelineSpec"]
    assert spec["components"] == expected["components"]
    assert spec["deploymentSpec"] == expected["deploymentSpec"]
    assert {t["cachingOptions"]["enableCache"] for t in spec["root"]["dag"]["tasks"].values()} == {False}
    runtime = created.body["runtimeConfig"]
    assert runtime["gcsOutputDirectory"] == "gs://bucket/runs/pipelines/tiny"
    assert runtime["parameters"]["epochs"] == {"intValue": "30"}
    assert runtime["parameters"]["data_uri"] == {"stringValue": "gs://bucket/data"}
    assert created.body["displayName"] == "tiny"
    assert created.body["labels"] == {**compiled["labels"], "team": "vision"}
    assert created.body["serviceAccount"] == "s@p.iam.gserviceaccount.com"
    assert created.body["network"] == "projects/1/global/networks/n"
    assert created.body["encryptionSpec"] == {"kmsKeyName": "k"}


def test_a_schedule_has_the_same_job(submit, api):
    submitted = submit("trainer.epochs=30", schedule="30 3 * * 1")
    assert submitted.link == f"{PAGES}/pipelines/schedules/77?project=p"
    assert submitted.poll is None
    (created,) = api.received("POST", SCHEDULES)
    assert created.body["cron"] == "30 3 * * 1"
    assert created.body["maxConcurrentRunCount"] == "1"
    request = created.body["createPipelineJobRequest"]
    assert request["parent"] == PARENT.removeprefix("/v1/")
    assert request["pipelineJob"]["runtimeConfig"]["parameters"]["epochs"] == {"intValue": "30"}
    assert not api.received("POST", JOBS)


def test_a_run_is_followed_step_by_step(submit, api):
    def job(state, *tasks, **more):
        return {"state": f"PIPELINE_STATE_{state}", "jobDetail": {"taskDetails": tasks}, **more}

    api.answer = vertex(
        [
            job("PENDING"),
            job("RUNNING", _task("tiny-1", "RUNNING")),
            job("RUNNING", _task("Transform", "SKIPPED"), _task("Trainer", "RUNNING")),
            job(
                "FAILED",
                _task("tiny-1", "FAILED"),
                _task("Transform", "SKIPPED"),
                _task("Trainer", "FAILED", error={"code": 9, "message": "out of memory"}),
                error={"code": 9, "message": "the run as a whole"},
            ),
        ]
    )
    poll = submit().poll
    found = [poll() for _ in range(4)]
    assert [p.state for p in found] == ["waiting", "running", "running", "failed"]
    assert found[1].steps == {}
    assert found[2].steps == {"Transform": "cached", "Trainer": "running"}
    assert found[3].problems == ["Trainer failed: out of memory", "the run as a whole"]


def test_polling_retries_after_an_error_of_the_api(submit, api, monkeypatch):
    poll = submit().poll
    answers = iter([_refused(503, "try again"), (200, {"state": "PIPELINE_STATE_SUCCEEDED"})])
    api.answer = lambda request: next(answers)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert poll().state == "done"


def test_a_missing_bucket_is_not_created(submit, api):
    with pytest.raises(submission.SubmissionError, match="bucket gs://wrong of the root does not exist"):
        submit("root=gs://wrong/runs")
    assert {request.method for request in api.requests} == {"GET"}


def test_the_user_need_not_have_access_to_the_bucket(submit, api):
    known = vertex([{}])
    api.answer = lambda r: _refused(403, "not you") if "/storage/" in r.path else known(r)
    assert submit().link


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            _refused(403, "has not been used", "SERVICE_DISABLED", service="aiplatform.googleapis.com"),
            "disabled in the project p; enable it with `gcloud services enable aiplatform",
        ),
        (
            _refused(403, "Permission 'x' denied."),
            "permission denied in the project p: Permission 'x' denied",
        ),
        (_refused(401, "expired"), "does not accept the credentials: expired; run `gcloud auth application"),
        (_refused(404, "no such key"), "not found in the project p, region europe-west4: no such key"),
        (_refused(400, "bad label"), "refused the run: bad label"),
    ],
)
def test_errors_of_vertex_are_explained(submit, api, answer, expected):
    known = vertex([{}])
    api.answer = lambda r: answer if r.path == JOBS else known(r)
    with pytest.raises(submission.SubmissionError) as refused:
        submit()
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("kubeflow.vertex.region=null", "region is not set; pass a region such as europe-west4 as --region"),
        (
            "kubeflow.vertex.project=null",
            "project is not set, and the credentials do not name a project either",
        ),
        (
            "root=/tmp/runs",
            "expected a place in a bucket for Vertex, gs://BUCKET/...; found /tmp/runs/pipelines/tiny",
        ),
    ],
)
def test_missing_settings_are_named_in_the_error(submit, api, override, expected):
    with pytest.raises(ConfigError) as refused:
        submit(override)
    assert expected in str(refused.value)
    assert not api.requests


def test_the_default_project_is_that_of_the_credentials(submit, api, monkeypatch):
    monkeypatch.setattr(google.auth, "default", lambda scopes: (Credentials(), "p"))
    assert submit("kubeflow.vertex.project=null").link.endswith("?project=p")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            auth_exceptions.DefaultCredentialsError("File f is not valid"),
            "cannot be used: File f is not vali",
        ),
        (auth_exceptions.RefreshError("reauthentication is needed"), "no longer valid: reauthentication"),
        (auth_exceptions.TransportError("no route"), r"cannot reach Google Cloud \(no route\)"),
    ],
)
def test_errors_of_the_credentials_are_explained(submit, api, monkeypatch, error, expected):
    def default(scopes):
        raise error

    monkeypatch.setattr(google.auth, "default", default)
    with pytest.raises(submission.SubmissionError, match=expected):
        submit()
    assert not api.requests


def test_the_clients_use_the_endpoint_of_the_region(monkeypatch):
    for create_client in (vertex_runs._pipelines, vertex_runs._schedules):
        client = create_client("europe-west4", AnonymousCredentials())
        assert client.api_endpoint == "europe-west4-aiplatform.googleapis.com"
