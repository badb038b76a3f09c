"""Images and dataset directories on file systems that Beam reads, such as gs://.

Beam is imported by the functions that need it, because that takes seconds.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from google.protobuf import text_format

from datasets import directory
from datasets.directory import DatasetError


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """An image file on a file system that Beam reads.

    Attributes:
      path: URI or path of the file.
    """

    path: str

    def read(self) -> bytes:
        with _file_systems().open(self.path) as file:
            return file.read()


def is_uri(path: str) -> bool:
    """Returns whether a path is a URI, such as gs://bucket/folder."""
    return "://" in path


def create(path: str) -> BinaryIO:
    """Opens a new file for writing, for a `with` statement."""
    return _file_systems().create(path)


def list_files(folder: str) -> list[str]:
    """Lists all files below a folder.

    Args:
      folder: URI or path of the folder.

    Returns:
      The paths of the files relative to the folder, sorted.

    Raises:
      DatasetError: there is no file, or the folder cannot be read.
    """
    try:
        (match,) = _file_systems().match([posixpath.join(folder, "**")])
    except Exception as error:  # each file system raises its own errors
        raise DatasetError(f"cannot list the files below {folder}: {error}") from None
    start = folder.rstrip("/") + "/"
    found = sorted(each.path.removeprefix(start) for each in match.metadata_list)
    if not found:
        raise DatasetError(f"expected images below {folder}, found no files")
    return found


@contextmanager
def stage(out: str, class_names: Sequence[str]) -> Iterator[None]:
    """Creates a dataset directory, as a context manager whose body writes the shards.

    Object stores cannot rename a folder. Instead, the schema and the class names, without which the directory
    is incomplete, are written last, and everything is removed if the body raises.

    Args:
      out: URI or path of the new directory.
      class_names: name of each label, in the order of the labels.

    Raises:
      DatasetError: the directory has files, or the class names are invalid.
    """
    directory.check_class_names(class_names, "the class names")
    check_destination(out)
    try:
        yield
        schema = text_format.MessageToString(directory.build_schema(class_names), as_utf8=True)
        _write(posixpath.join(out, directory.LABELS_FILE), "".join(f"{name}\n" for name in class_names))
        _write(posixpath.join(out, directory.SCHEMA_FILE), schema)
    except BaseException:
        remove(out)
        raise


def check_destination(out: str) -> None:
    """Checks that there are no files in a directory that is to be written.

    Raises:
      DatasetError: the directory has files, or cannot be read.
    """
    try:
        (match,) = _file_systems().match([posixpath.join(out, "**")], [1])
    except Exception as error:  # see `list_files`
        raise DatasetError(f"cannot read {out}: {error}") from None
    if match.metadata_list:
        raise DatasetError(f"{out} exists and is not an empty directory; remove it or choose another place")


def remove(folder: str) -> None:
    """Removes a folder with all files in it, if it exists."""
    file_systems = _file_systems()
    if is_uri(folder):
        (match,) = file_systems.match([posixpath.join(folder, "**")])
        if match.metadata_list:
            file_systems.delete([each.path for each in match.metadata_list])
    elif file_systems.exists(folder):
        file_systems.delete([folder])


def _write(path: str, text: str) -> None:
    with create(path) as file:
        file.write(text.encode())


def _file_systems() -> Any:
    from apache_beam.io.filesystems import FileSystems  # noqa: PLC0415

    return FileSystems
