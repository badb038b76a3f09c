"""Reads runs from Kubeflow Pipelines' own API, version v2beta1: its runs, their tasks, and ids of artifacts.

The API of Kubeflow Pipelines 2 tells of an artifact only its id and by which tasks it was made and used. Its
type is taken from the pipeline's definition. Places and properties are in the store of ML Metadata alone.
"""

from __future__ import annotations

import datetime
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import kfp_server_api
import urllib3

from lineage import model
from lineage.model import Artifact, Execution, LineageError, Run, Store

_TIMEOUT_SECONDS = 10
_PAGE_SIZE = 100
_STATES = {
    "PENDING": model.RUNNING,
    "RUNNING": model.RUNNING,
    "CANCELING": model.RUNNING,
    "PAUSED": model.RUNNING,
    "SUCCEEDED": model.COMPLETE,
    "SKIPPED": model.CACHED,  # the task's results came from the cache
    "FAILED": model.FAILED,
    "CANCELED": model.CANCELED,
}


def read(host: str) -> Store:
    """Reads the runs of an installation, which is not changed.

    Args:
      host: address of the API, such as http://localhost:8888.

    Raises:
      LineageError: nothing answers there, or something else than Kubeflow Pipelines.
    """
    if urllib.parse.urlsplit(host).scheme not in ("http", "https"):
        raise LineageError(f"--kfp {host}: expected an address such as http://localhost:8888")
    configuration = kfp_server_api.Configuration(host=host.rstrip("/"))
    configuration.retries = False
    try:
        listed = list(_list_runs(kfp_server_api.RunServiceApi(kfp_server_api.ApiClient(configuration))))
    except kfp_server_api.ApiException as error:
        raise LineageError(f"--kfp {host}: the API refused: {error.status} {error.reason}") from None
    except (urllib3.exceptions.HTTPError, ValueError, AttributeError, TypeError) as error:
        raise LineageError(f"--kfp {host}: expected the API of Kubeflow Pipelines: {error}") from None
    return _build(host, listed)


def _list_runs(api: kfp_server_api.RunServiceApi) -> Iterator[Any]:
    token = ""
    while True:
        page = api.run_service_list_runs(
            page_token=token, page_size=_PAGE_SIZE, sort_by="created_at", _request_timeout=_TIMEOUT_SECONDS
        )
        yield from page.runs or ()
        if not (token := page.next_page_token):
            return


def _build(host: str, listed: list[Any]) -> Store:
    runs: list[Run] = []
    executions: list[Execution] = []
    artifacts: dict[str, Artifact] = {}
    for each in listed:
        run = Run(each.run_id, each.display_name or "", _milliseconds(each.created_at), _describe(each))
        run.state = _STATES.get(str(each.state), model.UNCONFIRMED)
        spec = each.pipeline_spec if isinstance(each.pipeline_spec, Mapping) else {}
        # Kubeflow adds a task for the whole run and one for each driver.
        details = (each.run_details.task_details if each.run_details else None) or ()
        tasks = [task for task in details if task.execution_id and task.display_name in _tasks(spec)]
        for task in sorted(tasks, key=lambda task: (_milliseconds(task.create_time), task.task_id)):
            execution = _execution(task, spec, run)
            run.executions.append(execution)
            executions.append(execution)
            events = [
                (
                    execution,
                    artifacts.setdefault(number, _artifact(number, name, task, spec)),
                    name,
                    is_output,
                )
                for is_output, lists in ((False, task.inputs), (True, task.outputs))
                for name, ids in (lists or {}).items()
                for number in ids.artifact_ids or ()
            ]
            model.connect(events)
        runs.append(run)
    return Store(host, runs, executions, list(artifacts.values()))


def _describe(run: Any) -> dict[str, Any]:
    parameters = dict((run.runtime_config.parameters if run.runtime_config else None) or {})
    finished = _milliseconds(run.finished_at)
    seconds = (finished - _milliseconds(run.created_at)) / 1000 if finished else None
    return {**parameters, **({"seconds": seconds} if seconds and seconds > 0 else {})}


def _execution(task: Any, spec: Mapping[str, Any], run: Run) -> Execution:
    return Execution(
        id=str(task.execution_id),
        type=str(_component(task, spec).get("executorLabel", task.display_name)),
        component=task.display_name,
        state=_STATES.get(str(task.state), model.UNCONFIRMED),
        created=_milliseconds(task.start_time or task.create_time),
        updated=_milliseconds(task.end_time),
        properties={name: value for name, value in _constants(task, spec).items() if value is not None},
        run=run,
    )


def _artifact(number: str, name: str, task: Any, spec: Mapping[str, Any]) -> Artifact:
    component = _component(task, spec)
    kind = ""
    for definitions in ("outputDefinitions", "inputDefinitions"):
        described = component.get(definitions, {}).get("artifacts", {}).get(name, {}).get("artifactType", {})
        title = re.search(r"^title: *(\S+)", described.get("instanceSchema", ""), re.MULTILINE)
        kind = kind or described.get("schemaTitle", "") or (title[1] if title else "")
    created = _milliseconds(task.end_time or task.create_time)
    return Artifact(number, model.bare_type(kind or name), "", model.LIVE, created, {"name": name})


def _tasks(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = spec.get("pipeline_spec", spec)
    return inner.get("root", {}).get("dag", {}).get("tasks", {})


def _component(task: Any, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    name = _tasks(spec).get(task.display_name, {}).get("componentRef", {}).get("name")
    return spec.get("pipeline_spec", spec).get("components", {}).get(name, {})


def _constants(task: Any, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters of a task that its pipeline fixes."""
    parameters = _tasks(spec).get(task.display_name, {}).get("inputs", {}).get("parameters", {})
    return {name: given.get("runtimeValue", {}).get("constant") for name, given in parameters.items()}


def _milliseconds(moment: datetime.datetime | None) -> int:
    return int(moment.timestamp() * 1000) if moment else 0
