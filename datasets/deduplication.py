"""Writes a corrections file that removes images which occur in several splits or with several labels."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from datasets import corrections, decoding, directory, duplicates, features, terminal, tfrecord, workers
from datasets.directory import SPLITS, DatasetError
from datasets.duplicates import Findings, Fingerprints, Member


def find(data: Path) -> Findings:
    """Finds the duplicates in a dataset directory.

    Raises:
      DatasetError: the dataset is unusable, or an image cannot be decoded.
    """
    dataset = directory.read(data)
    shards = [(split, path) for split in SPLITS for path in directory.find_shards(dataset.path / split)]
    fingerprints = Fingerprints()
    with (
        terminal.progress("Comparing images", len(shards)) as advance,
        workers.start() as processes,
    ):
        for found in processes.map(_look, shards):
            fingerprints.extend(found)
            advance(1)
    return fingerprints.findings()


def choose(findings: Findings) -> Iterator[Member]:
    """Yields the images to remove, so that no image is in several splits and none has several labels.

    Of images with several labels, none is kept, because the right label is not known. Of other equal images,
    those in test are kept, or else those in val, so that the model is measured on as many images as before.
    """
    contradicting = {member.index for group in findings.contradictions for member in group}
    for group in findings.contradictions:
        yield from group
    for group in findings.leaked:
        for member in group:
            # The members of a group are in the order test, val, train.
            if member.split != group[0].split and member.index not in contradicting:
                yield member


def prepare(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Dataset directory that is searched.")],
    out: Annotated[Path, typer.Argument(metavar="CORRECTIONS", help="Corrections file to write.")],
) -> None:
    """Names the images that are in several splits or have several labels, in a corrections file.

    `python -m datasets.corrections DATA CORRECTIONS OUT` then writes a dataset without them. Images are equal
    if all their pixels are. An image with several labels is removed everywhere; another one stays in test, or
    else in val. Only DATA is read.
    """
    if out.exists():
        raise DatasetError(f"{out} exists; remove it or choose another name")
    findings = find(data)
    removed = list(choose(findings))
    if not removed:
        terminal.note("no image is in several splits or has several labels; no file is written")
        return
    out.write_text(json.dumps(_corrections(removed), indent=1), encoding="utf-8")
    terminal.note(
        f"{out} removes {len(removed)} of {sum(findings.images.values())} images: "
        f"{findings.contradicting_images} with several labels, and "
        f"{len(removed) - findings.contradicting_images} that are also in another split"
    )


def _look(shard: tuple[str, Path]) -> Fingerprints:
    """Returns the fingerprints of a shard's images."""
    split, path = shard
    fingerprints = Fingerprints()
    try:
        for number, record in enumerate(tfrecord.read(path)):
            example: dict[str, Any] = dict(tfrecord.decode_example(record))
            identity = example.get(features.ID) or [b""]
            try:
                (image,), (label,) = example[features.IMAGE], example[features.LABEL]
                pixels = np.asarray(decoding.decode(image))
                fingerprints.add(split, label, os.fsdecode(identity[0]), duplicates.fingerprint(pixels))
            except (decoding.ImageError, KeyError, TypeError, ValueError, OverflowError) as error:
                raise DatasetError(
                    f"{path}: record {number}: expected one label and one image that can be decoded ({error})"
                ) from None
    except tfrecord.RecordError as error:
        raise DatasetError(f"{path}: {error}. Write the dataset again") from None
    return fingerprints


def _corrections(removed: Iterable[Member]) -> dict[str, Any]:
    entries = [{"id": member.id, "split": member.split, "action": "remove"} for member in removed]
    return {"format": corrections.FORMAT, "corrections": entries}


if __name__ == "__main__":
    terminal.run(prepare)
