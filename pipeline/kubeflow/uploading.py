"""Uploads a dataset directory to an object store, from which the steps of a compiled pipeline get it."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import logging
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import digest as content
from datasets import directory, terminal
from settings.base import ConfigError
from settings.places import check_uri, is_in_store, is_s3

# Holds the digest of the dataset's content; written last, so that it marks a complete upload.
DIGEST_FILE = "digest.txt"
_READ_BYTES = 2**20
_TRIES = 3  # of each request to Google; they take some 5 seconds together


def upload(data: Path, uri: str, endpoint: str | None) -> str:
    """Uploads a dataset directory; a repeated call uploads only the files that are missing or differ.

    Args:
      data: the dataset directory.
      uri: the new place, such as `minio://mlpipeline/cifar10` or `gs://bucket/cifar10`. A dataset that is
        there is replaced.
      endpoint: address of the store for s3:// and minio://; None for the value of AWS_ENDPOINT_URL or, with
        s3:// and without that, Amazon's own. None for gs://.

    Returns:
      The digest of the dataset's content, which is also written to `digest.txt` at the new place.

    Raises:
      ConfigError: the place cannot be used or written.
      DatasetError: the dataset directory is incomplete or damaged.
    """
    dataset = directory.read(data)
    files, root = _file_system(uri, endpoint)
    try:
        found = _list(files, root)
        _check_place(found, root, uri)
        digest = terminal.compute_digest(dataset)
        marker = posixpath.join(root, DIGEST_FILE)
        is_marked = DIGEST_FILE in found and files.cat_file(marker).decode() == f"{digest}\n"
        sources = {path.relative_to(dataset.path).as_posix(): path for path in content.files(dataset.path)}
        missing = {
            name: source
            for name, source in sources.items()
            if not _is_uploaded(found.get(name), source, if_unknown=is_marked)
        }
        older = found.keys() - sources.keys() - {DIGEST_FILE}
        if is_marked and not missing and not older:
            terminal.note(f"{uri} already holds this dataset")
            return digest
        # Until the upload is complete, the place must not claim to hold a dataset.
        if DIGEST_FILE in found:
            files.rm_file(marker)
        total = sum(source.stat().st_size for source in missing.values())
        with terminal.progress(f"Uploading {dataset.path.name}", total, in_bytes=True) as advance:
            for name, source in missing.items():
                _put(files, source, posixpath.join(root, name))
                advance(source.stat().st_size)
        for name in older:
            files.rm_file(posixpath.join(root, name))
        files.pipe_file(marker, f"{digest}\n".encode())
    except (directory.DatasetError, ConfigError):
        raise
    except Exception as error:  # the libraries of the stores raise exceptions of many types
        reason = str(error) or type(error).__name__
        raise ConfigError(
            f"cannot upload to {uri}: {reason}. Check the network, the address and the credentials "
            f"({_credentials(uri)}); the same command goes on with the files that are missing"
        ) from error
    return digest


def _file_system(uri: str, endpoint: str | None) -> tuple[Any, str]:
    """Returns a file system of fsspec, and the path of the place in it."""
    scheme, _, path = uri.partition("://")
    if not is_in_store(uri):
        raise ConfigError(f"--data-uri: expected minio://, s3:// or gs:// with a bucket, found {uri}")
    # Steps on Vertex read a whole bucket themselves.
    check_uri("--data-uri", uri, is_artifact=is_s3(uri))
    try:
        if is_s3(uri):
            import s3fs  # noqa: PLC0415 - an optional package

            endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
            if scheme == "minio" and endpoint is None:
                raise ConfigError(
                    "--endpoint is missing: minio:// needs the address of the store, such as "
                    "http://localhost:9000 after `kubectl port-forward -n kubeflow svc/seaweedfs 9000`, or "
                    "svc/minio-service in older installations; `kubectl get svc -n kubeflow` lists both"
                )
            return s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False), path.rstrip("/")
        if endpoint is not None:
            raise ConfigError("--endpoint: gs:// has one address, that of Google; leave it out")
        return _google_storage(), path.rstrip("/")
    except ImportError as error:
        raise ConfigError(
            f"{scheme}:// needs the package {error.name}, which this environment does not have. `make run` "
            "installs it with everything else in .venv"
        ) from None


def _google_storage() -> Any:
    # Not `gcsfs.GCSFileSystem`, which in newer versions asks by gRPC of which kind the bucket is, and waits
    # for minutes where only HTTP gets through.
    from gcsfs import core, retry  # noqa: PLC0415 - an optional package

    class Storage(core.GCSFileSystem):
        # By default, a machine without a network waits for almost a minute.
        _request = retry.retry_request(retries=_TRIES)(core.GCSFileSystem._request.__wrapped__)

    # It would print the traceback of every exception that it raises.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # Without credentials, google.auth looks for Google's metadata server, by default three times.
    os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    return Storage(use_listings_cache=False)


def _list(files: Any, root: str) -> dict[str, dict[str, Any]]:
    """Returns the objects below a place: name relative to it -> what the store knows of the object."""
    found = files.find(root, detail=True)
    return {path.removeprefix(root).removeprefix("/"): info for path, info in found.items()}


def _check_place(found: Mapping[str, Mapping[str, Any]], root: str, uri: str) -> None:
    """Raises a ConfigError if a place has files that are not those of a dataset directory."""
    folders = {"", *directory.SPLITS}
    for name, info in found.items():
        if name.rstrip("/") in folders and not info.get("size"):
            key = posixpath.join(root, name).partition("/")[2].rstrip("/") + "/"
            raise ConfigError(
                f"--data-uri: the store has an object {key!r} without content at {uri}, with which some "
                "programs mark a folder. Kubeflow would copy it as a file; delete it"
            )
    ours = {directory.SCHEMA_FILE, directory.LABELS_FILE, DIGEST_FILE}
    # An upload begins with these files, so that shards without them are not ours to delete.
    is_dataset = bool(ours & found.keys())
    foreign = sorted(name for name in found if not (is_dataset and (name in ours or _is_shard(name))))
    if foreign:
        raise ConfigError(
            "--data-uri: expected an empty place or one with a dataset directory, found "
            f"{foreign[0] or 'a file'} at {uri}; choose another place"
        )


def _is_shard(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return folder in directory.SPLITS and fnmatch.fnmatchcase(file, directory.SHARD_PATTERN)


def _is_uploaded(info: Mapping[str, Any] | None, source: Path, *, if_unknown: bool) -> bool:
    """Returns whether an object has the content of a file, by the MD5 that the store has computed.

    Args:
      info: what the store knows of the object; None if there is none.
      source: the file.
      if_unknown: the answer for an object of the same size whose MD5 the store does not know.
    """
    if info is None or info.get("size") != source.stat().st_size:
        return False
    # The ETag of S3 is the MD5 of an object that was written in one part.
    known = info.get("md5Hash") or str(info.get("ETag", "")).strip('"')
    if not known or "-" in known:
        return if_unknown
    md5 = hashlib.md5(usedforsecurity=False)
    with source.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            md5.update(chunk)
    return known in (md5.hexdigest(), base64.b64encode(md5.digest()).decode())


def _put(files: Any, source: Path, target: str) -> None:
    files.put_file(str(source), target)


def _credentials(uri: str) -> str:
    if is_s3(uri):
        return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile of AWS"
    return "`gcloud auth application-default login`"
