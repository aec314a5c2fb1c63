"""Rows in, observations out: entities get codes, and rows of one entity and period become one value.

Memory follows entities and observations, and a few million rows that wait.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from almanac.api import JobError, Reason
from almanac_jobs.buckets import bucket_count, bucket_of
from almanac_jobs.calendar import Calendar, Unit
from almanac_jobs.forecast.types import Ints
from almanac_jobs.kernel.sums import Aggregator, How
from almanac_jobs.source.observations import Counts, Observations
from almanac_jobs.source.rows import Plan, Rows

CHUNK_ROWS = 1_000_000
"""Rows that wait until they are aggregated: enough to spread the cost of looking up entities."""
_PERIOD_BITS = 32


class Aggregation:
    """Aggregates rows as a plan says. `column` is the name of their times, for messages."""

    def __init__(self, plan: Plan, column: str) -> None:
        self.plan = plan
        self.weekdays: frozenset[int] = frozenset()
        """Weekdays of all times so far, where periods are weeks."""
        self._column = column
        self._aggregator = Aggregator(plan.how)
        self._entities = pa.array([], plan.entity_type)
        self._waiting: list[Rows] = []
        self._counts = Counts(0)
        self._counted = 0

    def add(self, rows: Rows) -> None:
        """Take in rows, in any order.

        Raises:
            JobError: DataError for times too far off to be numbered.
        """
        self._waiting.append(rows)
        counts, self.weekdays = self._counts, self.weekdays | rows.weekdays
        self._counts = replace(
            counts,
            rows=counts.rows + len(rows.entity) + rows.null_entities,
            null_entities=counts.null_entities + rows.null_entities,
            null_times=counts.null_times + rows.null_times,
            null_values=counts.null_values + rows.null_values,
        )
        self._counted += len(rows.period)
        if sum(len(one.entity) for one in self._waiting) >= CHUNK_ROWS:
            self._aggregate()

    @property
    def counts(self) -> Counts:
        """What became of the rows so far; `merged` is not known before the end."""
        return self._counts

    def sample(self, limit: int) -> tuple[NDArray[np.int32], Ints]:
        """Indices of entities and periods of about `limit` observations: those of the entities that will be first."""
        self._aggregate()
        keys = self._aggregator.keys()
        bounds = self._bounds(keys)
        lengths = np.diff(bounds)[self._order]
        first = self._order[: int(np.searchsorted(np.cumsum(lengths), limit)) + 1]
        entity = np.repeat(np.arange(len(first), dtype=np.int32), lengths[: len(first)])
        picked = keys[_ranges(bounds[first], bounds[first + 1])]
        distinct = np.diff(picked, prepend=-1) != 0
        return entity[distinct], self._periods(picked[distinct])

    def regroup(self, calendar: Calendar) -> None:
        """Go on with longer periods, each made of whole periods so far."""
        was = self.plan.calendar
        self._aggregate()

        def coarser(keys: Ints) -> Ints:
            return self._keys(keys >> _PERIOD_BITS, calendar.periods(was.times(self._periods(keys))), calendar)

        self._aggregator.rekey(coarser)
        self.plan = replace(self.plan, calendar=calendar)

    def finish(self) -> Observations:
        """All observations. There must be one, and nothing can be added afterwards."""
        self._aggregate()
        keys, values = self._aggregator.finish(10.0**self.plan.scale)
        order, bounds = self._order, self._bounds(keys)
        picked = _ranges(bounds[order], bounds[order + 1])
        period = self._periods(keys[picked])
        del keys
        value = values[picked]
        return Observations(
            entities=self._entities.take(pa.array(order)),
            bucket=self._bucket[order],
            buckets=bucket_count(len(order)),
            offsets=np.concatenate(([0], np.cumsum(np.diff(bounds)[order]))),
            period=period,
            value=value,
            calendar=self.plan.calendar,
            last_period=int(period.max()),
            counts=replace(self._counts, merged=self._counted - len(period)),
        )

    def _aggregate(self) -> None:
        """Aggregate the rows that wait."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        codes = self._codes([rows.entity for rows in waiting])
        cuts = np.cumsum([len(rows.entity) for rows in waiting])[:-1]
        keys = [
            self._keys(code if rows.counted is None else code[rows.counted], rows.period, self.plan.calendar)
            for code, rows in zip(np.split(codes, cuts), waiting, strict=True)
        ]
        for part in range(max(1, *(len(rows.parts) for rows in waiting))):
            here = [i for i, rows in enumerate(waiting) if part == 0 or part < len(rows.parts)]
            key = np.concatenate([keys[i] for i in here])
            value = None if self.plan.how is How.COUNT else np.concatenate([waiting[i].parts[part] for i in here])
            self._aggregator.add(key, value, self._extra(waiting, part, len(key)))

    def _extra(self, waiting: list[Rows], part: int, length: int) -> Ints | None:
        if self.plan.how is How.LAST:
            return np.concatenate([rows.time for rows in waiting if rows.time is not None])
        return np.full(length, part == 0, np.int64)

    def _codes(self, entities: list[pa.DictionaryArray]) -> Ints:
        """The code of each entity: its place among all entities so far, of which new ones become the last."""
        indices, names = _unified(entities)
        known = pc.index_in(names, value_set=self._entities)
        code = np.array(known.fill_null(-1), np.int64)
        occurs = np.zeros(len(names), np.bool_)
        occurs[indices] = True  # a dictionary may hold entities of which no row meets the filter
        new = np.flatnonzero((code < 0) & occurs)
        code[new] = len(self._entities) + np.arange(len(new))
        self._entities = pa.concat_arrays([self._entities, names.take(pa.array(new))])
        return np.asarray(code[indices], np.int64)

    def _keys(self, code: Ints, period: Ints, calendar: Calendar) -> Ints:
        """One number for entity and period, which sorts by entity and then by period."""
        offset = period - _first_period(calendar)
        odd = (offset < 0) | (offset >= 2**_PERIOD_BITS)
        if odd.any():
            raise JobError(
                Reason.DATA_ERROR,
                f"spec.source.columns.time: column `{self._column}` holds {calendar.label(period[odd][0])}, too far "
                f"off to be counted in periods of {calendar.frequency}: leave it out by spec.source.filter",
            )
        keys: Ints = (code << _PERIOD_BITS) | offset
        return keys

    def _periods(self, keys: Ints) -> Ints:
        """The periods of keys."""
        periods: Ints = keys & (2**_PERIOD_BITS - 1)
        periods += _first_period(self.plan.calendar)
        return periods

    def _bounds(self, keys: Ints) -> Ints:
        """Where the sorted keys of each entity begin, by code, and where the last ends."""
        first = np.arange(len(self._entities) + 1, dtype=np.int64) << _PERIOD_BITS
        return np.searchsorted(keys, first).astype(np.int64)

    @cached_property
    def _bucket(self) -> NDArray[np.int32]:
        """The bucket of each entity, by code."""
        return bucket_of(self._entities, bucket_count(len(self._entities)))

    @cached_property
    def _order(self) -> Ints:
        """The codes of all entities as these are sorted in the end: by bucket, then by themselves."""
        by_name = np.asarray(pc.array_sort_indices(self._entities)).astype(np.int64)
        return by_name[np.argsort(self._bucket[by_name], kind="stable")]


def _unified(entities: list[pa.DictionaryArray]) -> tuple[Ints, pa.Array]:
    """All arrays in a row as indices into one dictionary. Most neighbours share theirs, which then costs once."""
    dictionaries: list[pa.Array] = []
    owner: list[int] = []
    for one in entities:
        if not dictionaries or not one.dictionary.equals(dictionaries[-1]):
            dictionaries.append(one.dictionary)
        owner.append(len(dictionaries) - 1)
    places = [pa.DictionaryArray.from_arrays(np.arange(len(names), dtype=np.int32), names) for names in dictionaries]
    unified = pa.chunked_array(places).unify_dictionaries()
    moved = [np.asarray(chunk.indices) for chunk in unified.chunks]
    indices = [moved[at][np.asarray(one.indices)] for at, one in zip(owner, entities, strict=True)]
    return np.concatenate(indices).astype(np.int64), unified.chunk(0).dictionary


def _first_period(calendar: Calendar) -> int:
    """The first of the 2**32 periods that have a key: half of them are before 1970, and seconds begin with 1950."""
    if calendar.frequency.unit is not Unit.SECOND:
        return -(1 << (_PERIOD_BITS - 1))
    return int(calendar.frequency.periods(np.array(["1950-01-01"], "datetime64[s]"))[0])


def _ranges(starts: Ints, ends: Ints) -> Ints:
    """All numbers from each start to before its end, one range after the other."""
    some = ends > starts
    starts, ends = starts[some], ends[some]
    steps = np.ones((ends - starts).sum(), np.int64)
    steps[np.cumsum(ends - starts)[:-1]] += starts[1:] - ends[:-1]
    steps[:1] = starts[:1]
    return np.cumsum(steps, out=steps)
