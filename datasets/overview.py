"""Prints the summary of a finished dataset directory, for commands that do not import images."""

from __future__ import annotations

from array import array
from collections import Counter

from datasets import decoding, directory, features, summary, terminal, tfrecord
from datasets.directory import SPLITS, Dataset, DatasetError
from datasets.duplicates import Findings
from datasets.inspection import Handling


def show(dataset: Dataset) -> None:
    """Reads all records, without decoding the images, and prints the summary to stdout.

    Raises:
      DatasetError: a record is damaged.
    """
    splits: list[str] = []
    labels, widths, heights = array("Q"), array("I"), array("I")
    formats: Counter[tuple[str, Handling]] = Counter()
    shards = [(split, shard) for split in SPLITS for shard in directory.find_shards(dataset.path / split)]
    with terminal.progress("Reading records", sum(shard.stat().st_size for _, shard in shards)) as advance:
        for split, shard in shards:
            try:
                for record in tfrecord.read(shard):
                    example = tfrecord.decode_example(record)
                    image, label = example[features.IMAGE][0], example[features.LABEL][0]
                    if not isinstance(image, bytes):
                        raise tfrecord.RecordError(f"expected encoded bytes in {features.IMAGE!r}")
                    name, (width, height) = decoding.identify(image)
                    splits.append(split)
                    labels.append(int(label))
                    widths.append(width)
                    heights.append(height)
                    formats[name, "keep"] += 1
            except (tfrecord.RecordError, OSError, KeyError, IndexError) as error:
                raise DatasetError(f"cannot read {shard}: {error}. Write the dataset again") from None
            advance(shard.stat().st_size)
    facts = summary.Facts(
        class_names=dataset.class_names,
        splits=splits,
        labels=labels,
        widths=widths,
        heights=heights,
        formats=formats,
        scalings=[],
        unusable=[],
        ignored={},
        findings=Findings(),
    )
    summary.show(facts, dataset.path)
