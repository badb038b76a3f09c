"""A stand-in for Vertex's service for custom jobs; the replicas are processes on this machine."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
from google.cloud.aiplatform_v1 import types

from tests import compiled
from tests.models import cluster

_SERVICE = "google.cloud.aiplatform.v1.JobService"
# Python runs this at its start in every container: it connects Google's client, without credentials, to the
# server on this machine.
_SITE_CUSTOMIZE = """
import grpc
import google.auth
from google.api_core import grpc_helpers
from google.auth.credentials import AnonymousCredentials

google.auth.default = lambda *_, **__: (AnonymousCredentials(), "project")
grpc_helpers.create_channel = lambda *_, **__: grpc.insecure_channel("{address}")
"""


class BackEnd(compiled.BackEnd):
    """A back end that also runs custom jobs.

    Attributes:
      jobs: the requests that created jobs, oldest first.
      replicas: exit codes and output of the last job's replicas, the chief first.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.jobs: list[types.CreateCustomJobRequest] = []
        self.replicas: list[cluster.Ended] = []
        self._site = folder / "site"
        self._replica_folder = folder / "replicas"
        self._running: threading.Thread | None = None

    def environment(self, directory: Path) -> dict[str, str]:
        environment = super().environment(directory)
        python_path = f"{environment['PYTHONPATH']}:{self._site}"
        return {**environment, "PYTHONPATH": python_path, "no_proxy": "localhost"}

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serves the API to Google's client in all containers while the body runs."""
        handlers = {
            "CreateCustomJob": grpc.unary_unary_rpc_method_handler(
                self._create, types.CreateCustomJobRequest.deserialize, types.CustomJob.serialize
            ),
            "GetCustomJob": grpc.unary_unary_rpc_method_handler(
                self._get, types.GetCustomJobRequest.deserialize, types.CustomJob.serialize
            ),
        }
        server = grpc.server(futures.ThreadPoolExecutor(1))
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
        port = server.add_insecure_port("localhost:0")
        self._site.mkdir()
        (self._site / "sitecustomize.py").write_text(_SITE_CUSTOMIZE.format(address=f"localhost:{port}"))
        server.start()
        try:
            yield
        finally:
            server.stop(None)
            shutil.rmtree(self._site)

    def _create(self, request: types.CreateCustomJobRequest, _: grpc.ServicerContext) -> types.CustomJob:
        self.jobs.append(request)
        self._running = threading.Thread(target=self._run_replicas, args=(request.custom_job.job_spec,))
        self._running.start()
        return self._job(types.JobState.JOB_STATE_PENDING)

    def _get(self, request: types.GetCustomJobRequest, _: grpc.ServicerContext) -> types.CustomJob:
        assert request.name == "custom-job"
        if self._running and self._running.is_alive():
            return self._job(types.JobState.JOB_STATE_RUNNING)
        succeeded = self.replicas and not any(replica.returncode for replica in self.replicas)
        state = types.JobState.JOB_STATE_SUCCEEDED if succeeded else types.JobState.JOB_STATE_FAILED
        return self._job(state)

    def _job(self, state: types.JobState) -> types.CustomJob:
        return types.CustomJob(name="custom-job", state=state)

    def _run_replicas(self, spec: types.CustomJobSpec) -> None:
        pools = spec.worker_pool_specs
        commands = [list(pool.container_spec.command) for pool in pools for _ in range(pool.replica_count)]
        configs = cluster.tf_configs([pool.replica_count for pool in pools])
        replicas = []
        for index, (command, config) in enumerate(zip(commands, configs, strict=True)):
            directory = self._replica_folder / str(index)
            directory.mkdir(parents=True)
            replicas.append((command, {**self.environment(directory), "TF_CONFIG": config}))
        self.replicas = cluster.run_all(replicas)
