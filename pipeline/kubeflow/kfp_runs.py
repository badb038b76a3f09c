"""Runs and recurring runs on open-source Kubeflow Pipelines 2."""

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

# To connect, and to answer.
_TIMEOUT_S = (10, 60)
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _SERVER_ERROR = 401, 403, 404, 500


def submit(asked: Submission, config: KfpConfig, schedule: str | None = None) -> Submitted:
    """Starts a run, or a recurring run.

    Args:
      asked: what is to be run.
      config: where.
      schedule: when to run again and again, in cron's five fields; None runs once, at once.

    Raises:
      ConfigError: something is missing that has to be set, or a file cannot be read.
      SubmissionError: Kubeflow did not take it.
    """
    client = _client(config)
    runtime = kfp_server_api.V2beta1RuntimeConfig(parameters=dict(asked.parameters), pipeline_root=asked.root)
    run = {
        "pipeline_spec": dict(asked.compiled),
        "runtime_config": runtime,
        "service_account": config.service_account,
    }
    with _explained(config):
        run["experiment_id"] = _experiment(client, config)
        if schedule:
            id_ = _id(_recurring(client, asked.name, schedule, run), config)
            return Submitted(f"{_host(config)}/#/recurringrun/details/{id_}", None)
        runs = kfp_server_api.RunServiceApi(client)
        name = f"{asked.name} {datetime.datetime.now():%Y-%m-%d %H-%M-%S}"
        created = runs.run_service_create_run(
            kfp_server_api.V2beta1Run(display_name=name, **run), _request_timeout=_TIMEOUT_S
        )
    id_ = _id(created.run_id, config)

    @retry.Retry(predicate=_may_pass, timeout=PATIENCE_S)
    def ask() -> kfp_server_api.V2beta1Run:
        return runs.run_service_get_run(id_, _request_timeout=_TIMEOUT_S)

    def look() -> Progress:
        with _explained(config):
            return _progress(ask(), asked.steps)

    return Submitted(f"{_host(config)}/#/runs/details/{id_}", look)


def _host(config: KfpConfig) -> str:
    if config.host is None or not config.host.startswith(("http://", "https://")):
        raise ConfigError(
            "kubeflow.kfp.host: expected, there or as --host, the URL of Kubeflow Pipelines, such as "
            f"http://localhost:8080; found {config.host or 'nothing'}"
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
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise ConfigError(f"kubeflow.kfp.{key}: {file}: {reason}") from None


def _read_secret(key: str, file: str) -> str:
    secret = _read(key, file)
    if not secret or not secret.isprintable():
        # Not shown: whatever it is, it was kept as a secret.
        raise ConfigError(f"kubeflow.kfp.{key}: {file}: expected one line, found {len(secret.split())} words")
    return secret


def _experiment(client: kfp_server_api.ApiClient, config: KfpConfig) -> str:
    """Returns the id of the experiment; makes one where there is none."""
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


def _recurring(client: kfp_server_api.ApiClient, name: str, schedule: str, run: dict[str, Any]) -> str | None:
    created = kfp_server_api.RecurringRunServiceApi(client).recurring_run_service_create_recurring_run(
        kfp_server_api.V2beta1RecurringRun(
            display_name=name,
            # Kubeflow's cron begins with the second.
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
            f"{config.host} does not answer as Kubeflow Pipelines does. Does it ask for a login? Then set "
            "kubeflow.kfp.token_file or kubeflow.kfp.cookie_file"
        )
    return id_


def _progress(run: kfp_server_api.V2beta1Run, names: list[str]) -> Progress:
    details = run.run_details.task_details if run.run_details else None
    # Its own drivers and the run itself are listed, too.
    steps = {
        task.display_name: (task.state, task.error.message if task.error else None)
        for task in details or []
        if task.display_name in names
    }
    return progress(run.state, steps, run.error.message if run.error else None)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, kfp_server_api.ApiException):
        return bool(error.status) and error.status >= _SERVER_ERROR
    return isinstance(error, urllib3.exceptions.HTTPError)


@contextlib.contextmanager
def _explained(config: KfpConfig) -> Iterator[None]:
    """Says in a sentence what went wrong, and what helps."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        raise SubmissionError(_explain(error, config)) from None
    except AttributeError as error:
        # The client stumbles over its own exception where it has no body, as that of TLS has none.
        if not isinstance(error.__context__, kfp_server_api.ApiException):
            raise
        raise SubmissionError(_explain(error.__context__, config)) from None
    except (urllib3.exceptions.HTTPError, exceptions.RetryError) as error:
        cause = getattr(error, "cause", None) or error
        raise SubmissionError(
            f"cannot reach Kubeflow Pipelines at {config.host} ({cause}). Is it the right address, and is "
            "the port forwarded?"
        ) from None


def _explain(error: kfp_server_api.ApiException, config: KfpConfig) -> str:
    message = _message(error)
    if error.status in (_UNAUTHORIZED, _FORBIDDEN):
        return (
            f"{config.host} lets nobody in with these credentials: {message}. Set kubeflow.kfp.token_file or "
            "kubeflow.kfp.cookie_file, and kubeflow.kfp.namespace where there are several users"
        )
    if error.status == _NOT_FOUND:
        return f"{config.host} has no API of Kubeflow Pipelines 2: {message}"
    if not error.status:  # of TLS
        return f"cannot trust {config.host}: {message}; kubeflow.kfp.ca_file names a file with certificates"
    return f"Kubeflow Pipelines did not take it: {message}"


def _message(error: kfp_server_api.ApiException) -> str:
    with contextlib.suppress(TypeError, ValueError):
        body = json.loads(error.body)
        if isinstance(body, dict) and (message := body.get("message") or body.get("error")):
            return str(message)
    return " ".join(str(error.reason).split())
