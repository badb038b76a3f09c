"""The user's own images: a folder for each class, converted to a dataset directory.

Either `SRC/<class>/...`, split here, or `SRC/{train,val,test}/<class>/...` with val cut from train where it
is absent. Images may lie in folders of any depth under their class. The files are stored unchanged, with one
exception: TensorFlow ignores the rotation that cameras note in EXIF, so photos with one are stored upright,
encoded anew. Whoever asks the served model has to send upright images too.
"""

from __future__ import annotations

import io
import itertools
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

# What TensorFlow's `decode_image` reads, in Pillow's names; MPO is a JPEG with further pictures appended.
_FORMATS = frozenset({"PNG", "JPEG", "MPO"})
# Chunk type and checksum. Pillow does without, TensorFlow does not.
_PNG_END = b"IEND\xaeB`\x82"
_MOST_LISTED = 20
_ORIENTATION = 0x0112  # EXIF tag
_ON_ITS_SIDE = range(5, 9)  # its values for images whose width is the stored height
_JPEG_QUALITY = 95


class _File(NamedTuple):
    path: Path
    split: str
    label: int


@dataclass
class _Checked:
    """What a look at every file found."""

    good: list[_File] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)


def is_image_folder(path: Path) -> bool:
    """Says whether a directory has class folders with images in them, in either form."""
    return any(_images_below(folder) for folder in _folders(path))


def convert(
    src: Path,
    out: Path,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_bad: bool = False,
) -> Dataset:
    """Converts a tree of images to a dataset directory.

    Args:
      src: the tree; it is only read.
      out: the dataset directory to write.
      val_fraction: part of each class that becomes val, unless the tree has a `val` folder.
      test_fraction: part of each class that becomes test, unless the tree is split.
      seed: of the splits, and of the order of the examples.
      skip_bad: leave unreadable images out, instead of stopping.

    Raises:
      DatasetError: the tree has another form, a class has too few images, images are unreadable,
        or `out` is taken.
    """
    if not (0 < val_fraction < 1 and 0 < test_fraction < 1 and val_fraction + test_fraction < 1):
        raise DatasetError(
            "expected fractions above 0 that leave something for train; "
            f"found {val_fraction:g} for val and {test_fraction:g} for test"
        )
    names, files, ignored = _find(src)
    checked = _check(files)
    if checked.bad:
        listed = "\n".join(f"  {line}" for line in checked.bad[:_MOST_LISTED])
        if len(checked.bad) > _MOST_LISTED:
            listed += f"\n  and {len(checked.bad) - _MOST_LISTED} more"
        if not skip_bad:
            raise DatasetError(
                f"{len(checked.bad)} of {len(files)} images cannot be used; repair or remove them, or leave "
                f"them out with --skip-bad:\n{listed}"
            )
        terminal.note(f"skipped {len(checked.bad)} of {len(files)} images:\n{listed}")
    if ignored:
        terminal.note(f"ignored {ignored} hidden files and files that are not {', '.join(sorted(SUFFIXES))}")
    examples = _split(checked.good, names, val_fraction, test_fraction, seed)
    turned = 0
    with (
        terminal.progress("Writing images", len(examples)) as advance,
        # The sizes before splitting: near enough, as they decide the number of shards only.
        directory.create(
            out, names, {split: _share(examples, split, checked) for split in SPLITS}, seed, source=src
        ) as writer,
    ):
        for path, split, label in examples:
            data = path.read_bytes()
            upright = _upright(data)
            turned += upright is not data
            writer.add(split, image=upright, label=label, id=os.fsencode(path.relative_to(src)))
            advance(1)
    if turned:
        terminal.note(f"{turned} images with a rotation in EXIF are stored upright, encoded anew")
    if len(checked.sizes) > 1:
        small, large = min(checked.sizes), max(checked.sizes)
        terminal.note(
            f"the images have {len(checked.sizes)} sizes, from {small[0]}x{small[1]} to {large[0]}x{large[1]}"
            " pixels: choose one for the network with `--set model.image_size=N`"
        )
    return directory.read(out)


def prepare(
    src: Annotated[
        Path, typer.Argument(metavar="SRC", help="SRC/<class>/*.png, or SRC/{train,val,test}/<class>/*.png.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Dataset directory to write.")],
    *,
    val_fraction: Annotated[float, typer.Option(min=0, max=1, help="Part of each class for val.")] = 0.1,
    test_fraction: Annotated[float, typer.Option(min=0, max=1, help="Part of each class for test.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the splits and of the order.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out.")] = False,
) -> None:
    """Writes your own PNG and JPEG images as a dataset directory.

    Each folder in SRC is a class, and images may have any size.

    SRC may be split into train, val and test already; val is cut from train if absent.

    Files are stored as they are, but photos that EXIF marks as rotated are stored upright.
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


def _images_below(folder: Path) -> bool:
    # Not deeper: this also looks at directories that are something else, and may be huge.
    nearest = itertools.chain(folder.glob("*"), folder.glob("*/*"))
    return any(p.suffix.lower() in SUFFIXES for p in nearest)


def _find(src: Path) -> tuple[list[str], list[_File], int]:
    """Lists the class names, all images in a fixed order, and how many other files there are."""
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
                f"{src}: expected the folders train and test, and val at most besides, each with a "
                f"folder for each class; or class folders only. Found: {found}"
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


def _check(files: Sequence[_File]) -> _Checked:
    checked = _Checked()
    with terminal.progress("Checking images", len(files)) as advance:
        for file in files:
            try:
                data = file.path.read_bytes()
                image = _decode(data)
                width, height = image.size
                checked.sizes[
                    (height, width) if _orientation(image) in _ON_ITS_SIDE else (width, height)
                ] += 1
                checked.bytes[file.split] += len(data)
                checked.good.append(file)
            except OSError as error:
                checked.bad.append(f"{file.path}: {error.strerror or error}")
            advance(1)
    return checked


def _decode(data: bytes) -> PIL.Image.Image:
    """Decodes all of an image that TensorFlow can decode too; OSError says what is wrong with others."""
    if not data:
        raise OSError("empty file")
    with warnings.catch_warnings():
        # About images of more than 89 million pixels, which are large but fine.
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
        except Exception as error:  # what a damaged or hostile file makes Pillow raise is not documented
            raise OSError(str(error) or type(error).__name__) from None
    return image


def _orientation(image: PIL.Image.Image) -> int:
    """Returns how EXIF says that the image lies, from 1 (upright) to 8."""
    value = image.getexif().get(_ORIENTATION)
    return value if isinstance(value, int) and value in range(1, 9) else 1


def _upright(data: bytes) -> bytes:
    """Returns the same bytes, or a new encoding where EXIF says that the image has to be turned."""
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
    """Assigns every image to a split; the given ones stay."""
    examples = list(files)
    given = {file.split for file in files}
    if given == {""}:
        _require(examples, names, "", 3, "one each for train, val and test")
        examples = _cut(examples, "", "test", test_fraction, seed)
        examples = _cut(examples, "", "val", val_fraction / (1 - test_fraction), seed)
        examples = [file._replace(split=file.split or "train") for file in examples]
    elif "val" not in given:
        _require(examples, names, "train", 2, "one each for train and val")
        examples = _cut(examples, "train", "val", val_fraction, seed)
    for split in SPLITS:
        _require(examples, names, split, 1, f"one for {split}")
    return examples


def _cut(files: list[_File], source: str, role: str, fraction: float, seed: int) -> list[_File]:
    candidates = [index for index, file in enumerate(files) if file.split == source]
    held_out = splitting.hold_out([files[index].label for index in candidates], fraction, seed, role)
    chosen = {candidates[position] for position in held_out}
    return [file._replace(split=role) if index in chosen else file for index, file in enumerate(files)]


def _require(files: Sequence[_File], names: Sequence[str], split: str, least: int, purpose: str) -> None:
    counts = Counter(file.label for file in files if file.split == split)
    few = [f"{name!r} has {counts[label]}" for label, name in enumerate(names) if counts[label] < least]
    if few:
        where = f" in {split}" if split else ""
        raise DatasetError(
            f"expected at least {least} usable images of every class{where} ({purpose}); "
            f"{', '.join(few)}. Add images, or remove the folder of the class"
        )


def _share(examples: Sequence[_File], split: str, checked: _Checked) -> int:
    part = sum(file.split == split for file in examples) / len(examples)
    return int(part * checked.bytes.total())


if __name__ == "__main__":
    terminal.run(prepare)
