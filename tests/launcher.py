"""Runs compiled pipelines as open-source Kubeflow does: with its launcher, an object store, and pods.

Follows kubeflow/pipelines at 0045064, backend/src/v2/component/launcher_v2.go: before a step the launcher
downloads every input artifact to a local path, which does not exist if the artifact has no files. It makes
the parent of each output's local path, but not the folder itself. After a step that succeeded it uploads each
output from there to the URI that the step has reported, and only warns about one that is not there. It
uploads nothing of a step that failed. Pods get volumes, secrets and retries from the second document
(kubernetes_platform/proto/kubernetes_executor_config.proto) and from the task's `retryPolicy`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import s3fs
import yaml
from gcsfs.core import GCSFileSystem
from moto.server import ThreadedMotoServer

from pipeline.kubeflow import local_copies
from tests import compiled, google_storage

# Secrets of an installation, by name.
SECRETS = {"mlpipeline-minio-artifact": {"accesskey": "minio", "secretkey": "minio123"}}
BUCKET = "mlpipeline"


class Store:
    """An object store on this machine, for the buckets of all schemes that it serves.

    Attributes:
      endpoint: its address.
      variables: environment variables with which the commands of this project find it.
      pusher_variables: environment variables with which the Pusher finds it, beside those of secrets.
    """

    def __init__(
        self,
        files: s3fs.S3FileSystem | GCSFileSystem,
        endpoint: str,
        variables: Mapping[str, str],
        pusher_variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.endpoint = endpoint
        self.variables = variables
        self.pusher_variables = pusher_variables
        self._files = files

    def list(self, uri: str) -> list[str]:
        """Returns the paths of all objects below a URI, relative to it."""
        prefix = _key(uri)
        # TensorFlow marks a folder by an object whose name ends with a slash.
        files = (path for path in self._files.find(prefix) if not path.endswith("/"))
        return [path.removeprefix(f"{prefix}/") for path in files]

    def download(self, uri: str, target: Path) -> None:
        """Copies all objects below a URI into a folder, which need not exist."""
        for name in self.list(uri):
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(f"{_key(uri)}/{name}", str(file))

    def upload(self, source: Path, uri: str) -> None:
        """Copies the files of a folder below a URI."""
        for file in source.rglob("*"):
            if file.is_file():
                self._files.put_file(str(file), f"{_key(uri)}/{file.relative_to(source).as_posix()}")

    def remove(self, uri: str) -> None:
        """Deletes an object."""
        self._files.rm_file(_key(uri))

    def mark_folder(self, uri: str) -> None:
        """Writes the object without content with which some programs mark a folder."""
        self._files.call_s3(
            "put_object", Bucket=_key(uri).partition("/")[0], Key=_key(uri).partition("/")[2] + "/"
        )

    def read_json(self, uri: str) -> Any:
        """Returns the content of a JSON file."""
        return json.loads(self._files.cat_file(_key(uri)))


def _key(uri: str) -> str:
    scheme, separator, key = uri.partition("://")
    assert separator and scheme in ("minio", "s3", "gs"), f"unsupported storage scheme: {uri}"
    return key.rstrip("/")


@contextmanager
def store() -> Iterator[Store]:
    """Runs an empty store with the interface of S3, for minio:// and s3://, while the body runs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        # Servers of one process share their buckets.
        urllib.request.urlopen(f"{endpoint}/moto-api/reset", data=b"").close()
        secret = SECRETS["mlpipeline-minio-artifact"]
        key, password = secret["accesskey"], secret["secretkey"]
        files = s3fs.S3FileSystem(key=key, secret=password, endpoint_url=endpoint, use_listings_cache=False)
        files.mkdir(BUCKET)
        yield Store(files, endpoint, {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": password})
    finally:
        server.stop()


@contextmanager
def google_store(folder: Path) -> Iterator[Store]:
    """Runs an empty store with the interfaces of Google Cloud Storage, for gs://, while the body runs.

    Args:
      folder: an empty folder for a certificate.
    """
    with google_storage.serve(folder, BUCKET) as running:
        files = GCSFileSystem(endpoint_url=running.endpoint, token="anon", use_listings_cache=False)
        variables = {"STORAGE_EMULATOR_HOST": running.endpoint}
        # The account that a pod runs as; other steps than the Pusher get no access, as they need none.
        yield Store(files, running.endpoint, variables, running.variables)


class Kubeflow(compiled.BackEnd):
    """An installation of Kubeflow Pipelines.

    Attributes:
      store: the store of its artifacts.
      warnings: outputs that a step did not write, as `step: output`.
      tries: step -> number of times that its command was started.
      printed: step -> what its last process printed.
      kill_when_written: step -> folder; the first process of the step is killed when the folder has a file.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        super().__init__(folder)
        self.store = store
        self.warnings: list[str] = []
        self.tries: dict[str, int] = {}
        self.printed: dict[str, str] = {}
        self.kill_when_written: dict[str, Path] = {}
        self._pods = folder / "pods"
        self._platform: Mapping[str, Any] = {}

    def submit(self, file: Path, *args: Any, **kwargs: Any) -> compiled.Run:
        """Runs a compiled pipeline with its second document, if it has one."""
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        platform = documents[1]["platforms"]["kubernetes"] if documents[1:] else {}
        self._platform = platform.get("deploymentSpec", {}).get("executors", {})
        return super().submit(file, *args, **kwargs)

    def _execute(self, task: compiled.Task, run: compiled.Run) -> compiled.Outputs:
        container = task.executor["container"]
        invocation = task.executor_input()
        assert "parameters" not in invocation["inputs"]
        key = json.dumps([container, invocation["inputs"]])
        if key in self._cache:
            run.cached.add(task.name)
            return self._cache[key]
        policy = task.definition.get("retryPolicy", {})
        # Kubeflow hands both to Argo, which takes only an integer as the factor, and the longest duration as
        # that of all tries together.
        assert float(policy.get("backoffFactor", 1)).is_integer()
        end = time.monotonic() + float(policy.get("backoffMaxDuration", "0s").removesuffix("s"))
        for remaining in reversed(range(1 + policy.get("maxRetryCount", 0))):
            self.tries[task.name] = self.tries.get(task.name, 0) + 1
            try:
                outputs = self._launch(task, container, invocation)
                break
            except compiled.StepFailedError:
                if not remaining or time.monotonic() > end:
                    raise
        self._cache[key] = outputs
        return outputs

    def _launch(
        self, task: compiled.Task, container: dict[str, Any], invocation: dict[str, Any]
    ) -> compiled.Outputs:
        """Starts a step in a new pod; only what the volumes hold has survived earlier pods."""
        shutil.rmtree(self._pods, ignore_errors=True)
        pod = self._pods / task.name
        pod.mkdir(parents=True)

        def path(uri: str) -> Path:
            with _environment({local_copies.PREFIX_VARIABLE: str(pod)}):
                return Path(local_copies.local_path(uri))

        for artifacts in invocation["inputs"]["artifacts"].values():
            for artifact in artifacts["artifacts"]:
                self.store.download(artifact["uri"], path(artifact["uri"]))
        output_file = pod / "tmp" / "kfp_outputs" / "output_metadata.json"
        invocation = {**invocation, "outputs": {**invocation["outputs"], "outputFile": str(output_file)}}
        for artifacts in invocation["outputs"]["artifacts"].values():
            for artifact in artifacts["artifacts"]:
                path(artifact["uri"]).parent.mkdir(parents=True, exist_ok=True)
        variables = {
            **compiled.container_variables(task),
            **self._secrets(task),
            local_copies.PREFIX_VARIABLE: str(pod),
        }
        if task.name == "Pusher":
            variables |= self.store.pusher_variables
        self._start(task, container["command"] + container["args"], invocation, variables)
        reported = json.loads(output_file.read_text(encoding="utf-8")) if output_file.exists() else {}
        outputs: compiled.Outputs = {}
        for output, artifact_type in task.output_types().items():
            (artifact,) = invocation["outputs"]["artifacts"][output]["artifacts"]
            local = path(artifact["uri"])
            if local.exists():
                self.store.upload(local, artifact["uri"])
            else:
                self.warnings.append(f"{task.name}: {output}")
            (update,) = reported["artifacts"][output]["artifacts"]
            assert update["uri"] == artifact["uri"], "a step reports the URIs of the store"
            recorded = {**artifact, "type": artifact_type, "metadata": update.get("metadata", {})}
            outputs[output] = [self._record(recorded)]
        return outputs

    def _start(
        self, task: compiled.Task, command: list[str], invocation: dict[str, Any], variables: dict[str, str]
    ) -> None:
        directory = self._pods / "home"
        directory.mkdir()
        log = self._pods / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [argument.replace("{{$}}", json.dumps(invocation)) for argument in command],
                cwd=directory,
                env={**self.environment(directory), **variables},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            folder = self.kill_when_written.pop(task.name, None)
            while process.poll() is None:
                if folder and folder.is_dir() and any(folder.glob("[!.]*.npz")):
                    process.kill()
                time.sleep(0.02)
        self.printed[task.name] = log.read_text(encoding="utf-8", errors="replace")
        if process.returncode:
            raise compiled.StepFailedError(f"{task.name}: {self.printed[task.name][-2000:]}")

    def _secrets(self, task: compiled.Task) -> dict[str, str]:
        config = self._platform.get(task.executor_label, {})
        return {
            entry["envVar"]: SECRETS[secret["secretNameParameter"]["runtimeValue"]["constant"]][
                entry["secretKey"]
            ]
            for secret in config.get("secretAsEnv", ())
            for entry in secret["keyToEnv"]
        }


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
