"""Finds the dataset that `--data` names: a built-in dataset, or a directory of the user."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from datasets import cifar10, directory, folders, listing, manifest, shapes, tfds, tfrecords
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
    if tfds.is_tfds(path):
        name = slug(path)
        converted = data_root / f"{name}-{_fingerprint(path)}"
        return Opened(
            directory.read(converted) if converted.exists() else tfds.convert(path, converted), name
        )
    if (path / directory.SCHEMA_FILE).exists():
        return Opened(directory.read(path), slug(path))
    raise DatasetError(_advise(path, data_root) or f"{path}: found {_describe(path)}; {_describe_accepted()}")


def _advise(path: Path, data_root: Path) -> str | None:
    """Returns what to do with data that has to be converted first; None if it is nothing that is known."""
    if path.is_dir() and (versions := tfds.find_versions(path)):
        listed = "\n".join(f"  --data {shlex.quote(str(version))}" for version in versions)
        return f"{path} holds datasets that TensorFlow Datasets prepared. Use\n{listed}"
    importer = _find_importer(path)
    if importer is None:
        return None
    what, module, source = importer
    out = data_root / slug(path.with_suffix("") if path.is_file() else path)
    command = f"python -m datasets.{module} {shlex.quote(str(source))} {shlex.quote(str(out))}"
    return (
        f"{path} {what}, which has to be converted once. Run\n  {command}\n"
        f"and then use `--data {shlex.quote(str(out))}`"
    )


def _find_importer(path: Path) -> tuple[str, str, Path] | None:
    """Returns what the data is, the module that converts it, and the module's source."""
    if path.is_dir():
        tables = manifest.find_tables(path)
        classes = [folder for folder in folders.subfolders(path) if folders.has_images(folder)]
        if tables and len(classes) < 2:
            return "holds a table of images", "manifest", tables[0]
        if classes:
            return "holds folders of images", "image_folder", path
    elif path.suffix.lower() in manifest.SUFFIXES and path.is_file():
        return "is a table of images", "manifest", path
    if tfrecords.is_tfrecords(path):
        return "is TFRecord data", "tfrecords", path
    return None


def _describe(path: Path) -> str:
    if not path.is_dir():
        return "a file" if path.exists() else "nothing there"
    entries = sorted(p.name for p in path.iterdir())
    return listing.join(entries, 5) or "an empty directory"


def _describe_accepted() -> str:
    return (
        f"expected `{CIFAR10}`, `{SHAPES}`, a dataset directory ({', '.join(f'{s}/' for s in SPLITS)}, "
        f"{directory.SCHEMA_FILE}, {directory.LABELS_FILE}) or a folder that TensorFlow Datasets prepared. "
        "Other data is converted once: one folder of images per class with `python -m datasets.image_folder "
        "SRC OUT`, a table of images and labels with `python -m datasets.manifest FILE OUT`, TFRecord files "
        "with `python -m datasets.tfrecords SRC OUT`"
    )


def _fingerprint(path: Path) -> str:
    """Returns a digest that changes with the name, the size or any change of a file in a directory.

    A program can set the time of modification, but not the time at which the file system noticed a change.
    """
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        status = file.stat()
        digest.update(
            f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode(
                errors="surrogateescape"
            )
        )
    return digest.hexdigest()[:12]
