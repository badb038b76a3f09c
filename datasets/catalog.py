"""Finds the dataset that `--data` names: a built-in dataset, or a directory of the user."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from datasets import cifar10, directory, image_folder, shapes, tfds
from datasets.directory import SPLITS, Dataset, DatasetError

CIFAR10 = "cifar10"
SHAPES = "shapes"

_VERSION = re.compile(r"\d+\.\d+\.\d+")
# In characters. Leaves room for a suffix within the 128 characters of a pipeline's name.
_MAX_SLUG_LENGTH = 60


@dataclass(frozen=True)
class Opened:
    """A dataset that is ready to use.

    Attributes:
      dataset: the dataset directory.
      name: `cifar10`, `shapes`, or a name derived from the directory's, of the characters a-z, 0-9 and `-`.
      is_fallback: whether the drawn shapes replace CIFAR-10, because no dataset was named and CIFAR-10 could
        not be downloaded.
      fallback_reason: why CIFAR-10 could not be downloaded; empty if `is_fallback` is false.
    """

    dataset: Dataset
    name: str
    is_fallback: bool = False
    fallback_reason: str = ""


def open_dataset(data: str | None, root: Path) -> Opened:
    """Opens a dataset, and prepares it if it is used for the first time.

    Args:
      data: `cifar10` or `shapes`; the path of a dataset directory or of a folder that TFDS prepared; None
        selects CIFAR-10 if it is prepared or can be downloaded, and the drawn shapes otherwise.
      root: prepared datasets are stored in `<root>/data`.

    Raises:
      DatasetError: the dataset cannot be used, downloaded or converted; the message says what to do.
    """
    data_root = Path(root) / "data"
    if data is None:
        try:
            return _open_cifar10(data_root)
        except cifar10.DownloadError as error:
            dataset = _open_shapes(data_root).dataset
            return Opened(dataset, SHAPES, is_fallback=True, fallback_reason=str(error))
    if data == CIFAR10:
        return _open_cifar10(data_root)
    if data == SHAPES:
        return _open_shapes(data_root)
    return _open_directory(Path(data).expanduser(), data_root)


def slug(path: Path) -> str:
    """Derives a dataset's name from its path: `My Photos` -> `my-photos`, `cifar10/3.0.2` -> `cifar10-3-0-2`.

    Returns:
      At most 60 characters from a-z, 0-9 and `-`; `dataset` if the path has none of them.
    """
    path = path.resolve()
    name = f"{path.parent.name}-{path.name}" if _VERSION.fullmatch(path.name) else path.name
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_MAX_SLUG_LENGTH].strip("-") or "dataset"


def _open_cifar10(data_root: Path) -> Opened:
    path = data_root / CIFAR10
    dataset = directory.read(path) if path.exists() else cifar10.convert(cifar10.download(), path)
    return Opened(dataset, CIFAR10)


def _open_shapes(data_root: Path) -> Opened:
    path = data_root / SHAPES
    return Opened(directory.read(path) if path.exists() else shapes.convert(path), SHAPES)


def _open_directory(path: Path, data_root: Path) -> Opened:
    if not path.is_dir():
        found = "found a file" if path.exists() else "found nothing there"
        raise DatasetError(f"{path}: {found}; {_describe_accepted()}")
    if tfds.is_tfds(path):
        name = slug(path)
        converted = data_root / f"{name}-{_fingerprint(path)}"
        return Opened(
            directory.read(converted) if converted.exists() else tfds.convert(path, converted), name
        )
    if _looks_like_dataset(path):
        return Opened(directory.read(path), slug(path))
    if image_folder.is_image_folder(path):
        out = data_root / slug(path)
        command = f"python -m datasets.image_folder {shlex.quote(str(path))} {shlex.quote(str(out))}"
        raise DatasetError(
            f"{path} holds folders of images, which have to be converted once. Run\n  {command}\n"
            f"and then use `--data {shlex.quote(str(out))}`"
        )
    entries = sorted(p.name for p in path.iterdir())
    found = ", ".join(entries[:5]) + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
    raise DatasetError(f"{path}: found {found or 'an empty directory'}; {_describe_accepted()}")


def _looks_like_dataset(path: Path) -> bool:
    has_metadata = any((path / name).exists() for name in (directory.SCHEMA_FILE, directory.LABELS_FILE))
    return has_metadata or any(any((path / split).glob(directory.SHARD_PATTERN)) for split in SPLITS)


def _describe_accepted() -> str:
    return (
        f"expected `{CIFAR10}`, `{SHAPES}`, a dataset directory ({', '.join(f'{s}/' for s in SPLITS)}, "
        f"{directory.SCHEMA_FILE}, {directory.LABELS_FILE}), a folder that TensorFlow Datasets prepared, "
        "or one folder of images per class, which `python -m datasets.image_folder SRC OUT` converts"
    )


def _fingerprint(path: Path) -> str:
    """Returns a digest that changes with the name, size or modification time of any file in a directory."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        status = file.stat()
        digest.update(
            f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()[:12]
