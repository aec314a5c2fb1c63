"""Rows in, observations out: entities get codes, and rows of one entity and period become one value.

Memory follows entities and observations, and a few million rows that wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from almanac.api import JobError, Reason
from almanac_jobs.buckets import bucket_count, bucket_of, place_of
from almanac_jobs.calendar import Calendar, Unit
from almanac_jobs.forecast.types import Ints
from almanac_jobs.kernel.sums import Aggregator, How
from almanac_jobs.source.observations import Counts, Observations
from almanac_jobs.source.partial import Partial, Tally
from almanac_jobs.source.rows import Plan, Rows

CHUNK_ROWS = 1_000_000
"""Rows that wait until they are aggregated: enough to spread the cost of looking up entities."""
_PERIOD_BITS = 32


class Aggregation:
    """Aggregates rows as a plan says. `column` is the name of their times, for messages.

    Rows may be divided among processes, each with an aggregation of its own, whose `parts` another one takes in by
    `merge`. `buckets` is the number of buckets where it is known beforehand, because these are not all entities.
    """

    def __init__(self, plan: Plan, column: str, buckets: int | None = None) -> None:
        self.plan = plan
        self._given_buckets = buckets
        self.weekdays: frozenset[int] = frozenset()
        """Weekdays of all times so far, where periods are weeks."""
        self._column = column
        self._aggregator = Aggregator(plan.how)
        self._entities = pa.array([], plan.entity_type)
        self._waiting: list[Rows] = []
        self._partial: list[Partial] = []
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

    def merge(self, partial: Partial) -> None:
        """Take in what another aggregation of the same plan has made of other rows. Tallies are not part of it."""
        self._partial.append(partial)
        if sum(map(len, self._partial)) >= CHUNK_ROWS:
            self._aggregate()

    @property
    def counts(self) -> Counts:
        """What became of the rows so far; `merged` is not known before the end."""
        return self._counts

    @property
    def tally(self) -> Tally:
        """What there is to say of the rows that were added."""
        self._aggregate()
        keys = self._aggregator.keys()
        reach = self._periods(keys & (2**_PERIOD_BITS - 1)) if len(keys) else None
        first, last = (None, None) if reach is None else (int(reach.min()), int(reach.max()))
        return Tally(self._counts, self._counted, first, last, self.weekdays)

    def parts(self, places: int) -> Iterator[tuple[int, Partial]]:
        """All that there is so far, divided by the place of the entity among `places` (see `buckets.place_of`)."""
        self._aggregate()
        keys, value, extra = self._aggregator.entries()
        bounds, place = self._bounds(keys), place_of(self._entities, places)
        order = np.argsort(place, kind="stable")
        lengths = np.diff(bounds)[order]
        picked = _ranges(bounds[order], bounds[order + 1])
        period = (keys[picked] & (2**_PERIOD_BITS - 1)).astype(np.uint32)
        value = None if value is None else value[picked]
        extra = None if extra is None else extra[picked]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        entities = self._entities.take(pa.array(order))
        cuts = np.searchsorted(place[order], np.arange(places + 1)).tolist()
        for at in np.unique(place).tolist():
            first, last = cuts[at], cuts[at + 1]
            start, end = offsets[first], offsets[last]
            yield (
                at,
                Partial(
                    entities=entities.slice(first, last - first),
                    offsets=offsets[first : last + 1] - start,
                    period=period[start:end],
                    value=None if value is None else value[start:end],
                    extra=None if extra is None else extra[start:end],
                ),
            )

    def sample(self, limit: int) -> tuple[NDArray[np.int32], Ints]:
        """Indices of entities and periods of about `limit` observations: those of the entities that will be first."""
        return self.sample_bucket(None, limit)

    def sample_bucket(self, bucket: int | None, limit: int) -> tuple[NDArray[np.int32], Ints]:
        """The same of the entities of one bucket (None: of all)."""
        self._aggregate()
        keys = self._aggregator.keys()
        keys = keys[np.diff(keys, prepend=-1) != 0]  # a sum may need several entries
        bounds = self._bounds(keys)
        order = self._order if bucket is None else self._order[self._bucket[self._order] == bucket]
        lengths = np.diff(bounds)[order]
        first = order[: int(np.searchsorted(np.cumsum(lengths), limit)) + 1]
        entity = np.repeat(np.arange(len(first), dtype=np.int32), lengths[: len(first)])
        return entity, self._periods(keys[_ranges(bounds[first], bounds[first + 1])])

    def regroup(self, calendar: Calendar) -> None:
        """Go on with longer periods, each made of whole periods so far."""
        was = self.plan.calendar
        self._aggregate()

        def coarser(keys: Ints) -> Ints:
            return self._keys(keys >> _PERIOD_BITS, calendar.periods(was.times(self._periods(keys))), calendar)

        self._aggregator.rekey(coarser)
        self.plan = replace(self.plan, calendar=calendar)

    def finish(self, last_period: int | None = None) -> Observations:
        """All observations. Nothing can be added afterwards.

        `last_period` is that of any entity where these are not all entities; without it there must be an observation.
        """
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
            buckets=self._buckets,
            offsets=np.concatenate(([0], np.cumsum(np.diff(bounds)[order]))),
            period=period,
            value=value,
            calendar=self.plan.calendar,
            last_period=int(period.max()) if last_period is None else last_period,
            counts=replace(self._counts, merged=self._counted - len(period)),
        )

    def _aggregate(self) -> None:
        """Aggregate the rows and the entries that wait."""
        partial, self._partial = self._partial, []
        if partial:
            self._add_entries(partial)
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

    def _add_entries(self, partial: list[Partial]) -> None:
        names = [
            pa.DictionaryArray.from_arrays(np.arange(len(one.entities), dtype=np.int32), one.entities)
            for one in partial
        ]
        codes = np.split(self._codes(names), np.cumsum([len(one) for one in names])[:-1])
        key = [
            np.repeat(code << _PERIOD_BITS, np.diff(one.offsets)) | one.period
            for code, one in zip(codes, partial, strict=True)
        ]
        value = [one.value for one in partial if one.value is not None]
        extra = [one.extra for one in partial if one.extra is not None]
        self._aggregator.add(
            np.concatenate(key),
            np.concatenate(value) if value else None,
            np.concatenate(extra) if extra else None,
        )

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

    @property
    def _buckets(self) -> int:
        return self._given_buckets or bucket_count(len(self._entities))

    @cached_property
    def _bucket(self) -> NDArray[np.int32]:
        """The bucket of each entity, by code."""
        return bucket_of(self._entities, self._buckets)

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
