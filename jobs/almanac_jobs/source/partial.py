"""Rows that are aggregated as far as one process has seen them, on their way to the process that has all of an entity.

What crosses is the exact state of `kernel.sums`, not rounded values: the result is the same however rows were divided.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from almanac_jobs.forecast.types import Floats, Ints
from almanac_jobs.source.observations import Counts


@dataclass(frozen=True, slots=True)
class Partial:
    """Entries of entities. Entity i has `offsets[i]` to `offsets[i + 1]` of `period`, `value` and `extra`.

    `entities` are distinct. `period` counts from the first that `Aggregation` can tell. `value` and `extra` are
    those of `kernel.sums.Aggregator.entries`.
    """

    entities: pa.Array
    offsets: Ints
    period: NDArray[np.uint32]
    value: Floats | None
    extra: Ints | None

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.period)

    def to_bytes(self) -> bytes:
        """All of it as one batch of Arrow's stream format, a row an entity."""
        offsets = pa.array(self.offsets - self.offsets[0], pa.int32())
        columns = {"entity": self.entities}
        for name, column in (("period", self.period), ("value", self.value), ("extra", self.extra)):
            if column is not None:
                columns[name] = pa.ListArray.from_arrays(offsets, pa.array(column))
        return to_bytes(pa.RecordBatch.from_pydict(columns))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`."""
        batch = from_bytes(data)
        lists = {name: batch.column(name) for name in batch.schema.names if name != "entity"}
        flat = {name: np.asarray(column.values) for name, column in lists.items()}
        offsets = np.asarray(lists["period"].offsets).astype(np.int64)
        return cls(batch.column("entity"), offsets, flat["period"], flat.get("value"), flat.get("extra"))


def to_bytes(batch: pa.RecordBatch) -> bytes:
    """A batch in Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_bytes(data: bytes) -> pa.RecordBatch:
    """The inverse of `to_bytes`."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_next_batch()


@dataclass(frozen=True, slots=True)
class Tally:
    """What there is to say of some rows without looking at entities; tallies of disjoint sets of rows add up.

    `counted` are the rows with an entity, a time and a value; `first` and `last` are the periods that these are within,
    None if there is none. `weekdays` are those of their times, where periods are weeks.
    """

    counts: Counts
    counted: int
    first: int | None
    last: int | None
    weekdays: frozenset[int]

    def __add__(self, other: Tally) -> Tally:
        mine, theirs = self.counts, other.counts
        some = [one for one in (self, other) if one.first is not None and one.last is not None]
        return Tally(
            counts=replace(mine + theirs, merged=mine.merged),
            counted=self.counted + other.counted,
            first=min((one.first for one in some if one.first is not None), default=None),
            last=max((one.last for one in some if one.last is not None), default=None),
            weekdays=self.weekdays | other.weekdays,
        )
