"""Finds pairs of images that look almost the same, without comparing every image with every other one.

Each image is described by a perceptual hash of its low frequencies and by a small picture. Images whose
hashes share two bytes and differ in few bits are suspects; the correlation of their small pictures decides.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np
import PIL.Image

# Side in pixels of the small pictures.
_THUMBNAIL_SIDE = 12
THUMBNAIL_BYTES = 3 * _THUMBNAIL_SIDE**2
# Side in pixels of the grey picture whose low frequencies are hashed.
_HASH_SIDE = 16
# Largest distance of two near-duplicates. Between the test and the training images of CIFAR-10, about 98 of
# 100 pairs up to this distance show the same scene; all copies that were saved as JPEG of quality 50, scaled
# to half their size or made 10 % brighter lie below it.
MAX_DISTANCE = 0.17
# What each different bit of the hashes adds to the distance.
_BIT_DISTANCE = 0.01
# Number of bits in which the hashes of suspects may differ: with more, the distance would be too large.
_MAX_HAMMING = round(MAX_DISTANCE / _BIT_DISTANCE)
# Standard deviation, in levels from 0 to 255, below which a small picture shows nothing to compare.
_MIN_CONTRAST = 4.0
# The bytes that the hashes of suspects share.
_TABLES = tuple(itertools.combinations(range(8), 2))
# With how many of the hashes that share two bytes with it a hash is compared; those that agree in most of the
# following bits come first. The limit keeps the time from growing with the square of the number of images
# where thousands of them share two bytes, such as icons on a white background.
_MAX_NEIGHBOURS = 32
# Number of pairs after which the search ends. Only data in which most images look alike has as many.
_MAX_PAIRS = 2_000_000
# Number of images or pairs whose small pictures are processed at a time.
_CHUNK = 20_000


def describe(image: PIL.Image.Image) -> tuple[int, bytes]:
    """Computes what `find_pairs` needs of an image.

    Args:
      image: an image in mode RGB.

    Returns:
      (64-bit perceptual hash, RGB bytes of a small square picture).
    """
    grey = _shrink(image, _HASH_SIDE).convert("L")
    return _perceptual_hash(np.asarray(grey, np.float32)), _shrink(image, _THUMBNAIL_SIDE).tobytes()


def find_pairs(
    hashes: np.ndarray, thumbnails: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the pairs of images whose distance is at most MAX_DISTANCE.

    The distance of two images is 1 minus the correlation of the pixels of their small pictures, plus 0.01 for
    each bit in which their hashes differ. Images of almost a single colour have no pairs. At most two million
    pairs are returned.

    Args:
      hashes: uint64 [images], perceptual hashes.
      thumbnails: uint8 [images, THUMBNAIL_BYTES], small pictures.
      rows: int64 [selected], the images to search, which have to be different from each other.

    Returns:
      (first, second, distance): int64 [pairs], int64 [pairs] and float32 [pairs]. The first two are positions
      in `rows`, the lower one first. The pairs depend on the images in `rows` and on their order alone.
    """
    rows, positions = _with_contrast(thumbnails, rows)
    selected = hashes[rows]
    found, distances = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for table in _TABLES:
        codes = _suspects(selected, table)
        codes = codes[~np.isin(codes, found)]
        first, second = np.divmod(codes, max(len(rows), 1))
        distance = _distances(thumbnails, rows[first], rows[second])
        distance += np.float32(_BIT_DISTANCE) * _hamming(selected[first], selected[second])
        near = distance <= MAX_DISTANCE
        found, distances = np.append(found, codes[near]), np.append(distances, distance[near])
        if len(found) >= _MAX_PAIRS:
            found, distances = found[:_MAX_PAIRS], distances[:_MAX_PAIRS]
            break
    first, second = np.divmod(found, max(len(rows), 1))
    return positions[first], positions[second], distances


def _shrink(image: PIL.Image.Image, side: int) -> PIL.Image.Image:
    # The bilinear filter, which Pillow widens when it shrinks an image, gives almost the same picture for all
    # sizes of the image; the box filter does not. A large image is first reduced by a whole number, which is
    # faster.
    return image.resize((side, side), PIL.Image.Resampling.BILINEAR, reducing_gap=3.0)


@functools.lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """Returns the first 8 rows of the discrete cosine transform, float32 [8, _HASH_SIDE]."""
    frequency, position = np.ogrid[:8, :_HASH_SIDE]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * _HASH_SIDE)).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _frequency_order() -> np.ndarray:
    """Returns the order of the 8 x 8 frequencies from low to high, int64 [64].

    A small shift of the picture changes the signs of high frequencies first; in this order these are in few
    bytes, so that other bytes stay equal.
    """
    row, column = np.divmod(np.arange(64), 8)
    return np.lexsort((np.maximum(row, column), row + column))


def _perceptual_hash(grey: np.ndarray) -> int:
    """Compares each of the 64 lowest frequencies of a picture with their median.

    Source: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010 (pHash).

    Args:
      grey: float32 [_HASH_SIDE, _HASH_SIDE].

    Returns:
      The 64 bits, the lowest frequency first.
    """
    cosines = _cosines()
    frequencies = (cosines @ grey @ cosines.T).ravel()
    # The median of all but the first frequency, which is the mean of the picture and does not say what it
    # shows; np.median takes several times as long.
    bits = frequencies > np.partition(frequencies[1:], 31)[31]
    return int.from_bytes(np.packbits(bits[_frequency_order()]).tobytes(), "big")


def _with_contrast(thumbnails: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows whose pictures are not of almost a single colour, and their positions in `rows`."""
    positions = [np.zeros(0, np.int64)]
    for start in range(0, len(rows), _CHUNK):
        contrast = _centred(thumbnails[rows[start : start + _CHUNK]]).std(axis=1)
        positions.append(start + np.flatnonzero(contrast >= _MIN_CONTRAST))
    kept = np.concatenate(positions)
    return rows[kept], kept


def _suspects(hashes: np.ndarray, table: tuple[int, ...]) -> np.ndarray:
    """Finds pairs of hashes that share two bytes and differ in few bits.

    Args:
      hashes: uint64 [images].
      table: numbers of the two bytes, from 0 for the highest.

    Returns:
      int64 [pairs]: lower index * number of images + higher index.
    """
    # Hashes that share the bytes lie side by side if these bytes come first.
    columns = [*table, *(column for column in range(8) if column not in table)]
    as_bytes = hashes.astype(">u8").view(np.uint8).reshape(-1, 8)
    keys = np.ascontiguousarray(as_bytes[:, columns]).view(">u8").ravel().astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    codes = [np.zeros(0, np.int64)]
    for first, second in _neighbours(keys[order] >> np.uint64(48)):
        one, other = order[first], order[second]
        near = _hamming(hashes[one], hashes[other]) <= _MAX_HAMMING
        one, other = one[near], other[near]
        codes.append(np.minimum(one, other) * len(hashes) + np.maximum(one, other))
        if sum(map(len, codes)) >= _MAX_PAIRS:
            break
    return np.concatenate(codes)


def _neighbours(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the positions of equal keys in a sorted array, first those that lie side by side."""
    first = np.arange(len(keys))
    for distance in range(1, _MAX_NEIGHBOURS + 1):
        first = first[first < len(keys) - distance]
        first = first[keys[first] == keys[first + distance]]
        if not len(first):
            return
        yield first, first + distance


@functools.lru_cache(maxsize=1)
def _bit_counts() -> np.ndarray:
    """Returns how many bits are set in each number from 0 to 65,535, uint8 [65536]."""
    numbers = np.arange(2**16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    return np.unpackbits(numbers, axis=1).sum(axis=1, dtype=np.uint8)


def _hamming(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns in how many bits the hashes of each pair differ, uint8 [pairs]."""
    return _bit_counts()[(first ^ second).view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.uint8)


def _distances(thumbnails: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns 1 minus the correlation of the pixels of each pair, float32 [pairs].

    The mean of each colour channel does not count: otherwise, all pictures of a blue sky would be alike.
    """
    distances = np.zeros(len(first), np.float32)
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        a, b = _centred(thumbnails[first[part]]), _centred(thumbnails[second[part]])
        products, squares = np.einsum("ij,ij->i", a, b), [np.einsum("ij,ij->i", v, v) for v in (a, b)]
        distances[part] = np.maximum(0, 1 - products / np.sqrt(squares[0] * squares[1]))
    return distances


def _centred(thumbnails: np.ndarray) -> np.ndarray:
    """Returns the pixels minus the mean of their colour channel in each picture, float32."""
    values = thumbnails.reshape(len(thumbnails), -1, 3).astype(np.float32)
    means = np.einsum("ijk->ik", values)[:, None] / values.shape[1]
    return (values - means).reshape(len(thumbnails), -1)
