"""Downloads CIFAR-10, verifies its official binary archive and converts it to a dataset directory.

Source: https://www.cs.toronto.edu/~kriz/cifar.html. The archive is read as a stream and never unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Annotated

import numpy as np
import PIL.Image
import typer

from datasets import directory, overview, splitting, terminal
from datasets.directory import Dataset, DatasetError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"

_FOLDER = "cifar-10-batches-bin"
_TRAIN_FILES = tuple(f"{_FOLDER}/data_batch_{number}.bin" for number in range(1, 6))
_TEST_FILE = f"{_FOLDER}/test_batch.bin"
_NAMES_FILE = f"{_FOLDER}/batches.meta.txt"

# A record is one label byte, followed by the red, green and blue planes, each row by row.
_SIDE = 32
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE
# Mean size of the 60,000 images as PNG; used only to choose the number of shards.
_PNG_BYTES = 2300
# In bytes. The official archive has 184 MB of files, of which the list of class names has 61 bytes.
_MAX_UNPACKED_BYTES = 2**28
_MAX_NAMES_BYTES = 2**16

# Seconds to wait for the connection, and for each chunk of data. The short connection timeout reports a
# missing network soon.
_TIMEOUT = (5, 30)
_ATTEMPTS = 3


class DownloadError(DatasetError):
    """The archive cannot be downloaded."""


def convert(
    archive: Path,
    out: Path,
    md5: str | None = MD5,
    val_fraction: float = 0.1,
    seed: int = 0,
    per_class: int | None = None,
) -> Dataset:
    """Converts the binary archive to a dataset directory.

    Args:
      archive: a .tar.gz file in the official binary layout.
      out: the dataset directory to write.
      md5: expected MD5 of the archive in hexadecimal; None skips the check.
      val_fraction: fraction of each class's training images that becomes val.
      seed: seed of the choice of the val images and of the order of the examples.
      per_class: number of training images per class to use, including those of val, chosen at random; None
        uses all.

    Returns:
      The written dataset.

    Raises:
      DatasetError: the archive is damaged or has another checksum or layout, or `out` is not empty.
    """
    if md5 is not None:
        _verify(archive, md5)
    names, labels = _scan(archive)
    train_labels = [label for name in _TRAIN_FILES for label in labels[name]]
    # Indices into the training images of the archive.
    selected = sorted(splitting.choose(train_labels, per_class or len(train_labels), seed))
    val_positions = splitting.hold_out([train_labels[index] for index in selected], val_fraction, seed)
    val_indices = {selected[position] for position in val_positions}
    train_indices = set(selected) - val_indices
    sizes = {
        "train": len(train_indices),
        "val": len(val_indices),
        "test": len(labels[_TEST_FILE]),
    }
    expected_bytes = {split: size * _PNG_BYTES for split, size in sizes.items()}
    with (
        terminal.progress("Converting CIFAR-10", sum(sizes.values())) as advance,
        directory.create(out, names, expected_bytes, seed) as writer,
        _members(archive) as members,
    ):
        for name, file, size in members:
            if name == _NAMES_FILE:
                continue
            first = sum(len(labels[earlier]) for earlier in _TRAIN_FILES[: _batch_index(name)])
            for index, (label, png) in enumerate(_images(file, size), start=first):
                if name == _TEST_FILE:
                    split = "test"
                elif index in val_indices:
                    split = "val"
                elif index in train_indices:
                    split = "train"
                else:
                    continue
                # The ids are those of TFDS, in which the val images belong to train.
                source = "test" if split == "test" else "train"
                writer.add(split, image=png, label=label, id=f"{source}_{index:05d}".encode())
                advance(1)
    return directory.read(out)


def download(cache: Path | None = None) -> Path:
    """Downloads the official archive, unless a complete and verified download is in the cache.

    Args:
      cache: directory of the download; None selects the user's cache directory.

    Returns:
      Path of the archive.

    Raises:
      DownloadError: the server cannot be reached, the cache cannot be written, or the received file is not
        the archive.
    """
    # Imported here, because only a download needs them and the import takes half a second.
    import pooch  # noqa: PLC0415
    import requests  # noqa: PLC0415

    pooch.get_logger().setLevel(logging.WARNING)
    cache = cache or cache_folder()
    advice = (
        "Try again, pass an archive that you already have with "
        "`python -m datasets.cifar10 OUT --archive FILE`, or use the drawn images of `--data shapes`, which "
        "need no download"
    )
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _download_progress() as bar:
                found = pooch.retrieve(
                    URL,
                    known_hash=f"md5:{MD5}",
                    fname=PurePosixPath(URL).name,
                    path=cache,
                    downloader=pooch.HTTPDownloader(progressbar=bar, timeout=_TIMEOUT),
                )
            return Path(found)
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
            problem = f"the connection was interrupted ({error})"
        except requests.exceptions.RequestException as error:
            raise DownloadError(f"cannot download {URL}: {_cause(error)}. {advice}") from None
        except OSError as error:  # an error of this machine, since network errors are RequestExceptions
            raise DownloadError(f"cannot store the download in {cache}: {error}. {advice}") from None
        except ValueError:
            problem = f"the file is not the archive with the MD5 {MD5}; it may be incomplete"
        if attempt < _ATTEMPTS:
            terminal.note(f"{URL}: {problem}; downloading it again")
    raise DownloadError(f"cannot download {URL}: {problem}. {advice}")


def cache_folder() -> Path:
    """Returns the user's cache directory, in which downloaded archives are kept."""
    import pooch  # noqa: PLC0415 - see `download`

    return Path(pooch.os_cache("image-classification-pipeline"))


def prepare(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset directory to write.")],
    *,
    archive: Annotated[
        Path | None, typer.Option(help="Use this cifar-10-binary.tar.gz instead of downloading it.")
    ] = None,
    md5: Annotated[
        str, typer.Option(help="MD5 that --archive must have, for an archive other than the official one.")
    ] = MD5,
    cache: Annotated[
        Path | None, typer.Option(help="Directory for the download; by default the user's cache directory.")
    ] = None,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of each class's training images that becomes val.")
    ] = 0.1,
    per_class: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Use only this many of each class's 5,000 training images, including those of val, "
            "to experiment with a small dataset.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the choice of images and of the order of the examples.")
    ] = 0,
) -> None:
    """Downloads CIFAR-10 (about 170 MB) and writes it as a dataset directory.

    The test set becomes the test split; val is taken from the training images.
    """
    if archive is None:
        archive, md5 = download(cache), MD5
    overview.show(convert(archive, out, md5, val_fraction, seed, per_class))


def _verify(archive: Path, md5: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with _open_archive(archive) as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    found = digest.hexdigest()
    if found != md5.lower():
        raise DatasetError(
            f"{archive}: expected the MD5 {md5.lower()}, found {found}. The file is damaged or a different "
            f"archive: download {URL} again, or, to use this archive anyway, pass `--md5 {found}`"
        )


def _scan(archive: Path) -> tuple[list[str], dict[str, list[int]]]:
    """Reads the class names and the labels of each batch, and checks the whole archive in the same pass."""
    names: list[str] = []
    labels: dict[str, list[int]] = {}
    with _members(archive) as members:
        for name, file, size in members:
            if name == _NAMES_FILE:
                if size > _MAX_NAMES_BYTES:
                    raise DatasetError(
                        f"{archive}: expected {name} to be a list of class names of at most "
                        f"{_MAX_NAMES_BYTES} bytes, found {size} bytes. Do not use this archive"
                    )
                text = file.read().decode("utf-8", errors="replace")
                names = [line.strip() for line in text.splitlines() if line.strip()]
                continue
            if size == 0 or size % _RECORD_BYTES:
                raise DatasetError(
                    f"{archive}: expected {name} to hold whole records of {_RECORD_BYTES} bytes, "
                    f"found {size} bytes"
                )
            labels[name] = [record[0] for record in _records(file, size)]
    missing = [name for name in (*_TRAIN_FILES, _TEST_FILE) if name not in labels]
    if not names:
        missing.append(_NAMES_FILE)
    if missing:
        raise DatasetError(
            f"{archive}: expected the layout of {URL}, but these files are missing: {', '.join(missing)}. "
            "The archives for Python and Matlab are not supported"
        )
    for name, found in labels.items():
        if max(found) >= len(names):
            number = next(i for i, label in enumerate(found) if label >= len(names))
            raise DatasetError(
                f"{archive}: {name}: expected labels from 0 to {len(names) - 1}, found {found[number]} in "
                f"record {number}"
            )
    return names, labels


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, IO[bytes], int]]]:
    """Opens an archive as a stream.

    Yields:
      An iterator over (name, content, size in bytes) of the batches and the list of class names.

    Raises:
      DatasetError: the archive is damaged.
    """
    try:
        with (
            _open_archive(archive) as file,
            _LimitedGzip(fileobj=file) as data,
            tarfile.open(fileobj=data, mode="r|") as tar,
        ):
            yield _read_members(archive, tar)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = str(error) or type(error).__name__
        raise DatasetError(
            f"{archive} is incomplete or not a .tar.gz archive ({reason}). Download {URL} again"
        ) from None


class _LimitedGzip(gzip.GzipFile):
    """Ends with an error after more data than the archive can have.

    `tarfile` reads the headers of members, which may claim any size, into memory.
    """

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() > _MAX_UNPACKED_BYTES:
            raise DatasetError(
                f"expected at most {_MAX_UNPACKED_BYTES / 1e6:.0f} MB of files in the archive, found more. "
                "Do not use this archive"
            )
        return data


def _read_members(archive: Path, tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes], int]]:
    seen = set()
    for member in tar:
        path = PurePosixPath(member.name)
        # Such members could do no harm, since nothing is unpacked, but the official archive has none of them.
        if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
            raise DatasetError(
                f"{archive}: expected plain files in {_FOLDER}/, found {member.name!r}, which is a link, "
                "a device or outside the folder. Do not use this archive"
            )
        name = str(path)
        if name in seen:
            raise DatasetError(f"{archive}: expected {name} once, found it twice")
        seen.add(name)
        if name in (*_TRAIN_FILES, _TEST_FILE, _NAMES_FILE):
            content = tar.extractfile(member)
            if content is not None:
                yield name, content, member.size


@contextmanager
def _open_archive(archive: Path) -> Iterator[IO[bytes]]:
    try:
        file = archive.open("rb")
    except OSError as error:
        raise DatasetError(f"cannot read the archive {archive}: {error.strerror}") from None
    with file:
        yield file


def _batch_index(name: str) -> int:
    return _TRAIN_FILES.index(name) if name in _TRAIN_FILES else 0


def _records(file: IO[bytes], size: int) -> Iterator[bytes]:
    for _ in range(size // _RECORD_BYTES):
        record = file.read(_RECORD_BYTES)
        if len(record) < _RECORD_BYTES:
            raise EOFError("the file ends in the middle of a record")
        yield record


def _images(file: IO[bytes], size: int) -> Iterator[tuple[int, bytes]]:
    """Yields (label, image as PNG) of each record."""
    for record in _records(file, size):
        planes = np.frombuffer(record, np.uint8, offset=1).reshape(3, _SIDE, _SIDE)
        png = io.BytesIO()
        PIL.Image.fromarray(planes.transpose(1, 2, 0)).save(png, "PNG")
        yield record[0], png.getvalue()


class _DownloadBar:
    """Adapts a function that reports progress to the progress bar interface of pooch."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.total = 0
        self._advance = advance

    def update(self, count: int) -> None:
        self._advance(count)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def _download_progress() -> Iterator[_DownloadBar]:
    # The size of the official archive in bytes; it is for the progress bar only, since the checksum is
    # verified after the download.
    with terminal.progress("Downloading CIFAR-10", 170_052_171) as advance:
        yield _DownloadBar(advance)


def _cause(error: BaseException) -> str:
    """Returns the innermost reason of a failed request, which `requests` wraps in several exceptions."""
    reason = error.args[0] if error.args else error
    reason = getattr(reason, "reason", reason)
    return str(reason) or type(error).__name__


if __name__ == "__main__":
    terminal.run(prepare)
