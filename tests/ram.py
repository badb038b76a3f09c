"""Registers TensorFlow's file system in memory, `ram://`, with Beam, as a stand-in for a bucket.

Only TensorFlow's own file access can reach it. Code that opens a file there in another way fails, or writes
to the local file system.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import tensorflow as tf
from apache_beam.io import filesystem

# Taken before any test replaces it: `tf.io.gfile` looks its functions up when they are first used.
_listdir = tf.io.gfile.listdir


def children(folder: str) -> list[str]:
    """Lists a folder, without entries that `tf.io.gfile.listdir` invents on `ram://`.

    It also lists `assets.extra` as `.extra` in the folder `assets`.
    """
    return [name for name in _listdir(folder) if tf.io.gfile.exists(f"{folder.rstrip('/')}/{name}")]


class _WriteBuffer(io.BytesIO):
    """A buffer whose content is written to the file when it is closed."""

    mode = "wb"

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def close(self) -> None:
        if not self.closed:
            with tf.io.gfile.GFile(self._path, "wb") as file:
                file.write(self.getvalue())
        super().close()


class _ReadBuffer(io.BytesIO):
    mode = "rb"


class RamFileSystem(filesystem.FileSystem):
    """`ram://` for Beam, which finds all subclasses of its FileSystem by itself."""

    @classmethod
    def scheme(cls) -> str:
        return "ram"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *(path.strip("/") for path in paths)])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        if tf.io.gfile.exists(path):
            raise OSError(f"{path} exists")
        tf.io.gfile.makedirs(path)

    def has_dirs(self) -> bool:
        return True

    def _list(self, dir_or_prefix: str) -> Iterator[filesystem.FileMetadata]:
        for folder, _, files in tf.io.gfile.walk(dir_or_prefix):
            for name in files:
                yield self.metadata(self.join(folder, name))

    def create(
        self,
        path: str,
        mime_type: str = "application/octet-stream",
        compression_type: str = filesystem.CompressionTypes.AUTO,
    ) -> BinaryIO:
        return self._compressed(_WriteBuffer(path), path, compression_type)

    def open(
        self,
        path: str,
        mime_type: str = "application/octet-stream",
        compression_type: str = filesystem.CompressionTypes.AUTO,
    ) -> BinaryIO:
        with tf.io.gfile.GFile(path, "rb") as file:
            content = _ReadBuffer(file.read())
        return self._compressed(content, path, compression_type)

    def _compressed(self, file: io.BytesIO, path: str, compression_type: str) -> BinaryIO:
        compression = self._get_compression_type(path, compression_type)
        if compression == filesystem.CompressionTypes.UNCOMPRESSED:
            return file
        return filesystem.CompressedFile(file, compression_type=compression)

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            tf.io.gfile.copy(source, destination, overwrite=True)

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            tf.io.gfile.rename(source, destination, overwrite=True)

    def exists(self, path: str) -> bool:
        return tf.io.gfile.exists(path)

    def size(self, path: str) -> int:
        return tf.io.gfile.stat(path).length

    def last_updated(self, path: str) -> float:
        return tf.io.gfile.stat(path).mtime_nsec / 1e9

    def metadata(self, path: str) -> filesystem.FileMetadata:
        return filesystem.FileMetadata(path, self.size(path), self.last_updated(path))

    def delete(self, paths: list[str]) -> None:
        for match in self.match(paths):
            for metadata in match.metadata_list:
                tf.io.gfile.remove(metadata.path)
        for path in paths:
            if tf.io.gfile.isdir(path):
                tf.io.gfile.rmtree(path)
