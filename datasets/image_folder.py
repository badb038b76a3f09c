"""Converts folders of the user's images, one folder per class, to a dataset directory.

The source is either `SRC/<class>/...`, which is split here, or `SRC/{train,val,test}/<class>/...`. If the
latter has no val, a part of train becomes val. The images of a class may be in subfolders of any depth.

Files are stored unchanged, with one exception: TensorFlow ignores the rotation that cameras record in EXIF,
so rotated photos are turned upright and re-encoded. Clients of the served model have to send upright images
too.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import PIL.Image
import PIL.ImageOps
import typer

from datasets import directory, splitting, terminal
from datasets.directory import SPLITS, Dataset, DatasetError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

# Formats that TensorFlow's `decode_image` reads, by Pillow's names. MPO is a JPEG with further pictures
# appended.
_FORMATS = frozenset({"PNG", "JPEG", "MPO"})
# Type and checksum of the last PNG chunk. TensorFlow requires the chunk, Pillow does not.
_PNG_END = b"IEND\xaeB`\x82"
_MAX_LISTED = 20  # unreadable images that a message lists
_ORIENTATION = 0x0112  # EXIF tag
_SWAPS_SIDES = range(5, 9)  # orientations in which the stored height is the width of the upright image
_JPEG_QUALITY = 95


class _File(NamedTuple):
    path: Path
    split: str  # one of SPLITS, or empty if the source is not split
    label: int


@dataclass
class _Checked:
    """Result of checking every file.

    Attributes:
      good: files that TensorFlow can decode.
      bad: descriptions of the others, each with the path and the reason.
      sizes: number of good images by (width, height) in pixels, when upright.
      bytes: total size of the good files by split.
    """

    good: list[_File] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)


def is_image_folder(path: Path) -> bool:
    """Returns whether a directory has folders of images, split into train, val and test or not."""
    return any(_has_images(folder) for folder in _folders(path))


def convert(
    src: Path,
    out: Path,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_bad: bool = False,
) -> Dataset:
    """Converts folders of images to a dataset directory.

    Args:
      src: directory with the folders; it is only read.
      out: the dataset directory to write.
      val_fraction: fraction of each class that becomes val, unless `src` has a folder `val`; above 0.
      test_fraction: fraction of each class that becomes test, unless `src` is already split; above 0. Both
        fractions together have to be less than 1.
      seed: seed of the splits and of the order of the examples.
      skip_bad: leave out unreadable images instead of raising an error.

    Returns:
      The written dataset.

    Raises:
      DatasetError: the folders have another structure, a class has too few images, images are unreadable, or
        `out` is not empty.
    """
    if not (0 < val_fraction < 1 and 0 < test_fraction < 1 and val_fraction + test_fraction < 1):
        raise DatasetError(
            "expected fractions above 0 whose sum is below 1, so that images are left for train; "
            f"found {val_fraction:g} for val and {test_fraction:g} for test"
        )
    directory.check_destination(out, src)
    names, files, ignored = _find_images(src)
    checked = _check_images(files)
    if checked.bad:
        listed = "\n".join(f"  {line}" for line in checked.bad[:_MAX_LISTED])
        if len(checked.bad) > _MAX_LISTED:
            listed += f"\n  and {len(checked.bad) - _MAX_LISTED} more"
        if not skip_bad:
            raise DatasetError(
                f"{len(checked.bad)} of {len(files)} images cannot be used; repair or remove them, or leave "
                f"them out with --skip-bad:\n{listed}"
            )
        terminal.note(f"skipped {len(checked.bad)} of {len(files)} images:\n{listed}")
    if ignored:
        terminal.note(f"ignored {ignored} hidden files and files that are not {', '.join(sorted(SUFFIXES))}")
    examples = _split(checked.good, names, val_fraction, test_fraction, seed)
    rotated = 0
    with (
        terminal.progress("Writing images", len(examples)) as advance,
        directory.create(
            out,
            names,
            {split: _expected_bytes(examples, split, checked) for split in SPLITS},
            seed,
            source=src,
        ) as writer,
    ):
        for path, split, label in examples:
            data = path.read_bytes()
            upright = _turn_upright(data)
            rotated += upright is not data
            writer.add(split, image=upright, label=label, id=os.fsencode(path.relative_to(src)))
            advance(1)
    if rotated:
        terminal.note(f"{rotated} images with a rotation in EXIF are stored upright and re-encoded")
    if len(checked.sizes) > 1:
        small, large = (choose(checked.sizes, key=math.prod) for choose in (min, max))
        terminal.note(
            f"the images have {len(checked.sizes)} sizes, from {small[0]}x{small[1]} to {large[0]}x{large[1]}"
            " pixels: choose the network's image size with `--set model.image_size=N`"
        )
    return directory.read(out)


def prepare(
    src: Annotated[
        Path, typer.Argument(metavar="SRC", help="SRC/<class>/*.png, or SRC/{train,val,test}/<class>/*.png.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset directory to write.")],
    *,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of each class for val, unless SRC has val.")
    ] = 0.1,
    test_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of each class for test, unless SRC has test.")
    ] = 0.1,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the splits and of the order of the examples.")
    ] = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out unreadable images instead of stopping.")
    ] = False,
) -> None:
    """Writes your own PNG and JPEG images as a dataset directory.

    Each folder in SRC is a class. Images may have any size.

    SRC may already be split into train, val and test. If it has no val, a part of train becomes val.

    Files are stored unchanged, except that photos with a rotation in EXIF are stored upright.
    """
    terminal.report(
        convert(
            src,
            out,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            skip_bad=skip_bad,
        )
    )


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _has_images(folder: Path) -> bool:
    # Two levels only: the directory may hold something else entirely, and may be huge.
    entries = itertools.chain(folder.glob("*"), folder.glob("*/*"))
    return any(p.suffix.lower() in SUFFIXES for p in entries)


def _find_images(src: Path) -> tuple[list[str], list[_File], int]:
    """Lists the class names, all images in a fixed order, and the number of ignored files."""
    folders = {folder.name: folder for folder in _folders(src)}
    if not folders:
        raise DatasetError(
            f"expected {src} to have a folder of images for each class, found "
            f"{'no folder in it' if src.is_dir() else 'no such directory'}"
        )
    if "train" not in folders and "test" not in folders:
        roots = {"": src}
    else:
        roots = {split: folders.pop(split) for split in SPLITS if split in folders}
        if folders or "train" not in roots or "test" not in roots:
            found = ", ".join([*roots, *folders])
            raise DatasetError(
                f"{src}: expected either the folders train, test and optionally val, each with a folder for "
                f"each class, or class folders only. Found: {found}"
            )
    classes = {split: {folder.name: folder for folder in _folders(root)} for split, root in roots.items()}
    names = sorted({name for below in classes.values() for name in below})
    files: list[_File] = []
    ignored = 0
    for split, below in classes.items():
        for label, name in enumerate(names):
            for path in sorted(below[name].rglob("*")) if name in below else ():
                if path.is_dir():
                    continue
                hidden = any(part.startswith(".") for part in path.relative_to(below[name]).parts)
                if hidden or path.suffix.lower() not in SUFFIXES:
                    ignored += 1
                else:
                    files.append(_File(path, split, label))
    return names, files, ignored


def _check_images(files: Sequence[_File]) -> _Checked:
    checked = _Checked()
    with terminal.progress("Checking images", len(files)) as advance:
        for file in files:
            try:
                data = file.path.read_bytes()
                image = _decode(data)
                width, height = image.size
                checked.sizes[
                    (height, width) if _orientation(image) in _SWAPS_SIDES else (width, height)
                ] += 1
                checked.bytes[file.split] += len(data)
                checked.good.append(file)
            except OSError as error:
                checked.bad.append(f"{file.path}: {error.strerror or error}")
            advance(1)
    return checked


def _decode(data: bytes) -> PIL.Image.Image:
    """Decodes an image completely, if TensorFlow can decode it too.

    Raises:
      OSError: TensorFlow cannot decode the image; the message says why.
    """
    if not data:
        raise OSError("empty file")
    with warnings.catch_warnings():
        # Pillow warns about images of more than 89 million pixels, which are usable here.
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        try:
            image = PIL.Image.open(io.BytesIO(data))
            if image.format not in _FORMATS:
                raise OSError(f"expected PNG or JPEG, found {image.format}")
            image.load()
            if image.format == "PNG" and _PNG_END not in data:
                raise OSError("truncated PNG file")
            _orientation(image)
        except PIL.UnidentifiedImageError:
            raise OSError("not an image") from None
        except OSError:
            raise
        except Exception as error:  # Pillow does not document what damaged or hostile files make it raise
            raise OSError(str(error) or type(error).__name__) from None
    return image


def _orientation(image: PIL.Image.Image) -> int:
    """Returns the orientation in EXIF, from 1 (upright) to 8; 1 if it is missing or invalid."""
    value = image.getexif().get(_ORIENTATION)
    return value if isinstance(value, int) and value in range(1, 9) else 1


def _turn_upright(data: bytes) -> bytes:
    """Returns the same bytes if the image is upright, otherwise the turned image, re-encoded."""
    image = PIL.Image.open(io.BytesIO(data))
    if _orientation(image) == 1:
        return data
    encoded = io.BytesIO()
    upright = PIL.ImageOps.exif_transpose(image)
    if image.format == "PNG":
        upright.save(encoded, "PNG")
    else:
        upright.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return encoded.getvalue()


def _split(
    files: Sequence[_File], names: Sequence[str], val_fraction: float, test_fraction: float, seed: int
) -> list[_File]:
    """Assigns every image to a split; existing splits are kept."""
    examples = list(files)
    existing = {file.split for file in files}
    if existing == {""}:
        _require_images(examples, names, "", 3, "one each for train, val and test")
        examples = _move_fraction(examples, "", "test", test_fraction, seed)
        examples = _move_fraction(examples, "", "val", val_fraction / (1 - test_fraction), seed)
        examples = [file._replace(split=file.split or "train") for file in examples]
    elif "val" not in existing:
        _require_images(examples, names, "train", 2, "one each for train and val")
        examples = _move_fraction(examples, "train", "val", val_fraction, seed)
    for split in SPLITS:
        _require_images(examples, names, split, 1, f"one for {split}")
    return examples


def _move_fraction(files: list[_File], source: str, target: str, fraction: float, seed: int) -> list[_File]:
    """Moves a fraction of each class from one split to another."""
    candidates = [index for index, file in enumerate(files) if file.split == source]
    held_out = splitting.hold_out([files[index].label for index in candidates], fraction, seed, target)
    moved = {candidates[position] for position in held_out}
    return [file._replace(split=target) if index in moved else file for index, file in enumerate(files)]


def _require_images(
    files: Sequence[_File], names: Sequence[str], split: str, least: int, purpose: str
) -> None:
    counts = Counter(file.label for file in files if file.split == split)
    few = [f"{name!r} has {counts[label]}" for label, name in enumerate(names) if counts[label] < least]
    if few:
        where = f" in {split}" if split else ""
        raise DatasetError(
            f"expected at least {least} usable images of every class{where} ({purpose}); "
            f"{', '.join(few)}. Add images, or remove the folder of the class"
        )


def _expected_bytes(examples: Sequence[_File], split: str, checked: _Checked) -> int:
    """Estimates the size of a split from its share of the images, to choose the number of shards."""
    share = sum(file.split == split for file in examples) / len(examples)
    return int(share * checked.bytes.total())


if __name__ == "__main__":
    terminal.run(prepare)
