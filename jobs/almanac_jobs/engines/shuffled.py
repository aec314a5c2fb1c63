"""A source whose rows a cluster has read and shuffled, whichever engine did: three rounds of tasks, and then results.

    1  portions of Parquet -> partial aggregates by entity, shuffled; names and tallies -> how many entities there are
    2  the first buckets   -> a sample of observations, which the frequency is inferred from or checked against
    3  all buckets         -> fitted and written where they are; summaries come back

The driver sees no row. What the engine itself does is an `Exchange`: it keeps what was shuffled, and runs tasks there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from almanac.api import ForecastSpec
from almanac_jobs.buckets import MAX_BUCKETS, bucket_count
from almanac_jobs.calendar import Calendar
from almanac_jobs.engines import Work
from almanac_jobs.engines.shuffle import (
    Census,
    Division,
    Gather,
    Grouping,
    MapBuckets,
    Periods,
    Record,
    Sample,
)
from almanac_jobs.forecast.types import Ints
from almanac_jobs.progress import Progress
from almanac_jobs.source import Counts, Dataset, Portion, portions
from almanac_jobs.source.partial import Tally
from almanac_jobs.source.reader import SAMPLE, SPARSE, check_rows, check_span, plan, settled
from almanac_jobs.source.rows import Plan

MOST_ROWS, LEAST_ROWS = 2_000_000, 131_072
"""Rows that a task reads: few enough to be held in memory and repeated, enough to be worth a task."""
PLACE_ROWS = 2_000_000
"""Rows of the source that a place of the shuffle holds, about: at most so many observations, usually far fewer."""

Other = TypeVar("Other")
Result = TypeVar("Result")
Task = Callable[[int, Iterable[Record]], Iterator[Other]]
Watch = Callable[[float], None]
"""Told what share of the tasks of a round is done."""


def unwatched(share: float) -> None:
    """For tasks that are not counted."""


class Exchange(Protocol):
    """Portions that become records, wherever an engine keeps these: what `shuffle.MapRows` makes, by its keys."""

    @property
    def counter(self) -> Callable[[], Progress]:
        """Makes what tasks count by, and are stopped by; it can be pickled."""

    def census(self, progress: Progress, watch: Watch) -> list[Census]:
        """Map all portions, and count what came of it (`shuffle.take_census`). `watch` hears of the portions.

        Raises:
            JobError: what a task raises, ClusterUnavailable, Interrupted.
        """

    def run(
        self, task: Task[Other], grouping: Grouping, groups: Sequence[int], progress: Progress, watch: Watch = unwatched
    ) -> list[Other]:
        """What a task gives for the records of some groups of places, in the order of these. Raises as `census`."""


def shares(dataset: Dataset, spec: ForecastSpec, cores: int, most: int | None = None) -> list[Portion]:
    """The data set in portions for so many cores, of which there are to be `most`, about; else as many as it takes."""
    rows = min(max(dataset.rows // (3 * cores) + 1, LEAST_ROWS), MOST_ROWS)
    return portions(dataset, spec.storage, rows if most is None else max(rows, dataset.rows // most))


def division(rows: int, cores: int, most: int = MAX_BUCKETS) -> Division:
    """Places for a source of so many rows: enough for every core, and no more than `most`, a power of two."""
    wanted = max(rows // PLACE_ROWS, 2 * cores, 1)
    return Division(min(1 << (wanted - 1).bit_length(), most))


def read(spec: ForecastSpec, dataset: Dataset, parts: Division, exchange: Exchange, progress: Progress) -> Shuffled:
    """Have a source read and shuffled, and find out what depends on all of its rows.

    Raises:
        JobError: as `source.read` does, and as `Exchange.census`.
    """
    census = exchange.census(progress, lambda share: progress.reach(int(share * dataset.rows)))
    tally = reduce(add, (tally for one in census for tally in one.tallies))
    check_rows(spec, tally.counts)
    entities = sum(one.entities for one in census)
    grouping = Grouping(parts, bucket_count(entities))
    whole = Shuffled(exchange, spec, grouping, plan(spec, dataset.types), entities, tally)
    whole.settle(progress)
    progress.reach(dataset.rows)
    return whole


@dataclass
class Shuffled:
    """A source that lies in a cluster: see `engines.Source`."""

    exchange: Exchange
    spec: ForecastSpec
    grouping: Grouping
    plan: Plan
    entities: int
    tally: Tally
    calendar: Calendar = field(init=False)
    first_period: int = field(init=False)
    last_period: int = field(init=False)
    counts: Counts = field(init=False)

    def __post_init__(self) -> None:
        self.calendar, self.counts = self.plan.calendar, self.tally.counts

    @property
    def entity_type(self) -> pa.DataType:
        return self.plan.entity_type

    @property
    def buckets(self) -> int:
        return self.grouping.buckets

    def settle(self, progress: Progress) -> None:
        """Find out what depends on all rows: the frequency, and how far the periods reach.

        Raises:
            JobError: DataError, as `source.read` does.
        """
        finest = self.plan.calendar
        self.calendar = settled(self.spec, finest, self.tally.weekdays, *self._sample(progress))
        assert self.tally.first is not None  # noqa: S101 - a row counts, as `check_rows` has seen
        assert self.tally.last is not None  # noqa: S101
        reach = np.array([self.tally.first, self.tally.last])
        if self.calendar != finest:
            reach = self.calendar.periods(finest.times(reach))
        self.first_period, self.last_period = reach.tolist()
        check_span(
            self.spec, self.calendar, self.first_period, self.last_period, lambda: self._distinct_periods(progress)
        )

    def map_buckets(self, work: Work[Result], progress: Progress) -> Iterator[Result]:
        """See `engines.Source`."""
        task = MapBuckets(self._gather, self.calendar, self.last_period, work, self.exchange.counter)
        groups = range(self.grouping.groups)
        done = self.exchange.run(
            task, self.grouping, groups, progress, lambda share: progress.reach(int(share * self.entities))
        )
        self.counts = replace(self.counts, merged=self.tally.counted - sum(one.observations for one in done))
        progress.reach(self.entities)
        return (result for one in done for result in one.results)

    @property
    def _gather(self) -> Gather:
        return Gather(self.plan, self.spec.source.columns.time, self.grouping)

    def _sample(self, progress: Progress) -> tuple[NDArray[np.int32], Ints]:
        """Observations of the first entities, by bucket and then by name, as an aggregation of all rows would give."""
        found: list[tuple[NDArray[np.int32], Ints]] = []
        bucket, observations, entities = 0, 0, 0
        while bucket < self.buckets and observations < SAMPLE:
            some = range(bucket, min(2 * bucket + 1, self.buckets))
            groups: dict[int, tuple[int, ...]] = {}
            for one in some:
                group = self.grouping.of_bucket(one)
                groups[group] = (*groups.get(group, ()), one)
            task = Sample(self._gather, groups, SAMPLE)
            sampled = self.exchange.run(task, self.grouping, sorted(groups), progress)
            for _, entity, period in sorted(sampled, key=lambda one: one[0]):
                found.append((entity + np.int32(entities), period))
                entities += int(entity[-1]) + 1 if len(entity) else 0
                observations += len(period)
            bucket = some.stop
        entity = np.concatenate([one for one, _ in found])
        period = np.concatenate([one for _, one in found])
        lengths = np.bincount(entity)
        last = int(np.searchsorted(np.cumsum(lengths), SAMPLE))
        kept = int(lengths[: last + 1].sum())
        return entity[:kept], period[:kept]

    def _distinct_periods(self, progress: Progress) -> int:
        """How many different periods have a row; at least as many as are enough, if these are."""
        enough = (self.last_period - self.first_period + 1) // SPARSE + 1
        task = Periods(self._gather, self.calendar, enough)
        found = self.exchange.run(task, self.grouping, range(self.grouping.groups), progress)
        known = [one for one in found if one is not None]
        return enough if len(known) < len(found) else len(np.unique(np.concatenate(known)))
