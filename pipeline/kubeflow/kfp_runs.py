"""Starts runs and recurring runs on open-source Kubeflow Pipelines 2."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kfp_server_api
import urllib3
from google.api_core import exceptions, retry

from pipeline.kubeflow import kubernetes
from pipeline.kubeflow.submission import (
    PATIENCE_S,
    Progress,
    Submission,
    SubmissionError,
    Submitted,
    progress,
)
from settings.base import ConfigError
from settings.kubeflow import KfpConfig

# Seconds to connect, and to wait for the answer.
_TIMEOUT_S = (10, 60)
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _SERVER_ERROR = 401, 403, 404, 500


def submit(request: Submission, config: KfpConfig, schedule: str | None = None) -> Submitted:
    """Starts a run, or a recurring run.

    Args:
      request: the compiled pipeline and the values of the run.
      config: the host, the credentials, the experiment and the namespace.
      schedule: the five fields of cron, for a recurring run; None starts one run now.

    Returns:
      The run or recurring run.

    Raises:
      ConfigError: a required setting is missing, or a file that a setting names cannot be read.
      SubmissionError: Kubeflow Pipelines cannot be reached or refused the run.
    """
    client = _client(config)
    runtime = kfp_server_api.V2beta1RuntimeConfig(
        parameters=dict(request.parameters), pipeline_root=request.root
    )
    run = {
        "pipeline_spec": _pipeline_spec(request),
        "runtime_config": runtime,
        "service_account": config.service_account,
    }
    with _readable_errors(config):
        run["experiment_id"] = _experiment(client, config)
        if schedule:
            id_ = _id(_create_recurring_run(client, request.name, schedule, run), config)
            return Submitted(f"{_host(config)}/#/recurringrun/details/{id_}", None)
        runs = kfp_server_api.RunServiceApi(client)
        name = f"{request.name} {datetime.datetime.now():%Y-%m-%d %H-%M-%S}"
        created = runs.run_service_create_run(
            kfp_server_api.V2beta1Run(display_name=name, **run), _request_timeout=_TIMEOUT_S
        )
    id_ = _id(created.run_id, config)

    @retry.Retry(predicate=_is_temporary, timeout=PATIENCE_S)
    def get_run() -> kfp_server_api.V2beta1Run:
        return runs.run_service_get_run(id_, _request_timeout=_TIMEOUT_S)

    def poll() -> Progress:
        with _readable_errors(config):
            return _progress(get_run(), request.steps)

    return Submitted(f"{_host(config)}/#/runs/details/{id_}", poll)


def _pipeline_spec(request: Submission) -> dict[str, Any]:
    """Returns the content of a compiled file in the form in which the client of `kfp` sends it."""
    spec, *platform = kubernetes.documents(request.compiled)
    return {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec


def _host(config: KfpConfig) -> str:
    if config.host is None or not config.host.startswith(("http://", "https://")):
        raise ConfigError(
            "kubeflow.kfp.host: expected the URL of Kubeflow Pipelines, such as http://localhost:8080; found "
            f"{config.host or 'nothing'}. Pass it as --host"
        )
    return config.host.rstrip("/")


def _client(config: KfpConfig) -> kfp_server_api.ApiClient:
    settings = kfp_server_api.Configuration(host=_host(config))
    settings.retries = False
    if config.ca_file:
        _read("ca_file", config.ca_file)
        settings.ssl_ca_cert = str(Path(config.ca_file).expanduser())
    if config.token_file:
        settings.api_key["authorization"] = _read_secret("token_file", config.token_file)
        settings.api_key_prefix["authorization"] = "Bearer"
    cookie = _read_secret("cookie_file", config.cookie_file) if config.cookie_file else None
    return kfp_server_api.ApiClient(settings, cookie=cookie)


def _read(key: str, file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"kubeflow.kfp.{key}: {file}: {reason}") from None


def _read_secret(key: str, file: str) -> str:
    secret = _read(key, file)
    if not secret or not secret.isprintable():
        # The message must not show the content, which may be a secret.
        raise ConfigError(f"kubeflow.kfp.{key}: {file}: expected one line, found {len(secret.split())} words")
    return secret


def _experiment(client: kfp_server_api.ApiClient, config: KfpConfig) -> str:
    """Returns the id of the experiment; creates the experiment if it does not exist."""
    api = kfp_server_api.ExperimentServiceApi(client)
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": config.experiment}
    place = {"namespace": config.namespace} if config.namespace else {}
    found = api.experiment_service_list_experiments(
        filter=json.dumps({"predicates": [predicate]}), _request_timeout=_TIMEOUT_S, **place
    )
    for experiment in found.experiments or []:
        return experiment.experiment_id
    created = api.experiment_service_create_experiment(
        kfp_server_api.V2beta1Experiment(display_name=config.experiment, **place),
        _request_timeout=_TIMEOUT_S,
    )
    return _id(created.experiment_id, config)


def _create_recurring_run(
    client: kfp_server_api.ApiClient, name: str, schedule: str, run: dict[str, Any]
) -> str | None:
    created = kfp_server_api.RecurringRunServiceApi(client).recurring_run_service_create_recurring_run(
        kfp_server_api.V2beta1RecurringRun(
            display_name=name,
            # Kubeflow's cron has a sixth field, the second, which comes first.
            trigger=kfp_server_api.V2beta1Trigger(
                cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=f"0 {schedule}")
            ),
            mode=kfp_server_api.RecurringRunMode.ENABLE,
            max_concurrency="1",
            no_catchup=True,
            **run,
        ),
        _request_timeout=_TIMEOUT_S,
    )
    return created.recurring_run_id


def _id(id_: str | None, config: KfpConfig) -> str:
    if not id_:
        raise SubmissionError(
            f"{config.host} does not answer like Kubeflow Pipelines. If it asks for a login, set "
            "kubeflow.kfp.token_file or kubeflow.kfp.cookie_file"
        )
    return id_


def _progress(run: kfp_server_api.V2beta1Run, names: list[str]) -> Progress:
    details = run.run_details.task_details if run.run_details else None
    # Kubeflow also lists its own drivers and the run itself.
    steps = {
        task.display_name: (task.state, task.error.message if task.error else None)
        for task in details or []
        if task.display_name in names
    }
    return progress(run.state, steps, run.error.message if run.error else None)


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, kfp_server_api.ApiException):
        return bool(error.status) and error.status >= _SERVER_ERROR
    return isinstance(error, urllib3.exceptions.HTTPError)


@contextlib.contextmanager
def _readable_errors(config: KfpConfig) -> Iterator[None]:
    """Turns errors of the client into a SubmissionError that says what went wrong and what to do."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        raise SubmissionError(_explain(error, config)) from None
    except AttributeError as error:
        # The client fails on its own exception if that has no body, as after an error of TLS.
        if not isinstance(error.__context__, kfp_server_api.ApiException):
            raise
        raise SubmissionError(_explain(error.__context__, config)) from None
    except (urllib3.exceptions.HTTPError, exceptions.RetryError) as error:
        cause = getattr(error, "cause", None) or error
        raise SubmissionError(
            f"cannot reach Kubeflow Pipelines at {config.host} ({cause}). Check that the address "
            "is right and that the port is forwarded"
        ) from None


def _explain(error: kfp_server_api.ApiException, config: KfpConfig) -> str:
    message = _message(error)
    if error.status in (_UNAUTHORIZED, _FORBIDDEN):
        return (
            f"{config.host} does not accept these credentials: {message}. Set kubeflow.kfp.token_file or "
            "kubeflow.kfp.cookie_file, and kubeflow.kfp.namespace if Kubeflow has several users"
        )
    if error.status == _NOT_FOUND:
        return f"{config.host} has no API of Kubeflow Pipelines 2: {message}"
    if not error.status:  # An error of TLS has no status.
        return f"cannot trust {config.host}: {message}; set kubeflow.kfp.ca_file to a file with certificates"
    return f"Kubeflow Pipelines refused the run: {message}"


def _message(error: kfp_server_api.ApiException) -> str:
    with contextlib.suppress(TypeError, ValueError):
        body = json.loads(error.body)
        if isinstance(body, dict) and (message := body.get("message") or body.get("error")):
            return str(message)
    return " ".join(str(error.reason).split())
