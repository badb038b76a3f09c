"""Uploads a dataset directory to an object store, from which the steps of a compiled pipeline get it."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import posixpath
from pathlib import Path
from typing import Any

from datasets import digest as content
from datasets import directory, terminal
from settings.base import ConfigError
from settings.places import is_s3

# Holds the digest of the dataset's content; written last, so that it marks a complete upload.
DIGEST_FILE = "digest.txt"
_READ_BYTES = 2**20


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
        _check_place(files, root, uri)
        digest = terminal.compute_digest(dataset)
        marker = posixpath.join(root, DIGEST_FILE)
        if files.exists(marker) and files.cat_file(marker).decode() == f"{digest}\n":
            terminal.note(f"{uri} already holds this dataset")
            return digest
        # Until the upload is complete, the place must not claim to hold a dataset.
        if files.exists(marker):
            files.rm_file(marker)
        names = [path.relative_to(dataset.path).as_posix() for path in content.files(dataset.path)]
        total = sum((dataset.path / name).stat().st_size for name in names)
        with terminal.progress(f"Uploading {dataset.path.name}", total) as advance:
            for name in names:
                source, target = dataset.path / name, posixpath.join(root, name)
                if not _is_uploaded(files, source, target):
                    _put(files, source, target)
                advance(source.stat().st_size)
        for path in files.find(root):
            if posixpath.relpath(path, root) not in names:
                files.rm_file(path)  # shards of the dataset that was there before
        files.pipe_file(marker, f"{digest}\n".encode())
    except (directory.DatasetError, ConfigError):
        raise
    except Exception as error:  # the libraries of the stores raise exceptions of many types
        reason = str(error) or type(error).__name__
        raise ConfigError(
            f"cannot upload to {uri}: {reason}. Check the address and the credentials "
            f"({_credentials(uri)}); the same command goes on with the files that are missing"
        ) from error
    return digest


def _file_system(uri: str, endpoint: str | None) -> tuple[Any, str]:
    """Returns a file system of fsspec, and the path of the place in it."""
    scheme, separator, path = uri.partition("://")
    if not separator or not path.strip("/"):
        raise ConfigError(f"--data-uri: expected minio://, s3:// or gs:// with a bucket, found {uri}")
    try:
        if is_s3(uri):
            import s3fs  # noqa: PLC0415 - an optional package

            endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
            if scheme == "minio" and endpoint is None:
                raise ConfigError(
                    "--endpoint is missing: minio:// needs the address of the store, such as "
                    "http://localhost:9000 after `kubectl port-forward -n kubeflow svc/minio-service 9000`"
                )
            return s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False), path.rstrip("/")
        if scheme == "gs":
            # Not `gcsfs.GCSFileSystem`, which in newer versions asks by gRPC of which kind the bucket is, and
            # waits for minutes where only HTTP gets through.
            from gcsfs.core import GCSFileSystem  # noqa: PLC0415 - an optional package

            if endpoint is not None:
                raise ConfigError("--endpoint: gs:// has one address, that of Google; leave it out")
            # It would print the traceback of every exception that it raises.
            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
            return GCSFileSystem(use_listings_cache=False), path.rstrip("/")
    except ImportError as error:
        extra = "s3" if is_s3(uri) else "gs"
        raise ConfigError(
            f"{scheme}:// needs the package {error.name}, which is not installed. Install it with "
            f"`uv sync --inexact --extra {extra}`"
        ) from None
    raise ConfigError(f"--data-uri: expected minio://, s3:// or gs://, found {uri}")


def _check_place(files: Any, root: str, uri: str) -> None:
    found = {posixpath.relpath(path, root) for path in files.find(root)}
    ours = {directory.SCHEMA_FILE, directory.LABELS_FILE, DIGEST_FILE}
    shards = tuple(f"{split}/" for split in directory.SPLITS)
    foreign = sorted(name for name in found if name not in ours and not name.startswith(shards))
    if foreign:
        raise ConfigError(
            f"--data-uri: expected an empty place or one with a dataset directory, found {foreign[0]} at "
            f"{uri}; choose another place"
        )


def _is_uploaded(files: Any, source: Path, target: str) -> bool:
    """Returns whether an object has the content of a file, by the MD5 that the store has computed."""
    try:
        info = files.info(target)
    except FileNotFoundError:
        return False
    # The ETag of S3 is the MD5 of an object that was written in one part; any other differs from it, and the
    # file is then uploaded again.
    known = info.get("md5Hash") or str(info.get("ETag", "")).strip('"')
    if info.get("size") != source.stat().st_size or not known:
        return False
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
