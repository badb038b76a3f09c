"""Copies models to the places that servers watch, so that a server never sees a part of a version.

A version is a folder `<base>/<number>`; servers load the highest number. On a file system the folder gets its
name only when it is complete. An object store cannot rename, so `saved_model.pb`, without which no server
loads a version, is written last.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import re
import shutil
import socket
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf
from tfx.dsl.io import fileio

from datasets import atomic_directory, checksums
from settings.places import UNRECORDED, is_s3, unrecorded_mark

SAVED_MODEL = "saved_model.pb"
# The file beside the versions that says which one answers, and the number that stands for none.
ROUTES, NO_VERSION = "versions.json", 0
_NUMBER = re.compile(r"[0-9]+")
_CONNECT_SECONDS = 10  # for a connection to a store in the same cluster
# Parts of the messages of a full disk. TensorFlow, which copies the files, raises no OSError.
_FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT))


class PushError(RuntimeError):
    """A model cannot be pushed; the message names the place, the reason and what to do."""


class Destination(Protocol):
    """A place that holds the versions of one model."""

    def names(self) -> list[str]:
        """Returns the names of the entries of the place; none if it does not exist yet."""

    def write(self, files: Mapping[str, str], version: str) -> None:
        """Writes a version, completely or not at all.

        Args:
          files: relative path of each file in the version -> where it is read.
          version: name of the version's folder.
        """


def push(model: str, base: str, store: Mapping[str, Any], waits: bool = False) -> tuple[str, str]:
    """Pushes a model as the newest version.

    Args:
      model: folder of the SavedModel, on this machine or gs://.
      base: folder of the versions: a path, or a URI with the scheme gs, s3 or minio.
      store: for s3:// and minio://, the possible `endpoints` of the store, of which the first that answers
        is used; none for Amazon's own. Its credentials are in the usual environment variables,
        `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
      waits: whether the version that answers now goes on, until `serving.versions` promotes another one.
        Before the first promotion, none answers. Only `base` on this machine can hold versions that wait.

    Returns:
      (place of the version, its number). The number is the time in seconds since 1970, or one more than the
      highest number that is there already, so that servers always take this version as the newest.

    Raises:
      PushError: the place cannot be written, or the model is incomplete.
    """
    files = {posixpath.relpath(path, model): path for path in _files(model)}
    if SAVED_MODEL not in files:
        raise PushError(f"{model}: expected a SavedModel, found no {SAVED_MODEL} in it")
    try:
        destination = _destination(base, store)
        if waits:
            if not isinstance(destination, _Folder):
                raise PushError(f"{base}: only in a folder can a model wait; set pusher.promote=auto")
            destination.keep_what_answers()
        numbers = [int(name) for name in destination.names() if _NUMBER.fullmatch(name)]
        version = str(max([int(time.time()), *(number + 1 for number in numbers)]))
        if isinstance(destination, _Folder) and (pushed := destination.already_pushed(model, numbers)):
            version = pushed
        else:
            destination.write(files, version)
    except PushError:
        raise
    except Exception as error:  # stores raise exceptions of many libraries
        reason = str(error) or type(error).__name__
        if "://" not in base and any(text in reason for text in _FULL):
            reason = _describe_full_disk(base, files.values())
        raise PushError(f"cannot push the model to {base}: {reason}") from error
    return posixpath.join(base, version), version


def _describe_full_disk(base: str, sources: Iterable[str]) -> str:
    needed = sum(tf.io.gfile.stat(source).length for source in sources) / 1e6
    place = next(each for each in (Path(base), *Path(base).absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free / 1e6
    return (
        f"its disk is full. The model takes {needed:,.1f} MB, and {free:,.1f} MB are free. Remove old "
        "versions or other files there; the same command then pushes the model"
    )


def _destination(base: str, store: Mapping[str, Any]) -> Destination:
    if "://" not in base:
        return _Folder(Path(base))
    return _S3(base, store.get("endpoints", ())) if is_s3(base) else _Bucket(base)


class _Folder:
    """A folder on this machine or on a mounted volume."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def names(self) -> list[str]:
        return [entry.name for entry in self._base.iterdir()] if self._base.is_dir() else []

    def write(self, files: Mapping[str, str], version: str) -> None:
        with atomic_directory.create(self._base / version) as partial:
            for name, source in files.items():
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                fileio.copy(source, str(target), overwrite=True)

    def already_pushed(self, model: str, numbers: Sequence[int]) -> str | None:
        """Returns the newest version if it is the model, and the push that wrote it was killed afterwards.

        `pipeline.local.abandoned` marks such a version, which ML Metadata does not know.
        """
        newest = str(max(numbers, default=0))
        marks = {name for name in self.names() if name.endswith(UNRECORDED)}
        for name in marks:
            (self._base / name).unlink()
        if unrecorded_mark(newest) not in marks or "://" in model:
            return None
        is_same = checksums.of_folder(Path(model)) == checksums.of_folder(self._base / newest)
        return newest if is_same else None

    def keep_what_answers(self) -> None:
        """Makes the version that answers go on when a newer one is there.

        Which one answers is in a file beside the versions, which `python -m serving.versions` writes and
        `serving.routing` describes. Its key `stable` has the number of the version, or 0 for none. As long as
        it is null, or there is no file, the newest version answers, apart from a `canary` and a `shadow`.

        Raises:
          PushError: the file is damaged.
        """
        file = self._base / ROUTES
        try:
            routes = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            if routes.get("stable") is not None:
                return
        except (ValueError, AttributeError) as error:
            raise PushError(f"{file}: expected a JSON object from serving.versions, found {error}") from None
        complete = [name for name in self.names() if (self._base / name / SAVED_MODEL).is_file()]
        versions = {int(name) for name in complete if _NUMBER.fullmatch(name)}
        others = versions - {routes.get("canary"), routes.get("shadow")}
        routes["stable"] = max(others or versions, default=NO_VERSION)
        self._base.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{ROUTES}.partial")  # A server never sees a part of the file.
        with partial.open("w", encoding="utf-8") as written:
            written.write(json.dumps(routes, indent=2) + "\n")
            written.flush()
            os.fsync(written.fileno())
        partial.replace(file)


class _Bucket:
    """A bucket of Google Cloud Storage, which TensorFlow reads and writes."""

    def __init__(self, base: str) -> None:
        self._base = base

    def names(self) -> list[str]:
        if not fileio.exists(self._base):
            return []
        return [name.rstrip("/") for name in map(os.fsdecode, fileio.listdir(self._base))]

    def write(self, files: Mapping[str, str], version: str) -> None:
        for name in _saved_model_last(files):
            target = posixpath.join(self._base, version, name)
            fileio.makedirs(posixpath.dirname(target))
            fileio.copy(files[name], target, overwrite=True)


class _S3:
    """A bucket of a store with the interface of S3, such as MinIO, SeaweedFS or Amazon's own."""

    def __init__(self, base: str, endpoints: Sequence[str]) -> None:
        import s3fs  # noqa: PLC0415 - an optional package, which only this kind of place needs.

        endpoint = _choose(endpoints, base)
        # The listing must not come from an earlier one.
        self._files = s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False)
        self._base = base.partition("://")[2].rstrip("/")

    def names(self) -> list[str]:
        try:
            return [posixpath.basename(path.rstrip("/")) for path in self._files.ls(self._base, detail=False)]
        except FileNotFoundError:
            return []

    def write(self, files: Mapping[str, str], version: str) -> None:
        for name in _saved_model_last(files):
            self._files.put_file(files[name], posixpath.join(self._base, version, name))


def _choose(endpoints: Sequence[str], base: str) -> str | None:
    """Returns the first address at which a server accepts connections; None if there are no addresses.

    Raises:
      PushError: several are possible, and none of them answers.
    """
    if len(endpoints) < 2:  # A server that is reached through a proxy need not accept connections itself.
        return endpoints[0] if endpoints else None
    failures = []
    for endpoint in endpoints:
        address = urllib.parse.urlsplit(endpoint)
        try:
            socket.create_connection((address.hostname, address.port or 80), _CONNECT_SECONDS).close()
        except OSError as error:
            failures.append(f"{endpoint} ({error})")
        else:
            return endpoint
    raise PushError(
        f"cannot push the model to {base}: no object store answers at {' or '.join(failures)}. "
        "`kubectl get svc -n kubeflow` lists the services; set the address of the store as "
        "kubeflow.kfp.store.endpoint and compile again"
    )


def _saved_model_last(files: Mapping[str, str]) -> list[str]:
    return sorted(files, key=lambda name: (name == SAVED_MODEL, name))


def _files(folder: str) -> Iterator[str]:
    for parent, _, names in fileio.walk(folder):
        yield from (posixpath.join(parent, name) for name in names)
