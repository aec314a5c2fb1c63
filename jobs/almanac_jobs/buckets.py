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
