"""Lists folders and image files below the user's folder, and keeps account of what is left out."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datasets import inspection

# Folders of network storage, operating systems and tools, in lower case.
_LITTER = frozenset(
    {
        *("@eadir", "@tmp", "@__thumb", "@recycle", "@recently-snapshot", "@transcode"),
        *("#recycle", "#snapshot", "$recycle.bin", "recycler", "found.000", "lost+found"),
        *("__macosx", "system volume information", "network trash folder", "temporary items"),
        *("__pycache__", "thumbs"),
    }
)


@dataclass
class Ignored:
    """Files and folders that are left out, by reason.

    Attributes:
      hidden: number of hidden files and folders.
      suffixes: number of files that are no images, by suffix.
      litter: folders of network storage and operating systems.
      loops: links to a folder that contains the link.
      broken: links to nothing.
      loose: number of images that lie beside the class folders.
      unrelated: folders without images.
    """

    hidden: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)
    litter: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    loose: int = 0
    unrelated: list[str] = field(default_factory=list)

    def by_reason(self) -> dict[str, int | list[str]]:
        """Returns a description of each reason with the number or the names of what it left out."""
        found: dict[str, int | list[str]] = {
            f"files that are no images, {suffix}": count for suffix, count in self.suffixes.most_common()
        }
        found |= {
            "hidden files and folders": self.hidden,
            "images outside of class folders": self.loose,
            "folders of storage devices and systems": self.litter,
            "folders without images": self.unrelated,
            "links to a folder that contains them": self.loops,
            "broken links": self.broken,
        }
        return {reason: what for reason, what in found.items() if what}


def subfolders(path: Path) -> list[Path]:
    """Lists the folders in a directory, without hidden ones and those of storage devices and systems."""
    if not path.is_dir():
        return []
    return sorted(
        p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".") and not is_litter(p.name)
    )


def has_images(folder: Path) -> bool:
    """Returns whether there are images in a folder or in its subfolders, by their suffixes."""
    # Two levels only: the directory may hold something else entirely, and may be huge.
    return _any_image(itertools.chain(folder.iterdir(), *(child.iterdir() for child in subfolders(folder))))


def has_own_images(folder: Path) -> bool:
    """Returns whether there are images directly in a folder, by their suffixes."""
    return _any_image(folder.iterdir())


def is_litter(name: str) -> bool:
    """Returns whether a folder of this name is of a storage device, an operating system or a tool."""
    return name.lower() in _LITTER


def list_images(folder: Path, root: Path, ignored: Ignored) -> Iterator[Path]:
    """Yields the image files below a folder in a fixed order; links are followed.

    Files with the suffix of an image are images, even if they are damaged. Of the others, those are images
    that begin like one.

    Args:
      folder: the folder.
      root: the folder to which the names in `ignored` are relative.
      ignored: receives what is left out.

    Raises:
      OSError: a folder cannot be read.
    """
    yield from list_files(folder, root, ignored, _is_image)


def list_files(
    folder: Path, root: Path, ignored: Ignored, is_wanted: Callable[[Path], bool]
) -> Iterator[Path]:
    """Yields the files of one kind below a folder in a fixed order; links are followed.

    Args:
      folder: the folder.
      root: the folder to which the names in `ignored` are relative.
      ignored: receives what is left out.
      is_wanted: returns whether a file is of the kind.

    Raises:
      OSError: a folder cannot be read.
    """
    above = tuple(_identity(parent) for parent in folder.parents if parent.is_relative_to(root))
    yield from _walk(folder, root, ignored, is_wanted, above)


def note_loose(folder: Path, root: Path, ignored: Ignored) -> None:
    """Adds what lies beside the class folders of a directory to `ignored`."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if is_litter(path.name):
                ignored.litter.append(str(path.relative_to(root)))
            elif path.name.startswith("."):
                ignored.hidden += 1
        elif not path.exists():
            ignored.broken.append(str(path.relative_to(root)))
        elif path.name.startswith("."):
            ignored.hidden += 1
        elif path.suffix.lower() in inspection.suffixes():
            ignored.loose += 1
        else:
            ignored.suffixes[_suffix(path)] += 1


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in inspection.suffixes() or inspection.begins_like_image(path)


def _walk(
    folder: Path,
    root: Path,
    ignored: Ignored,
    is_wanted: Callable[[Path], bool],
    above: tuple[tuple[int, int], ...],
) -> Iterator[Path]:
    identity = _identity(folder)
    if identity in above:
        ignored.loops.append(str(folder.relative_to(root)))
        return
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = Path(entry.path)
        if entry.name.startswith("."):
            ignored.hidden += 1
        elif entry.is_dir():
            if is_litter(entry.name):
                ignored.litter.append(str(path.relative_to(root)))
            else:
                yield from _walk(path, root, ignored, is_wanted, (*above, identity))
        elif not entry.is_file():
            ignored.broken.append(str(path.relative_to(root)))
        elif is_wanted(path):
            yield path
        else:
            ignored.suffixes[_suffix(path)] += 1


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _any_image(paths: Iterator[Path]) -> bool:
    return any(p.suffix.lower() in inspection.suffixes() and not p.name.startswith(".") for p in paths)


def _suffix(path: Path) -> str:
    return path.suffix.lower() or "no suffix"
