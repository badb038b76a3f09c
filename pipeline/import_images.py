"""Converts folders of images with Beam, where one machine is too small: `python -m pipeline.import_images`.

The images and the dataset directory are on a file system that the workers of the runner reach, such as gs://.
What happens to each image is the same as with `python -m datasets.image_folder`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from datasets import folders, importing, inspection, layout, options, remote, terminal
from datasets.directory import DatasetError
from datasets.importing import Item
from datasets.remote import RemotePlace
from pipeline import beam, cli, temporary
from settings import loading
from settings.base import ConfigError
from settings.pipeline import PipelineConfig


def convert(
    src: str,
    out: str,
    config: PipelineConfig,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_bad: bool = False,
    report: Path | None = None,
) -> None:
    """Converts folders of images to a dataset directory with Beam, and prints a summary.

    Args:
      src: path or URI of `<class>/...` or `<split>/<class>/...`; splits may have any usual name.
      out: path or URI of the dataset directory to write.
      config: the runner of Beam and its options; `kubeflow.image` is the workers' image.
      val_fraction: fraction of each class that becomes val, unless there are folders for val.
      test_fraction: fraction of each class that becomes test, unless there are folders for test.
      seed: seed of the splits and of the order of the examples.
      skip_bad: leave out images that cannot be used instead of raising an error.
      report: HTML file to write on this machine, or None.

    Raises:
      DatasetError: the folders have another structure, images cannot be used, or `out` is not empty.
    """
    # Importing Beam takes seconds.
    from datasets import beam_workers  # noqa: PLC0415

    importing.check_fractions(val_fraction, test_fraction)
    remote.check_destination(out)
    names, items, ignored = list_images(src)
    arguments = beam.arguments(config.beam, out, config.kubeflow.image)
    with beam_workers.start(arguments, out) as workers:
        inspected, splits = importing.examine(
            workers,
            items,
            names,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
            skip_bad=skip_bad,
        )
        with remote.stage(out, names):
            importing.write_shards(workers, items, inspected, splits, out, seed)
    importing.summarize(items, names, inspected, splits, out, report, ignored)


def list_images(src: str) -> tuple[list[str], list[Item], dict[str, int]]:
    """Lists the classes and images below a folder, without reading the images.

    Args:
      src: path or URI of the folder.

    Returns:
      The class names, the images in a fixed order, and the number of other files by reason.

    Raises:
      DatasetError: there are no images, or their folders are neither classes nor splits with classes.
    """
    images: list[PurePosixPath] = []
    ignored: dict[str, int] = {}
    for name in remote.list_files(src):
        path = PurePosixPath(name)
        if any(part.startswith(".") or folders.is_litter(part) for part in path.parts):
            reason = "hidden files and folders of storage devices"
        elif path.suffix.lower() not in inspection.suffixes():
            reason = f"files that are no images, {path.suffix.lower() or 'no suffix'}"
        else:
            images.append(path)
            continue
        ignored[reason] = ignored.get(reason, 0) + 1
    top = {path.parts[0] for path in images if len(path.parts) > 1}
    splits = {name: layout.split_of(name) for name in top}
    is_split = bool(top) and all(splits.values()) and "train" in splits.values()
    if not is_split and any(splits.values()):
        raise DatasetError(
            f"{src}: expected either folders for train and optionally val and test, each with a folder for "
            f"each class, or class folders only; found {', '.join(layout.natural_order(top))}"
        )
    depth = 1 if is_split else 0
    usable = [path for path in images if len(path.parts) > depth + 1]
    if len(usable) < len(images):
        ignored["images outside of class folders"] = len(images) - len(usable)
    names = layout.natural_order({path.parts[depth] for path in usable})
    label_of = {name: label for label, name in enumerate(names)}
    start = src.rstrip("/")
    items = [
        Item(
            RemotePlace(f"{start}/{path}"),
            str(path),
            (splits[path.parts[0]] or "") if is_split else "",
            label_of[path.parts[depth]],
        )
        for path in usable
    ]
    return names, items, ignored


def main(
    src: Annotated[str, typer.Argument(metavar="SRC", help="gs://.../CLASS/..., or .../SPLIT/CLASS/....")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Dataset directory to write, gs://...")],
    *,
    config: cli.Config = None,
    overrides: cli.Overrides = None,
    val_fraction: options.ValFraction = 0.1,
    test_fraction: options.TestFraction = 0.1,
    seed: options.Seed = 0,
    skip_bad: options.SkipBad = False,
    report: options.Report = None,
) -> None:
    """Writes your own images as a dataset directory with Beam.

    For images that one machine cannot hold or convert in time: the runner of `--set beam.runner=...` does it.
    Kinds of files are judged by their suffixes.
    """
    try:
        settings = loading.load(config or (), overrides or (), {}, on_base=True)
    except ConfigError as error:
        terminal.fail(str(error))
    convert(
        src,
        out,
        settings,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        skip_bad=skip_bad,
        report=report,
    )


if __name__ == "__main__":
    with temporary.folder():
        terminal.run(main)
