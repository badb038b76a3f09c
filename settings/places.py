"""Paths of artifacts, served models and metadata below the root directory of all runs."""

from __future__ import annotations

import posixpath
import re

from settings.base import ConfigError

# Schemes of object stores with the interface of S3, which neither TensorFlow nor Beam reads here.
_S3_SCHEMES = ("s3", "minio")
# Characters with which TFX and Beam describe several files at once, in every path that they are given.
_PATTERN_CHARACTERS = "*?[]\\"
# First argument of the entry point of a step on Kubeflow that uses local copies of its artifacts.
LOCAL_COPIES = "local-copies"
UNRECORDED = ".unrecorded"  # the end of the names of `unrecorded_mark`
DATA_URI = "kubeflow.data_uri"  # the setting of where the steps read the dataset directory
METADATA_FILE = "metadata.sqlite"  # ML Metadata database of all local runs
LOCK_FILE = ".lock"  # which a local run locks as long as it lasts


def unrecorded_mark(version: str) -> str:
    """Returns the name of the file beside a version that says that no record in ML Metadata names it."""
    return f".{version}{UNRECORDED}"


def pipeline_directory(root: str, name: str) -> str:
    """Returns the directory of a pipeline's artifacts."""
    return posixpath.join(root, "pipelines", name)


def serving_directory(root: str, name: str) -> str:
    """Returns the directory that the Pusher writes blessed models to."""
    return posixpath.join(root, "serving", name)


def is_s3(uri: str) -> bool:
    """Returns whether a URI names a place in an object store with the interface of S3."""
    return uri.startswith(tuple(f"{scheme}://" for scheme in _S3_SCHEMES))


def is_in_store(uri: str | None) -> bool:
    """Returns whether a URI has the scheme of an object store that Kubeflow copies artifacts from and to."""
    return uri is not None and (is_s3(uri) or uri.startswith("gs://"))


def scheme_and_bucket(uri: str) -> tuple[str, str]:
    """Returns the scheme and the bucket of a URI, such as (`minio`, `mlpipeline`)."""
    scheme, _, rest = uri.partition("://")
    return scheme, rest.partition("/")[0]


def check_uri(key: str, uri: str, *, is_artifact: bool) -> None:
    """Checks that a URI of an object store names a place in it.

    Args:
      key: the setting or flag, for the message.
      uri: URI with the scheme minio, s3 or gs.
      is_artifact: whether Kubeflow copies what is there, which has to be a folder in the bucket.

    Raises:
      ConfigError: the URI has no bucket, no folder or a folder without a name of its own.
    """
    scheme, _, rest = uri.partition("://")
    bucket, *folders = rest.removesuffix("/").split("/")
    if not bucket:
        problem = f"{scheme}://BUCKET/..., whose bucket is missing"
    elif {"", ".", ".."} & {bucket, *folders}:
        problem = "a place without empty folders, `.` and `..`, which object stores do not resolve"
    elif is_artifact and not folders:
        problem = (
            f"a folder in the bucket, such as {scheme}://{bucket}/data, since Kubeflow copies no whole bucket"
        )
    else:
        return
    raise ConfigError(f"{key}: expected {problem}; found {uri}")


def check_reachable(
    key: str, uri: str | None, target: str, *, is_artifact: bool, copied: bool, runner: str = "a cluster"
) -> None:
    """Checks that the steps of a compiled pipeline can reach a place.

    Args:
      key: the setting, for the message.
      uri: the place; None if the setting is missing.
      target: `vertex` or `kfp`.
      is_artifact: see `check_uri`.
      copied: whether Kubeflow copies the artifacts between the store and the steps.
      runner: the runner of Beam whose workers read and write the places, for the message.

    Raises:
      ConfigError: they cannot.
    """
    if is_in_store(uri) and (copied or not is_s3(uri or "")):
        check_uri(key, uri or "", is_artifact=is_artifact and target == "kfp")
        return
    found = uri or "nothing"
    if copied:
        hint = ". `kubeflow_runner.py upload` puts a dataset directory there" if key == DATA_URI else ""
        raise ConfigError(
            f"{key}: expected minio://BUCKET/..., s3://BUCKET/... or gs://BUCKET/..., the stores that "
            f"Kubeflow copies artifacts from and to; found {found}{hint}"
        )
    if target == "kfp":
        raise ConfigError(
            f"{key}: expected gs://BUCKET/..., which the workers of beam.runner={runner} read and write "
            f"themselves; found {found}. Use beam.runner=direct for other stores"
        )
    hint = ". The flag --data-uri sets it" if key == DATA_URI else ""
    raise ConfigError(f"{key}: expected gs://BUCKET/...; found {found}{hint}")


def check_literal(path: str) -> str:
    """Checks that TFX and Beam read a path as it is, and not as a pattern of paths.

    Returns:
      The path, unchanged.

    Raises:
      ValueError: the path has a character that patterns are made of.
    """
    found = sorted(set(path) & set(_PATTERN_CHARACTERS))
    if found:
        raise ValueError(
            f"expected a path without {' and '.join(found)}, which TFX and Beam read as parts of a pattern; "
            "rename the folder or choose another one"
        )
    return path


def bucket_of(uri: str | None) -> str | None:
    """Returns the bucket of a gs:// URI, or None for any other value."""
    found = re.match(r"gs://([^/]+)", uri or "")
    return found and found[1]
