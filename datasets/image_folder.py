"""Converts folders of the user's images, one folder per class, to a dataset directory.

The source is either `SRC/<class>/...`, which is split here, or `SRC/<split>/<class>/...`, where the splits
may have any usual name; test and val are taken from train if they are missing. The images of a class may be
in subfolders of any depth.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from datasets import directory, folders, importing, layout, manifest, options, terminal
from datasets.directory import Dataset, DatasetError
from datasets.folders import Ignored
from datasets.importing import FilePlace, Item
from datasets.layout import Layout, Root


def is_image_folder(path: Path) -> bool:
    """Returns whether a directory has folders of images, split into train, val and test or not."""
    return any(folders.has_images(folder) for folder in folders.subfolders(path))


def convert(
    src: Path,
    out: Path,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_bad: bool = False,
    layout: Layout | None = None,
    report: Path | None = None,
) -> Dataset:
    """Converts folders of images to a dataset directory, and prints a summary.

    Args:
      src: directory with the folders; it is only read.
      out: the dataset directory to write.
      val_fraction: fraction of each class that becomes val, unless `src` has a folder for val; above 0.
      test_fraction: fraction of each class that becomes test, unless `src` has a folder for test; above 0.
        Both fractions together have to be less than 1.
      seed: seed of the splits and of the order of the examples.
      skip_bad: leave out images that cannot be used instead of raising an error.
      layout: what the folders in `src` are; None decides by their names.
      report: HTML file to write with the summary and a sheet of images; None writes no file.

    Returns:
      The written dataset.

    Raises:
      DatasetError: the folders have another structure, a class has too few images, images cannot be used, or
        `out` is not empty.
    """
    src = Path(src)
    importing.check_fractions(val_fraction, test_fraction)
    directory.check_destination(out, src)
    names, items, ignored = _find_images(src, layout)
    return importing.convert(
        items,
        names,
        out,
        source=src,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        skip_bad=skip_bad,
        report=report,
        ignored=ignored.by_reason(),
    )


def prepare(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="SRC/CLASS/..., or SRC/SPLIT/CLASS/....")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset directory to write.")],
    *,
    val_fraction: options.ValFraction = 0.1,
    test_fraction: options.TestFraction = 0.1,
    seed: options.Seed = 0,
    skip_bad: options.SkipBad = False,
    layout: Annotated[
        Layout | None,
        typer.Option(help="What the folders in SRC are; by default their names tell."),
    ] = None,
    report: options.Report = None,
) -> None:
    """Writes your own images as a dataset directory.

    Each folder in SRC is a class, or SRC is already split into folders such as train, val and test. If test
    or val is missing, a part of train becomes it; equal images stay in one split.

    Images may have any size and any format that Pillow reads. JPEG and ordinary PNG files are stored
    unchanged, others as PNG without loss.
    """
    convert(
        src,
        out,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        skip_bad=skip_bad,
        layout=layout,
        report=report,
    )


def _find_images(src: Path, given_layout: Layout | None) -> tuple[list[str], list[Item], Ignored]:
    """Lists the class names and all images in a fixed order."""
    try:
        roots = layout.find_roots(src, given_layout)
    except DatasetError as error:
        raise DatasetError(f"{error}{_manifest_hint(src)}") from None
    ignored = Ignored()
    classes = {root: {folder.name: folder for folder in folders.subfolders(root.path)} for root in roots}
    names = layout.natural_order({name for below in classes.values() for name in below})
    if len(names) < 2:
        raise DatasetError(
            f"{src}: expected at least 2 classes, found {len(names)}: {', '.join(names)}{_manifest_hint(src)}"
        )
    for folder in dict.fromkeys([src, *(root.path for root in roots)]):
        folders.note_loose(folder, src, ignored)
    items = []
    for root, below in classes.items():
        for label, name in enumerate(names):
            for path in folders.list_images(below[name], src, ignored) if name in below else ():
                items.append(Item(FilePlace(str(path)), str(path.relative_to(src)), root.split, label))
    _note_unrelated(src, roots, ignored)
    return names, items, ignored


def _note_unrelated(src: Path, roots: list[Root], ignored: Ignored) -> None:
    """Adds folders beside those of the splits to what is left out; they have no images."""
    for folder in folders.subfolders(src) if roots[0].path != src else ():
        if not any(root.path.is_relative_to(folder) for root in roots):
            ignored.unrelated.append(folder.name)


def _manifest_hint(src: Path) -> str:
    """Returns the command for images with a table of labels beside them; empty if there is no table."""
    if not src.is_dir():
        return ""
    tables = manifest.find_tables(src)
    if not tables:
        return ""
    with_images = [folder for folder in folders.subfolders(src) if folders.has_own_images(folder)]
    images = f" --images {shlex.quote(str(with_images[0]))}" if len(with_images) == 1 else ""
    return (
        f". If the labels are in {tables[0].name}, run\n"
        f"  python -m datasets.manifest {shlex.quote(str(tables[0]))} OUT{images}"
    )


if __name__ == "__main__":
    terminal.run(prepare)
