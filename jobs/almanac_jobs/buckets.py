"""Which bucket an entity belongs to: a pure function of its text and the number of buckets, the same everywhere."""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BUCKET_ENTITIES = 8192
"""Entities that a bucket holds, about: its file stays small to read, yet large enough to be worth a request."""
MAX_BUCKETS = 8192
_SLICE = 65536


def bucket_count(entities: int) -> int:
    """Number of buckets for so many entities: a power of two from 1 to `MAX_BUCKETS`."""
    wanted = -(-entities // BUCKET_ENTITIES)
    return min(1 << max(wanted - 1, 0).bit_length(), MAX_BUCKETS)


def place_of(entities: pa.Array, places: int) -> NDArray[np.int32]:
    """The place of every entity among `places`, a power of two: its bucket of as many, written backwards in binary.

    The entities of each bucket lie side by side then, whatever the number of buckets: a bucket of B has the places from
    `place_of_bucket(bucket, B) * places / B` on, where B is at most `places`.
    """
    return _backwards(bucket_of(entities, places), places)


def place_of_bucket(bucket: int, buckets: int) -> int:
    """The place of a bucket among all; the bucket at a place is `place_of_bucket(place, buckets)`."""
    return int(_backwards(np.array([bucket], np.int32), buckets)[0])


def _backwards(numbers: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """The bits of numbers below `count`, a power of two, in reverse order."""
    bits = count.bit_length() - 1
    turned = np.zeros_like(numbers)
    for bit in range(bits):
        turned |= (numbers >> bit & 1) << (bits - 1 - bit)
    return turned


def bucket_of(entities: pa.Array, buckets: int) -> NDArray[np.int32]:
    """The bucket of every entity: CRC-32 of the UTF-8 bytes of its text, modulo `buckets`, a power of two.

    The text of an integer is its decimal digits, that of a date is ISO 8601. `entities` holds no null.
    """
    mask = np.uint32(buckets - 1)
    out = np.empty(len(entities), np.int32)
    for start in range(0, len(entities), _SLICE):  # slices bound the memory that Python's byte strings take
        texts = pc.cast(pc.cast(entities.slice(start, _SLICE), pa.large_string()), pa.large_binary()).to_pylist()
        out[start : start + len(texts)] = np.fromiter(map(zlib.crc32, texts), np.uint32, len(texts)) & mask
    return out
