"""What cluster engines do with rows: partial aggregates before the one shuffle, buckets to results after it.

A record of the shuffle is (key, value), and its key is its partition. Entities are divided among `places` so that the
entities of any bucket lie side by side (`buckets.place_of`), whatever their number turns out to be. Place p has two
partitions: 2p holds its entities' partial aggregates; 2p + 1 holds nothing but names and tallies, of which facts about
the whole source are made before anybody looks at values. Values are bytes, which an engine moves and never looks into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from almanac.api import ForecastSpec
from almanac_jobs.buckets import place_of_bucket
from almanac_jobs.calendar import Calendar
from almanac_jobs.engines import Work
from almanac_jobs.forecast.types import Ints
from almanac_jobs.progress import Progress
from almanac_jobs.source import Portion
from almanac_jobs.source.aggregation import Aggregation
from almanac_jobs.source.partial import Partial, Tally, from_bytes, to_bytes
from almanac_jobs.source.reader import read_portion
from almanac_jobs.source.rows import Plan

Record = tuple[int, bytes | Tally]
Result = TypeVar("Result")

CENSUS_PLACES = 16
"""Places whose names one task counts: they are few bytes, and a task costs as much as a hundred thousand of them."""


@dataclass(frozen=True, slots=True)
class Division:
    """How entities are divided among partitions of the shuffle. `places` is a power of two."""

    places: int

    @property
    def partitions(self) -> int:
        return 2 * self.places

    @property
    def census(self) -> list[int]:
        """The partitions that hold names."""
        return list(range(1, self.partitions, 2 * self._step))

    def census_of(self, place: int) -> int:
        """The partition that the names of a place go to."""
        return 2 * (place - place % self._step) + 1

    @property
    def _step(self) -> int:
        return min(self.places, CENSUS_PLACES)


@dataclass(frozen=True, slots=True)
class Grouping:
    """Places as tasks take them, once the number of buckets is known: every bucket in one group, each as large."""

    division: Division
    buckets: int

    @property
    def groups(self) -> int:
        return min(self.division.places, self.buckets)

    def of_bucket(self, bucket: int) -> int:
        return place_of_bucket(bucket % self.groups, self.groups)

    def of_key(self, key: int) -> int:
        return key * self.groups // self.division.partitions

    def keys_of(self, group: int) -> range:
        """The keys of a group's partial aggregates and names."""
        width = self.division.partitions // self.groups
        return range(group * width, (group + 1) * width)

    def buckets_of(self, group: int) -> range:
        return range(place_of_bucket(group, self.groups), self.buckets, self.groups)


@dataclass(frozen=True, slots=True)
class MapRows:
    """Portions of the data set become records: partial aggregates by place, names and a tally."""

    spec: ForecastSpec
    division: Division

    def __call__(self, index: int, portions: Iterable[Portion]) -> Iterator[Record]:
        for portion in portions:
            aggregation = read_portion(self.spec, portion)
            yield 1, aggregation.tally
            names: dict[int, list[pa.Array]] = {}
            for place, partial in aggregation.parts(self.division.places):
                names.setdefault(self.division.census_of(place), []).append(partial.entities)
                yield 2 * place, partial.to_bytes()
            for key, some in names.items():
                yield key, to_bytes(pa.record_batch({"entity": pa.concat_arrays(some)}))


@dataclass(frozen=True, slots=True)
class Census:
    """What a task has counted: `entities` of its places, and what it has heard of rows."""

    entities: int
    tallies: tuple[Tally, ...]


def take_census(index: int, records: Iterable[Record]) -> Iterator[Census]:
    """Records of names and tallies become a census."""
    tallies: list[Tally] = []
    known: pa.Array | None = None
    for _, value in records:
        if isinstance(value, Tally):
            tallies.append(value)
            continue
        names = from_bytes(value).column("entity")
        known = names if known is None else pa.concat_arrays([known, names]).unique()
    yield Census(0 if known is None else len(known), tuple(tallies))


@dataclass(frozen=True, slots=True)
class Gather:
    """The records of a group of places become an aggregation of all rows of their entities."""

    plan: Plan
    column: str
    grouping: Grouping

    def __call__(self, group: int, records: Iterable[Record]) -> Aggregation:
        aggregation = Aggregation(self.plan, self.column, self.grouping.buckets)
        for key, value in records:
            if not key % 2 and not isinstance(value, Tally):
                aggregation.merge(Partial.from_bytes(value))
        return aggregation


@dataclass(frozen=True, slots=True)
class Sample:
    """Observations of the first entities of some buckets, about `limit` of each, as (bucket, entities, periods)."""

    gather: Gather
    buckets: Mapping[int, tuple[int, ...]]
    """By group."""
    limit: int

    def __call__(self, group: int, records: Iterable[Record]) -> Iterator[tuple[int, NDArray[np.int32], Ints]]:
        aggregation = self.gather(group, records)
        for bucket in self.buckets[group]:
            yield bucket, *aggregation.sample_bucket(bucket, self.limit)


@dataclass(frozen=True, slots=True)
class Periods:
    """The different periods of a group's observations; None if they are more than `most`."""

    gather: Gather
    calendar: Calendar
    most: int

    def __call__(self, group: int, records: Iterable[Record]) -> Iterator[Ints | None]:
        aggregation = self.gather(group, records)
        aggregation.regroup(self.calendar)
        periods = np.unique(aggregation.finish(last_period=0).period)
        yield periods if len(periods) <= self.most else None


@dataclass(frozen=True, slots=True)
class Mapped(Generic[Result]):
    """A group whose buckets are done."""

    observations: int
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class MapBuckets(Generic[Result]):
    """The work of a run is done with every bucket of a group. `calendar` is the job's; the plan's may be finer.

    `counter` makes what the work counts by, and is stopped by.
    """

    gather: Gather
    calendar: Calendar
    last_period: int
    work: Work[Result]
    counter: Callable[[], Progress] = Progress

    def __call__(self, group: int, records: Iterable[Record]) -> Iterator[Mapped[Result]]:
        aggregation = self.gather(group, records)
        if aggregation.plan.calendar != self.calendar:
            aggregation.regroup(self.calendar)
        observations = aggregation.finish(self.last_period)
        del aggregation
        buckets = self.gather.grouping.buckets_of(group)
        done = tuple(self.work(observations, bucket, self.counter()) for bucket in buckets)
        yield Mapped(len(observations.period), done)
