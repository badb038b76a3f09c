"""Finds images in files, folders and TFRecords, and reads them."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

STDIN = "-"
# Suffixes of the images that are taken from folders. Those that models cannot decode are among them, because
# they get a line that says so.
_SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".gif", ".bmp"),
        *(".jpe", ".jfif", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif"),
    )
)
_RECORDS = "tfrecord"  # in the names of TFRecord files
_IMAGE, _ID = "image", "id"  # features of a tf.train.Example
MAX_BYTES = 2**28  # of an encoded image
_COMPRESSIONS = ("", "GZIP", "ZLIB")


@dataclass(frozen=True, slots=True)
class Image:
    """An image to answer, or the reason why it could not be read.

    Attributes:
      path: its file; `-` for standard input.
      encoded: the bytes of the image.
      record: position of its record in the file, from 0; None if the file is the image.
      id: the feature `id` of its record; None if there is none.
      error: why there are no bytes; empty if there are.
    """

    path: str
    encoded: bytes = b""
    record: int | None = None
    id: str | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A file with an image or with records.

    Attributes:
      path: path of the file; `-` for standard input.
      kind: what it holds.
      size: its bytes; 0 if they are not known.
    """

    path: str
    kind: Literal["image", "records"]
    size: int


@dataclass(frozen=True, slots=True)
class Unread:
    """An image that is read when it is needed.

    Attributes:
      path: its file; `-` for standard input.
      size: how many bytes of the file it takes, about.
      record: position of its record in the file; None if the file is the image.
      content: the record; None if the file is the image.
      error: why the record could not be read; empty if it was.
    """

    path: str
    size: int
    record: int | None = None
    content: bytes | None = None
    error: str = ""

    def read(self) -> Image:
        """Reads the image; the errors of reading become its `error`."""
        if self.error:
            return Image(self.path, record=self.record, error=self.error)
        if self.content is not None:
            return from_example(self.path, self.record or 0, self.content)
        try:
            if self.path == STDIN:
                encoded = sys.stdin.buffer.read(MAX_BYTES + 1)
            else:
                with Path(self.path).open("rb") as file:
                    # Memory is taken for as many bytes as are asked for, and not all files have their size.
                    encoded = file.read(min(self.size, MAX_BYTES) + 1)
                    if len(encoded) > self.size:
                        encoded += file.read(MAX_BYTES)
        except OSError as error:
            return Image(self.path, error=f"cannot be read: {error.strerror}")
        return from_file(self.path, encoded)


def from_file(path: str, encoded: bytes) -> Image:
    """Returns the image of a file, unless its bytes are too many or none."""
    if not encoded:
        return Image(path, error="the file is empty")
    if len(encoded) > MAX_BYTES:
        return Image(path, error=f"expected at most {MAX_BYTES // 2**20} MiB, found more")
    return Image(path, encoded)


def from_example(path: str, record: int, content: bytes) -> Image:
    """Returns the image of a record, a serialized tf.train.Example with an `image` and perhaps an `id`.

    Args:
      path: the file of the record.
      record: its position in the file, from 0.
      content: the record.
    """
    import tensorflow as tf  # noqa: PLC0415 - takes seconds; wrong arguments are reported before
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        feature = tf.train.Example.FromString(content).features.feature
    except DecodeError:
        return Image(path, record=record, error="the record is no tf.train.Example")
    names = [value for value in _values(feature, _ID) if value]
    name = names[0].decode("utf-8", "backslashreplace") if names else None
    encoded = _values(feature, _IMAGE)
    if len(encoded) != 1 or not encoded[0]:
        found = ", ".join(sorted(feature)) or "none"
        return Image(
            path,
            record=record,
            id=name,
            error=f"expected the bytes of one image in the feature {_IMAGE}; features of the record: {found}",
        )
    return Image(path, encoded[0], record, name)


def kind_of(path: str) -> Literal["image", "records"] | None:
    """Returns what a file holds, by its name; None if it is not one of an image or of TFRecords."""
    name = path.rpartition("/")[2].lower()
    if _RECORDS in name:
        return "records"
    return "image" if Path(name).suffix in _SUFFIXES else None


class Search:
    """Finds the images that the arguments of a command name.

    Attributes:
      left_out: suffix or kind -> number of the files of folders that are neither images nor TFRecords.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        """Checks the arguments.

        Args:
          arguments: files, folders, patterns, and `-` for standard input.

        Raises:
          FileNotFoundError: an argument names nothing.
        """
        for argument in arguments:
            if argument != STDIN and not _expand(argument):
                kind = "a file that the pattern matches" if glob.has_magic(argument) else "an image, a folder"
                raise FileNotFoundError(
                    f"{argument}: expected {kind}, a TFRecord file, or - for standard input; found nothing"
                )
        self._arguments = arguments
        self.left_out: Counter[str] = Counter()

    def files(self) -> Iterator[Found]:
        """Yields the files in the order of the arguments, those of a folder sorted by name.

        Only the names of one folder at a time are in memory.
        """
        self.left_out.clear()
        for argument in self._arguments:
            if argument == STDIN:
                yield Found(STDIN, "image", 0)
                continue
            for path in _expand(argument):
                if Path(path).is_dir():
                    yield from self._walk(path)
                else:
                    yield Found(path, kind_of(path) or "image", size_of(path) or 0)

    def images(self) -> Iterator[Unread]:
        """Yields the images, not read yet, in the order of the files."""
        for found in self.files():
            if found.kind == "records":
                yield from _records(found)
            else:
                yield Unread(found.path, found.size)

    def _walk(self, folder: str) -> Iterator[Found]:
        """Yields the files below a folder; links to folders are followed, once each."""
        folder = folder.rstrip("/") or "/"
        visited: set[tuple[int, int]] = set()
        for parent, folders, names in os.walk(folder, followlinks=True):
            status = Path(parent).stat()
            if (status.st_dev, status.st_ino) in visited:
                folders.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(name for name in names if not name.startswith(".")):
                kind, size = kind_of(name), size_of(f"{parent}/{name}")
                if size is None:
                    self.left_out["pipes, sockets and devices"] += 1
                elif kind is None:
                    self.left_out[Path(name).suffix.lower() or "no suffix"] += 1
                else:
                    yield Found(f"{parent}/{name}", kind, size)


def _expand(argument: str) -> list[str]:
    """Returns the paths that an argument names; a path that exists is no pattern."""
    if os.path.lexists(argument):
        return [argument]
    if not glob.has_magic(argument):
        return []
    # Path.glob takes no absolute patterns.
    found = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
    # `**` finds the files of folders by itself.
    return [path for path in found if not Path(path).is_dir()] if "**" in argument else found


def size_of(path: str) -> int | None:
    """Returns the bytes of a file; 0 of a broken link; None of a pipe or device, which may have no end."""
    try:
        status = Path(path).stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _records(file: Found) -> Iterator[Unread]:
    """Yields the records of a TFRecord file; a damaged one is the last."""
    import tensorflow as tf  # noqa: PLC0415 - see above

    number, read = 0, 0
    try:
        for content in _iterate(file.path, _compression(file.path)):
            # Of a compressed file, it is not known how many bytes were read.
            size = min(len(content), file.size - read)
            read += size
            yield Unread(file.path, size, number, content)
            number += 1
    except tf.errors.OpError as error:
        reason = f"cannot be read, nor can the rest of the file: {error.message.partition(';')[0]}"
        yield Unread(file.path, file.size - read, number, error=reason)


def _compression(path: str) -> str:
    """Returns how a TFRecord file is compressed, which its first record tells."""
    import tensorflow as tf  # noqa: PLC0415 - see above

    for compression in _COMPRESSIONS:
        try:
            next(_iterate(path, compression), None)
        except tf.errors.DataLossError:
            continue
        return compression
    return ""


def _iterate(path: str, compression: str) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    tf.data would lose the records before a damaged one that it has read ahead.
    """
    import tensorflow as tf  # noqa: PLC0415 - see above

    yield from tf.compat.v1.io.tf_record_iterator(path, tf.io.TFRecordOptions(compression))


def _values(feature: Any, name: str) -> list[bytes]:
    """Returns the bytes of a feature; asking for a feature that is missing would add it."""
    return list(feature[name].bytes_list.value) if name in feature else []
