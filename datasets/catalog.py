"""What `--data` means: the built-in datasets by name, and the user's own by directory."""

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
# With a suffix, well within the 128 characters of a pipeline's name.
_LONGEST_SLUG = 60


@dataclass(frozen=True)
class Opened:
    """A dataset, ready to use.

    Attributes:
      dataset: the dataset directory.
      name: `cifar10`, `shapes`, or one made of the directory's name: [a-z0-9] and `-`.
      is_fallback: whether it stands in for CIFAR-10, because nothing was asked for and that
        cannot be had.
      fallback_reason: why CIFAR-10 cannot be had; empty otherwise.
    """

    dataset: Dataset
    name: str
    is_fallback: bool = False
    fallback_reason: str = ""


def open_dataset(data: str | None, root: Path) -> Opened:
    """Finds a dataset, and prepares it on first use.

    Args:
      data: `cifar10` or `shapes`; a dataset directory; a folder that TFDS prepared; None takes
        CIFAR-10 if it is prepared or can be downloaded, and the drawn shapes otherwise.
      root: what is prepared is kept in `<root>/data`.

    Raises:
      DatasetError: the dataset cannot be used or had; the message says what to do.
    """
    kept = Path(root) / "data"
    if data is None:
        try:
            return _open_cifar10(kept)
        except cifar10.DownloadError as error:
            return Opened(_open_shapes(kept).dataset, SHAPES, is_fallback=True, fallback_reason=str(error))
    if data == CIFAR10:
        return _open_cifar10(kept)
    if data == SHAPES:
        return _open_shapes(kept)
    return _open_directory(Path(data).expanduser(), kept)


def slug(path: Path) -> str:
    """Makes a name of a directory's: `My Photos` -> `my-photos`, `cifar10/3.0.2` -> `cifar10-3-0-2`."""
    path = path.resolve()
    name = f"{path.parent.name}-{path.name}" if _VERSION.fullmatch(path.name) else path.name
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_SLUG].strip("-") or "dataset"


def _open_cifar10(kept: Path) -> Opened:
    path = kept / CIFAR10
    dataset = directory.read(path) if path.exists() else cifar10.convert(cifar10.download(), path)
    return Opened(dataset, CIFAR10)


def _open_shapes(kept: Path) -> Opened:
    path = kept / SHAPES
    return Opened(directory.read(path) if path.exists() else shapes.convert(path), SHAPES)


def _open_directory(path: Path, kept: Path) -> Opened:
    if not path.is_dir():
        found = "found a file" if path.exists() else "found nothing there"
        raise DatasetError(f"{path}: {found}; {_accepted()}")
    if tfds.is_tfds(path):
        name = slug(path)
        converted = kept / f"{name}-{_fingerprint(path)}"
        return Opened(
            directory.read(converted) if converted.exists() else tfds.convert(path, converted), name
        )
    if _looks_like_dataset(path):
        return Opened(directory.read(path), slug(path))
    if image_folder.is_image_folder(path):
        out = kept / slug(path)
        command = f"python -m datasets.image_folder {shlex.quote(str(path))} {shlex.quote(str(out))}"
        raise DatasetError(
            f"{path} holds folders of images, which are converted once. Run\n  {command}\n"
            f"and then use `--data {shlex.quote(str(out))}`"
        )
    entries = sorted(p.name for p in path.iterdir())
    found = ", ".join(entries[:5]) + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
    raise DatasetError(f"{path}: found {found or 'an empty directory'}; {_accepted()}")


def _looks_like_dataset(path: Path) -> bool:
    named = any((path / name).exists() for name in (directory.SCHEMA_FILE, directory.LABELS_FILE))
    return named or any(any((path / split).glob(directory.SHARD_PATTERN)) for split in SPLITS)


def _accepted() -> str:
    return (
        f"expected `{CIFAR10}`, `{SHAPES}`, a dataset directory ({', '.join(f'{s}/' for s in SPLITS)}, "
        f"{directory.SCHEMA_FILE}, {directory.LABELS_FILE}), a folder that TensorFlow Datasets prepared, "
        "or a folder of images for each class, which `python -m datasets.image_folder SRC OUT` converts"
    )


def _fingerprint(path: Path) -> str:
    """Changes with the name, the size or the time of any file."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        status = file.stat()
        digest.update(
            f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()[:12]
