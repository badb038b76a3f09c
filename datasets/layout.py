"""Recognises how the user's data is laid out: names of splits, order of classes, and folders of images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets import folders, listing
from datasets.directory import SPLITS, DatasetError

# What the folders in the user's folder are.
Layout = Literal["classes", "splits"]

# Names of splits that people use.
_ALIASES = {
    "train": "train training",
    "val": "val valid validation validate dev develop development eval evaluation",
    "test": "test testing tests holdout heldout",
}
_SPLITS = {alias: split for split, aliases in _ALIASES.items() for alias in aliases.split()}
# Words that may stand beside the name of a split, as in `train_images` and `Test Set`.
_FILLERS = frozenset(
    {"data", "dataset", "image", "images", "img", "imgs", "photos", "pictures", "set", "split"}
)

_MAX_LISTED = 6  # names in a message


def split_of(name: str) -> str | None:
    """Returns which split a name means, in any case: `Training` -> `train`, `valid_set` -> `val`.

    Args:
      name: name of a folder, or a value of a column.

    Returns:
      `train`, `val` or `test`; None if the name is not that of a split.
    """
    words = re.findall(r"[^\W_]+", name.lower())
    meant = [word for word in words if word not in _FILLERS] or [""]
    # `hold-out` is one word. `trainset` has no space.
    whole = "".join(meant)
    return _SPLITS.get(whole) or _SPLITS.get(re.sub(r"(set|data|images|imgs)$", "", whole))


def natural_order(names: Iterable[str]) -> list[str]:
    """Sorts names of classes, with numbers in them by their value: `0`, `1`, `2`, `10`."""
    return sorted(names, key=_natural_key)


@dataclass(frozen=True)
class Root:
    """A folder whose subfolders are the classes.

    Attributes:
      split: `train`, `val` or `test`; empty if the images are not split.
      path: the folder.
    """

    split: str
    path: Path


def find_roots(src: Path, layout: Layout | None = None) -> list[Root]:
    """Finds the folders that contain the class folders: the source itself, or one for each split.

    Args:
      src: the user's folder.
      layout: what the folders in `src` are; None decides by their names.

    Returns:
      The folders, in the order train, val, test.

    Raises:
      DatasetError: there are no folders, or what they are cannot be decided.
    """
    top = folders.subfolders(src)
    if not top:
        found = "no folder in it" if src.is_dir() else "no such directory"
        raise DatasetError(f"expected {src} to have a folder of images for each class, found {found}")
    if layout == "classes":
        return [Root("", src)]
    splits = {
        folder: split
        for folder in top
        if (split := split_of(folder.name)) and (layout == "splits" or _has_class_folders(folder))
    }
    if splits:
        return _split_roots(src, top, splits)
    if layout == "splits":
        raise DatasetError(f"{src}: expected folders named like train, val and test; found {_names(top)}")
    if len(top) == 1 and _is_wrapper(top[0], src):
        return find_roots(top[0], layout)
    _check_shared_subfolders(src, top)
    return [Root("", src)]


def _split_roots(src: Path, top: Sequence[Path], splits: dict[Path, str]) -> list[Root]:
    others = [folder for folder in top if folder not in splits and folders.has_images(folder)]
    repeated = [f for f, split in splits.items() if list(splits.values()).count(split) > 1]
    problem = ""
    if others:
        problem = f"without class folders or under another name: {_names(others)}"
    elif repeated:
        problem = f"{_names(repeated)} mean the same split"
    elif "train" not in splits.values():
        problem = "train is missing"
    if problem:
        raise DatasetError(
            f"{src}: expected either one folder for each split (train, and optionally val and test), each "
            f"with a folder for each class, or class folders only. Found: {_names(top)}; {problem}. Move "
            "what does not belong there, or say with `--layout classes` that all these folders are classes"
        )
    by_split = {split: folder for folder, split in splits.items()}
    return [Root(split, _unwrap(by_split[split], split)) for split in SPLITS if split in by_split]


def _unwrap(folder: Path, split: str) -> Path:
    """Returns the only subfolder of a split if it is not a class, as in `train/images/cat`."""
    inner = folders.subfolders(folder)
    if len(inner) != 1 or folders.has_own_images(folder) or folders.has_own_images(inner[0]):
        return folder
    return inner[0] if _is_generic(inner[0].name) or split_of(inner[0].name) == split else folder


def _is_wrapper(folder: Path, src: Path) -> bool:
    """Returns whether the only folder in the source contains the classes or splits, and is not a class."""
    if folders.has_own_images(folder):
        return False
    has_splits = any(split_of(f.name) and _has_class_folders(f) for f in folders.subfolders(folder))
    return has_splits or _is_generic(folder.name) or folder.name.lower() == src.resolve().name.lower()


def _has_class_folders(folder: Path) -> bool:
    return any(folders.has_images(inner) for inner in folders.subfolders(folder))


def _check_shared_subfolders(src: Path, top: Sequence[Path]) -> None:
    """Refuses folders that all have the same subfolders, because either may be the classes."""
    if len(top) < 2 or any(folders.has_own_images(folder) for folder in top):
        return
    inner = [{f.name for f in folders.subfolders(folder) if folders.has_images(f)} for folder in top]
    shared = natural_order(set.intersection(*inner))
    if len(shared) < 2:
        return
    raise DatasetError(
        f"{src}: cannot tell which folders are the classes: {_names(top)} all have the subfolders "
        f"{listing.join(shared, _MAX_LISTED)}. If {_names(top)} are the classes, use `--layout classes`. If "
        "they are splits, rename them to train, val and test"
    )


def _is_generic(name: str) -> bool:
    words = re.findall(r"[^\W_]+", name.lower())
    return bool(words) and _FILLERS.issuperset(words)


def _names(paths: Sequence[Path]) -> str:
    return listing.join([path.name for path in paths], _MAX_LISTED)


def _natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name
