"""Reads a job's source: rows stream through an aggregation by entity and period, so that memory follows the result.

The result depends on the rows alone: neither their order nor the layout of files changes a bit of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from almanac.api import ForecastSpec, JobError, Reason
from almanac_jobs.calendar import WEEKDAYS, Calendar, Frequency, Unit, check, check_zone, infer
from almanac_jobs.forecast.types import Ints
from almanac_jobs.kernel.sums import How
from almanac_jobs.source.aggregation import Aggregation
from almanac_jobs.source.dataset import Dataset, Portion, open_dataset, scan
from almanac_jobs.source.filters import All, Comparison
from almanac_jobs.source.observations import Counts, Observations
from almanac_jobs.source.rows import Plan, convert

SAMPLE = 1_000_000
"""Observations that a frequency is inferred from or checked against, and rows that an entity is picked from."""
LONG_SPAN = 100_000
SPARSE = 100
"""A source that reaches over more than `LONG_SPAN` periods has a row in one of `SPARSE` of them at least."""


def _ignore(done: int, total: int) -> None:
    pass


def read(
    spec: ForecastSpec, dataset: Dataset | None = None, progress: Callable[[int, int], None] = _ignore
) -> Observations:
    """Read the source of a job: one value an entity and period, aggregated as the job says.

    `dataset` is the opened source, where the caller has looked at it already. `progress` hears of the rows gone through
    and of all that there are, and may raise to stop.

    Raises:
        JobError: as `open_dataset` and `scan` do; SourceEmpty if no row meets the filter; DataError if no row has an
            entity, a time and a value, or if the frequency does not fit the times.
    """
    dataset = dataset or open_dataset(spec.source, spec.storage)
    aggregation = Aggregation(plan(spec, dataset.types), spec.source.columns.time)
    for batch, done in scan(dataset):
        aggregation.add(convert(batch, aggregation.plan))
        progress(done, dataset.rows)
    progress(dataset.rows, dataset.rows)
    check_rows(spec, aggregation.counts)
    _settle_frequency(spec, aggregation)
    observations = aggregation.finish()
    first, last = int(observations.period.min()), observations.last_period
    check_span(spec, observations.calendar, first, last, lambda: len(np.unique(observations.period)))
    return observations


def read_portion(spec: ForecastSpec, portion: Portion) -> Aggregation:
    """The rows of a portion, aggregated as far as they go. Raises as `scan` does."""
    aggregation = Aggregation(plan(spec, portion.types), spec.source.columns.time)
    for batch, _ in scan(portion.open()):
        aggregation.add(convert(batch, aggregation.plan))
    return aggregation


def sample(spec: ForecastSpec, dataset: Dataset | None = None, periods: int = 30) -> Observations:
    """One entity, the most frequent of the first rows, with as many of its periods as come first, up to `periods`.

    Reads no more than that takes, so that a job can be tried on data of any size. Raises as `read` does.
    """
    dataset = dataset or open_dataset(spec.source, spec.storage)
    aggregation = Aggregation(plan(spec, dataset.types), spec.source.columns.time)
    seen: set[int] = set()
    for batch, _ in scan(_only(dataset, _frequent_entity(spec, dataset))):
        rows = convert(batch, aggregation.plan)
        aggregation.add(rows)
        seen.update(rows.period.tolist())
        if len(seen) > periods:  # the last of them may be half read
            break
    check_rows(spec, aggregation.counts)
    if spec.frequency == "auto":
        _settle_frequency(spec, aggregation)
    return aggregation.finish().head(periods)


def _frequent_entity(spec: ForecastSpec, dataset: Dataset) -> pa.Scalar:
    """The most frequent entity of the first `SAMPLE` rows and those up to the first that counts, the least of several.

    So many rows are looked at because folders are often sorted by time: the first few rows are of a single moment.
    """
    aggregation = Aggregation(plan(spec, dataset.types), spec.source.columns.time)
    found: list[pa.Table] = []
    for batch, done in scan(dataset):
        rows = convert(batch, aggregation.plan)
        names = rows.entity if rows.counted is None else rows.entity.filter(pa.array(rows.counted))
        if len(names):
            found.append(pa.Table.from_struct_array(pc.value_counts(names.dictionary_decode())))
        elif not found:
            aggregation.add(rows)
        if found and done >= SAMPLE:
            break
    if not found:
        check_rows(spec, aggregation.counts)
        raise AssertionError("rows were counted, and none was found")
    counts = pa.concat_tables(found).group_by("values").aggregate([("counts", "sum")])
    return counts.sort_by([("counts_sum", "descending"), ("values", "ascending")])["values"][0]


def _only(dataset: Dataset, entity: pa.Scalar) -> Dataset:
    """The rows of one entity."""
    value = entity.as_py()
    text = value if isinstance(value, str) else Decimal(value) if isinstance(value, int) else value.isoformat()
    wanted = Comparison(dataset.source.columns.entity, "==", text)
    return replace(dataset, condition=All((dataset.condition, wanted)) if dataset.condition else wanted)


def plan(spec: ForecastSpec, types: Mapping[str, pa.DataType]) -> Plan:
    """What rows are read for; `types` are those of the data set's columns.

    Raises:
        JobError: InvalidSpec for a time zone that is none, DataError for a frequency that does not fit the column.
    """
    columns, zone = spec.source.columns, spec.source.time_zone
    if zone:
        check_zone(zone, "spec.source.timeZone")
    time_type = types[columns.time]
    finest = Frequency(Unit.DAY if pa.types.is_date(time_type) else Unit.SECOND)
    frequency = finest if spec.frequency == "auto" else Frequency.parse(spec.frequency)
    if frequency.within_day and pa.types.is_date(time_type):
        raise JobError(
            Reason.DATA_ERROR,
            f"spec.frequency: `{frequency}` does not fit column `{columns.time}`, which holds dates: write D or longer",
        )
    calendar = Calendar(frequency, time_type, zone)
    how = How[spec.source.aggregate.name]
    return Plan(how, calendar, types[columns.entity], types[columns.value])


def check_rows(spec: ForecastSpec, counts: Counts) -> None:
    """Refuse a source without a row that counts, as `read` says."""
    if not counts.rows:
        raise JobError(
            Reason.SOURCE_EMPTY, f"spec.source.filter: no row of `{spec.source.place}` meets `{spec.source.filter}`"
        )
    if counts.rows == counts.null_entities + counts.null_times + counts.null_values:
        raise JobError(
            Reason.DATA_ERROR,
            f"spec.source.columns: no row of `{spec.source.place}` has all of entity, time and value: of "
            f"{counts.rows}, {counts.null_entities} have no `{spec.source.columns.entity}`, {counts.null_times} no "
            f"`{spec.source.columns.time}` and {counts.null_values} no `{spec.source.columns.value}`",
        )


def _settle_frequency(spec: ForecastSpec, aggregation: Aggregation) -> None:
    was = aggregation.plan.calendar
    calendar = settled(spec, was, aggregation.weekdays, *aggregation.sample(SAMPLE))
    if calendar != was:
        aggregation.regroup(calendar)


def settled(
    spec: ForecastSpec, calendar: Calendar, weekdays: frozenset[int], entity: NDArray[np.int32], period: Ints
) -> Calendar:
    """The calendar of the job: with the frequency that is inferred, or the declared one, which fits the times.

    `entity` and `period` are observations in periods of `calendar`, which is the finest where the frequency is to be
    inferred; `weekdays` are those of all times, where periods are weeks.

    Raises:
        JobError: DataError.
    """
    column, frequency = spec.source.columns.time, calendar.frequency
    if spec.frequency == "auto":
        daily = Calendar(Frequency(Unit.DAY), calendar.time_type, calendar.time_zone)
        found = infer(entity, daily.wall(calendar.times(period)).astype("datetime64[s]"), column)
        return replace(calendar, frequency=found)
    check(frequency, entity, period, column)
    if len(weekdays) == 1 and frequency.weekday not in weekdays and len(np.unique(period)) > 1:
        (weekday,) = (WEEKDAYS[one] for one in weekdays)
        raise JobError(
            Reason.DATA_ERROR,
            f"spec.frequency: `{frequency}` is of weeks that start on {WEEKDAYS[frequency.weekday]}, and all times of "
            f"column `{column}` are on {weekday}: write {str(frequency).split('-')[0]}-{weekday}",
        )
    return calendar


def check_span(spec: ForecastSpec, calendar: Calendar, first: int, last: int, periods: Callable[[], int]) -> None:
    """Refuse times such as 9999-12-31, which stand for none: every series would reach as far.

    `first` and `last` are the first and the last period with a row, `periods` counts the different ones between them.
    """
    span = last - first + 1
    if span > LONG_SPAN and span > SPARSE * periods():
        raise JobError(
            Reason.DATA_ERROR,
            f"spec.source.columns.time: column `{spec.source.columns.time}` reaches from {calendar.label(first)} to "
            f"{calendar.label(last)}, {span} periods of {calendar.frequency}, of which hardly any holds a row: leave "
            "odd times out by spec.source.filter",
        )
