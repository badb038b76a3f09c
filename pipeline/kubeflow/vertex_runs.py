"""Starts runs and schedules on Vertex AI Pipelines.

It uses the clients of the API itself. `aiplatform.PipelineJob` would create a bucket that does not exist, and
print errors of the creation instead of failing.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import google.auth
import google.auth.exceptions
import requests
from google.api_core import exceptions, retry
from google.cloud import aiplatform_v1, storage

from pipeline.kubeflow import submission
from pipeline.kubeflow.submission import Progress, SubmissionError, Submitted
from settings.base import ConfigError
from settings.kubeflow import VertexConfig
from settings.places import bucket_of

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_LOGIN = "gcloud auth application-default login"
_TIMEOUT_S = 60
# TFX's keys in a step's `custom_config`, copied because TFX takes 20 seconds to import: the region, and the
# arguments of a job or an endpoint, among them its project.
_REGION = "ai_platform_vertex_region"
_COMPILED_PLACES = (
    ("Trainer", "ai_platform_training_args", "the Trainer's custom job"),
    ("Pusher", "ai_platform_serving_args", "the Pusher's endpoint"),
)
# The clients put the request before the message of the API.
_REQUEST_PREFIX = re.compile(r"^[A-Z]+ https?://\S+: ")


def submit(request: submission.Submission, config: VertexConfig, schedule: str | None = None) -> Submitted:
    """Starts a run, or a schedule of runs.

    Args:
      request: the compiled pipeline and the values of the run.
      config: project, region, service account, network, encryption key and labels.
      schedule: the five fields of cron, for a schedule; None starts one run now.

    Returns:
      The run or schedule.

    Raises:
      ConfigError: a required setting is missing or does not suit the compiled file.
      SubmissionError: Vertex cannot be reached or refused the run.
    """
    region = config.region
    if region is None:
        raise ConfigError("kubeflow.vertex.region is not set; pass a region such as europe-west4 as --region")
    _check_compiled_place(request, config)
    bucket = bucket_of(request.root)
    if bucket is None:
        raise ConfigError(
            f"root: expected a place in a bucket for Vertex, gs://BUCKET/...; found {request.root}"
        )
    with _readable_errors(config):
        credentials, project = google.auth.default(scopes=_SCOPES)
    project = config.project or project
    if project is None:
        raise ConfigError(
            "kubeflow.vertex.project is not set, and the credentials do not name a project either; pass "
            "it as --project"
        )
    config = config.model_copy(update={"project": project})
    with _readable_errors(config):
        _check_bucket(bucket, project, credentials)
        job = _job(request, config)
        parent = f"projects/{project}/locations/{region}"
        pages = f"https://console.cloud.google.com/vertex-ai/locations/{region}"
        if schedule:
            created = _schedules(region, credentials).create_schedule(
                parent=parent,
                schedule=aiplatform_v1.Schedule(
                    display_name=request.name,
                    cron=schedule,
                    max_concurrent_run_count=1,
                    create_pipeline_job_request=aiplatform_v1.CreatePipelineJobRequest(
                        parent=parent, pipeline_job=job
                    ),
                ),
                timeout=_TIMEOUT_S,
            )
            id_ = created.name.rpartition("/")[2]
            return Submitted(f"{pages}/pipelines/schedules/{id_}?project={project}", None)
        client = _pipelines(region, credentials)
        run = client.create_pipeline_job(parent=parent, pipeline_job=job, timeout=_TIMEOUT_S)
    id_ = run.name.rpartition("/")[2]

    def poll() -> Progress:
        with _readable_errors(config):
            return _progress(
                client.get_pipeline_job(
                    name=run.name, timeout=_TIMEOUT_S, retry=retry.Retry(timeout=submission.PATIENCE_S)
                ),
                request.steps,
            )

    return Submitted(f"{pages}/pipelines/runs/{id_}?project={project}", poll)


def _check_compiled_place(request: submission.Submission, config: VertexConfig) -> None:
    """Checks the project and the region that a custom job or an endpoint was compiled for.

    Raises:
      ConfigError: they are not those of the run.
    """
    tasks = request.compiled["pipelineSpec"]["root"]["dag"]["tasks"]
    for step, key, what in _COMPILED_PLACES:
        parameters = tasks[step]["inputs"]["parameters"]
        custom = json.loads(parameters["custom_config"]["runtimeValue"]["constantValue"]["stringValue"])
        if key not in custom:
            continue
        compiled = {"project": custom[key]["project"], "region": custom[_REGION]}
        for name, value in compiled.items():
            configured = getattr(config, name)
            if configured not in (None, value):
                raise ConfigError(
                    f"kubeflow.vertex.{name}: expected {value}, for which {what} was compiled, found "
                    f"{configured}; change it, or compile again with kubeflow.vertex.{name}={configured}"
                )


def _pipelines(region: str, credentials: Any) -> aiplatform_v1.PipelineServiceClient:
    return aiplatform_v1.PipelineServiceClient(
        credentials=credentials, transport="rest", client_options={"api_endpoint": _host(region)}
    )


def _schedules(region: str, credentials: Any) -> aiplatform_v1.ScheduleServiceClient:
    return aiplatform_v1.ScheduleServiceClient(
        credentials=credentials, transport="rest", client_options={"api_endpoint": _host(region)}
    )


def _storage(project: str, credentials: Any) -> storage.Client:
    return storage.Client(project=project, credentials=credentials)


def _host(region: str) -> str:
    return f"{region}-aiplatform.googleapis.com"


def _check_bucket(name: str, project: str, credentials: Any) -> None:
    try:
        found = _storage(project, credentials).lookup_bucket(name, timeout=_TIMEOUT_S, retry=None)
    except exceptions.Forbidden:
        return  # Only the service account of the steps needs access to the bucket.
    if found is None:
        raise SubmissionError(
            f"the bucket gs://{name} of the root does not exist; create it with "
            f"`gcloud storage buckets create gs://{name}`, or set another --root"
        )


def _job(request: submission.Submission, config: VertexConfig) -> aiplatform_v1.PipelineJob:
    job = json.loads(submission.to_json(request))
    job["labels"] = {**job.get("labels", {}), **config.labels}
    if config.service_account:
        job["serviceAccount"] = config.service_account
    if config.network:
        job["network"] = config.network
    if config.encryption_key:
        job["encryptionSpec"] = {"kmsKeyName": config.encryption_key}
    return aiplatform_v1.PipelineJob.from_json(json.dumps(job))


def _progress(job: aiplatform_v1.PipelineJob, names: list[str]) -> Progress:
    # Vertex also lists the run itself as a task.
    steps = {
        task.task_name: (task.state.name, task.error.message)
        for task in job.job_detail.task_details
        if task.task_name in names
    }
    return submission.progress(job.state.name.removeprefix("PIPELINE_STATE_"), steps, job.error.message)


@contextlib.contextmanager
def _readable_errors(config: VertexConfig) -> Iterator[None]:
    """Turns errors of the clients into a SubmissionError that says what went wrong and what to do."""
    try:
        yield
    except google.auth.exceptions.DefaultCredentialsError as error:
        if "were not found" in str(error):
            message = "there are no credentials for Google Cloud on this machine"
        else:
            message = f"the credentials for Google Cloud cannot be used: {error}"
        raise SubmissionError(f"{message}; run `{_LOGIN}`") from None
    except google.auth.exceptions.RefreshError as error:
        raise SubmissionError(
            f"the credentials for Google Cloud are no longer valid: {error.args[0]}; run `{_LOGIN}`"
        ) from None
    except (google.auth.exceptions.TransportError, requests.exceptions.RequestException) as error:
        raise SubmissionError(_unreachable(config, error)) from None
    except exceptions.RetryError as error:
        raise SubmissionError(_unreachable(config, error.cause)) from None
    except exceptions.GoogleAPICallError as error:
        raise SubmissionError(_explain(error, config)) from None


def _unreachable(config: VertexConfig, error: BaseException) -> str:
    return (
        f"cannot reach Google Cloud ({error}). Check the network, and that {config.region} is a region of "
        "Vertex"
    )


def _explain(error: exceptions.GoogleAPICallError, config: VertexConfig) -> str:
    message = _REQUEST_PREFIX.sub("", error.message)
    # `error.reason` is set only for answers by gRPC, and these come by REST.
    infos = [detail for detail in error.details or () if isinstance(detail, dict)]
    for info in infos:
        if info.get("reason") == "SERVICE_DISABLED":
            service = info.get("metadata", {}).get("service", "aiplatform.googleapis.com")
            return (
                f"the API {service} is disabled in the project {config.project}; enable it with "
                f"`gcloud services enable {service} --project {config.project}`, and wait some minutes"
            )
    if isinstance(error, exceptions.Unauthorized):
        return f"Google Cloud does not accept the credentials: {message}; run `{_LOGIN}`"
    if isinstance(error, exceptions.Forbidden):
        account = config.service_account or "the account of the steps"
        return (
            f"permission denied in the project {config.project}: {message} You need the role "
            f"roles/aiplatform.user in the project, and roles/iam.serviceAccountUser on {account}"
        )
    if isinstance(error, exceptions.NotFound):
        return f"not found in the project {config.project}, region {config.region}: {message}"
    return f"Vertex refused the run: {message}"
