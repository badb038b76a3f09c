"""Looks at every image of the examples: can it be decoded, how large is it, and what is its fingerprint?

The shards are looked at in parallel. Only what was seen, a few hundred bytes for each image, leaves the
process that reads a shard.
"""

from __future__ import annotations

import pickle
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import apache_beam as beam
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tfx.dsl.io import fileio

import models.decoding
from components import tfrecords
from components.data_gate.observations import Observations
from datasets import decoding, duplicates, features
from datasets.duplicates import Fingerprints
from settings.images import Color

# Images that are decoded at a time, and the largest number of their pixels.
_BATCH_IMAGES = 256
_BATCH_PIXELS = 4_000_000


@dataclass(frozen=True)
class Expected:
    """What is expected of every image.

    Attributes:
      size: (height, width) in pixels, when upright; None accepts every size.
      max_pixels: largest number of pixels; a larger image is not decoded.
      background: colour behind transparent pixels.
    """

    size: tuple[int, int] | None
    max_pixels: int
    background: Color


@dataclass
class _Shard:
    """What was seen in a shard, and the fingerprints of the images that can be decoded."""

    seen: Observations = field(default_factory=Observations)
    fingerprints: Fingerprints = field(default_factory=Fingerprints)


@dataclass(frozen=True)
class _Record:
    """An example: its encoded image, its label, its id (empty without one), and its name in messages."""

    image: bytes
    label: int
    id: str
    name: str


def look(
    pipeline: beam.Pipeline, files: Mapping[str, Sequence[str]], expected: Expected, folder: str
) -> tuple[dict[str, Observations], Fingerprints]:
    """Looks at all images in a Beam pipeline, and runs the pipeline.

    Args:
      pipeline: a pipeline without steps.
      files: split -> TFRecord files.
      expected: what is expected of every image.
      folder: path or URI of a folder for temporary files, which the workers can write to.

    Returns:
      Split -> what was seen, and the fingerprints of all images that can be decoded, in the order of the
      files and their records.
    """
    shards = [(split, file) for split, split_files in files.items() for file in split_files]
    fileio.makedirs(folder)
    with pipeline as root:
        _ = (
            root
            | "Shards" >> beam.Create(list(enumerate(shards)))
            | "SpreadShards" >> beam.Reshuffle()
            | "LookAtImages" >> beam.ParDo(_LookAtShard(expected, folder))
        )
    seen = {split: Observations() for split in files}
    fingerprints = Fingerprints()
    for number, (split, _) in enumerate(shards):
        with fileio.open(_result_path(folder, number), "rb") as file:
            shard = pickle.load(file)  # written by the workers of this step
        seen[split].extend(shard.seen)
        fingerprints.extend(shard.fingerprints)
    fileio.rmtree(folder)
    return seen, fingerprints


class Decoder:
    """Decodes images as the network's input is decoded.

    Args:
      background: colour behind transparent pixels.
    """

    def __init__(self, background: Color) -> None:
        def serialize(encoded: tf.Tensor) -> tf.Tensor:
            # Images of different sizes do not fit into one tensor; as strings, they do.
            return models.decoding.map_decoded(
                encoded, tf.io.serialize_tensor, tf.TensorSpec([], tf.string), background
            )

        self._serialize = tf.function(serialize, input_signature=[tf.TensorSpec([None], tf.string)])

    def decode(self, images: Sequence[bytes]) -> list[np.ndarray]:
        """Decodes images.

        Args:
          images: encoded images.

        Returns:
          uint8 [height, width, 3] of each image.

        Raises:
          tf.errors.InvalidArgumentError: an image cannot be decoded.
        """
        return [_parse_tensor(each) for each in self._serialize(tf.constant(list(images))).numpy()]


def read_images(files: Sequence[str], positions: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Reads some images.

    Args:
      files: TFRecord files.
      positions: positions of the images in the files as a whole, from 0.

    Yields:
      (position, encoded image), in ascending order.
    """
    wanted = set(positions)
    if not wanted:
        return
    records = tfrecords.read(files).take(max(wanted) + 1).as_numpy_iterator()
    for position, record in enumerate(records):
        if position in wanted:
            example = tf.train.Example.FromString(record)
            yield position, example.features.feature[features.IMAGE].bytes_list.value[0]


class _LookAtShard(beam.DoFn):
    """Looks at the images of a shard, and writes what was seen to a file."""

    def __init__(self, expected: Expected, folder: str) -> None:
        self._expected = expected
        self._folder = folder

    def setup(self) -> None:
        self._decoder = Decoder(self._expected.background)

    def process(self, element: tuple[int, tuple[str, str]]) -> None:
        number, (split, path) = element
        shard = _look_at_shard(split, path, self._expected, self._decoder)
        with fileio.open(_result_path(self._folder, number), "wb") as file:
            file.write(pickle.dumps(shard))


def _result_path(folder: str, number: int) -> str:
    return posixpath.join(folder, f"{number:05}.pickle")


def _look_at_shard(split: str, path: str, expected: Expected, decoder: Decoder) -> _Shard:
    shard = _Shard()
    seen = shard.seen
    # Pillow decodes a batch while TensorFlow does.
    with ThreadPoolExecutor(max_workers=1) as thread:
        for batch in _batches(path, expected, seen):
            sizes_in_pillow = thread.submit(_sizes_in_pillow, batch)
            for position, pixels in _decode(batch, decoder, seen):
                record = batch[position]
                height, width = pixels.shape[:2]
                if problem := _compare_sizes((width, height), sizes_in_pillow.result()[position]):
                    seen.problems.append(f"example {record.name} {problem}")
                    continue
                if expected.size not in (None, (height, width)):
                    seen.other_sizes += 1
                    seen.other_size = seen.other_size or f"{record.name} is {width}x{height}"
                shard.fingerprints.add(split, record.label, record.id, duplicates.fingerprint(pixels))
    return shard


def _batches(path: str, expected: Expected, seen: Observations) -> Iterator[list[_Record]]:
    """Yields the images that are small enough to be decoded, in batches that fit into memory."""
    batch: list[_Record] = []
    pixels = 0
    for number, data in enumerate(tfrecords.read([path]).as_numpy_iterator()):
        seen.examples += 1
        record = _parse(data, f"number {number} of {PurePosixPath(path).name}")
        size = decoding.count_pixels(record.image)
        if size > expected.max_pixels:
            seen.problems.append(
                f"example {record.name} has more than {expected.max_pixels} pixels; make it smaller, leave "
                "it out, or raise data_gate.max_image_pixels"
            )
            continue
        if batch and (len(batch) == _BATCH_IMAGES or pixels + size > _BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(record)
        pixels += size
    if batch:
        yield batch


def _parse(data: bytes, name: str) -> _Record:
    values = tf.train.Example.FromString(data).features.feature
    images, labels, ids = (values[key] for key in (features.IMAGE, features.LABEL, features.ID))
    identity = ids.bytes_list.value[0].decode("utf-8", "replace") if ids.bytes_list.value else ""
    return _Record(
        images.bytes_list.value[0] if images.bytes_list.value else b"",
        labels.int64_list.value[0] if labels.int64_list.value else -1,
        identity,
        repr(identity) if identity else name,
    )


def _sizes_in_pillow(batch: Sequence[_Record]) -> list[tuple[int, int] | str]:
    """Returns (width, height) of each image that Pillow decodes, or why it does not decode it."""
    sizes: list[tuple[int, int] | str] = []
    for record in batch:
        try:
            sizes.append(decoding.decode(record.image).size)
        except decoding.ImageError as error:
            sizes.append(str(error))
    return sizes


def _compare_sizes(size: tuple[int, int], in_pillow: tuple[int, int] | str) -> str:
    """Returns why Pillow, with which slices and reports read images, does not take an image.

    Args:
      size: (width, height) of the image for TensorFlow.
      in_pillow: the same for Pillow, or why it cannot decode the image.

    Returns:
      The problem; empty if there is none.
    """
    advice = "write the dataset again with an importer, which repairs such images, or leave it out"
    if isinstance(in_pillow, str):
        return (
            f"cannot be decoded by Pillow, with which slices and reports read images: {in_pillow}; {advice}"
        )
    if size != in_pillow:
        found = " and ".join(f"{width}x{height}" for width, height in (size, in_pillow))
        return f"has different sizes for TensorFlow and Pillow, {found}; {advice}"
    return ""


def _decode(batch: list[_Record], decoder: Decoder, seen: Observations) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the position and the pixels of images that can be decoded, and notes the others."""
    try:
        yield from enumerate(decoder.decode([record.image for record in batch]))
    except tf.errors.InvalidArgumentError:
        # Decoding one image at a time is slow, and is needed only to name the bad images of a batch.
        for position, record in enumerate(batch):
            try:
                (pixels,) = decoder.decode([record.image])
            except tf.errors.InvalidArgumentError as error:
                seen.problems.append(
                    f"example {record.name} cannot be decoded: {_reason(record.image) or _first_line(error)}"
                )
            else:
                yield position, pixels


def _reason(encoded: bytes) -> str:
    """Returns why an image cannot be decoded; empty if the plain decoder decodes it."""
    try:
        tf.io.decode_image(encoded, channels=models.decoding.CHANNELS, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        return _first_line(error)
    return ""


def _first_line(error: tf.errors.OpError) -> str:
    """Returns the first line of an error's message, without the names of TensorFlow's node and operation."""
    message = error.message.split("}}", 1)[-1].strip()
    return message.splitlines()[0].removesuffix("[Op:DecodeImage] name: ").strip()


def _parse_tensor(serialized: bytes) -> np.ndarray:
    tensor = tensor_pb2.TensorProto.FromString(serialized)
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    return np.frombuffer(tensor.tensor_content, np.uint8).reshape(shape)
