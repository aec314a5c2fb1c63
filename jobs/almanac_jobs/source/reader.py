"""Reads a job's source: rows stream through an aggregation by entity and period, so that memory follows the result.

The result depends on the rows alone: neither their order nor the layout of files changes a bit of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from almanac.api import ForecastSpec, JobError, Reason
from almanac_jobs.calendar import WEEKDAYS, Calendar, Frequency, Unit, check, check_zone, infer
from almanac_jobs.kernel.sums import How
from almanac_jobs.source.aggregation import Aggregation
from almanac_jobs.source.dataset import Dataset, open_dataset, scan
from almanac_jobs.source.filters import All, Comparison
from almanac_jobs.source.observations import Counts, Observations
from almanac_jobs.source.rows import Plan, convert

SAMPLE = 1_000_000
"""Observations that a frequency is inferred from or checked against, and rows that an entity is picked from."""


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
    aggregation = Aggregation(_plan(spec, dataset), spec.source.columns.time)
    for batch, done in scan(dataset):
        aggregation.add(convert(batch, aggregation.plan))
        progress(done, dataset.rows)
    progress(dataset.rows, dataset.rows)
    _check_rows(spec, aggregation.counts)
    _settle_frequency(spec, aggregation)
    observations = aggregation.finish()
    _check_span(spec, observations)
    return observations


def sample(spec: ForecastSpec, dataset: Dataset | None = None, periods: int = 30) -> Observations:
    """One entity, the most frequent of the first rows, with as many of its periods as come first, up to `periods`.

    Reads no more than that takes, so that a job can be tried on data of any size. Raises as `read` does.
    """
    dataset = dataset or open_dataset(spec.source, spec.storage)
    aggregation = Aggregation(_plan(spec, dataset), spec.source.columns.time)
    seen: set[int] = set()
    for batch, _ in scan(_only(dataset, _frequent_entity(spec, dataset))):
        rows = convert(batch, aggregation.plan)
        aggregation.add(rows)
        seen.update(rows.period.tolist())
        if len(seen) > periods:  # the last of them may be half read
            break
    _check_rows(spec, aggregation.counts)
    if spec.frequency == "auto":
        _settle_frequency(spec, aggregation)
    return aggregation.finish().head(periods)


def _frequent_entity(spec: ForecastSpec, dataset: Dataset) -> pa.Scalar:
    """The most frequent entity of the first `SAMPLE` rows and those up to the first that counts, the least of several.

    So many rows are looked at because folders are often sorted by time: the first few rows are of a single moment.
    """
    aggregation = Aggregation(_plan(spec, dataset), spec.source.columns.time)
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
        _check_rows(spec, aggregation.counts)
        raise AssertionError("rows were counted, and none was found")
    counts = pa.concat_tables(found).group_by("values").aggregate([("counts", "sum")])
    return counts.sort_by([("counts_sum", "descending"), ("values", "ascending")])["values"][0]


def _only(dataset: Dataset, entity: pa.Scalar) -> Dataset:
    """The rows of one entity."""
    value = entity.as_py()
    text = value if isinstance(value, str) else Decimal(value) if isinstance(value, int) else value.isoformat()
    wanted = Comparison(dataset.source.columns.entity, "==", text)
    return replace(dataset, condition=All((dataset.condition, wanted)) if dataset.condition else wanted)


def _plan(spec: ForecastSpec, dataset: Dataset) -> Plan:
    columns, zone = spec.source.columns, spec.source.time_zone
    if zone:
        check_zone(zone, "spec.source.timeZone")
    time_type = dataset.types[columns.time]
    finest = Frequency(Unit.DAY if pa.types.is_date(time_type) else Unit.SECOND)
    frequency = finest if spec.frequency == "auto" else Frequency.parse(spec.frequency)
    if frequency.within_day and pa.types.is_date(time_type):
        raise JobError(
            Reason.DATA_ERROR,
            f"spec.frequency: `{frequency}` does not fit column `{columns.time}`, which holds dates: write D or longer",
        )
    calendar = Calendar(frequency, time_type, zone)
    how = How[spec.source.aggregate.name]
    return Plan(how, calendar, dataset.types[columns.entity], dataset.types[columns.value])


def _check_rows(spec: ForecastSpec, counts: Counts) -> None:
    if not counts.rows:
        raise JobError(
            Reason.SOURCE_EMPTY, f"spec.source.filter: no row of `{spec.source.uri}` meets `{spec.source.filter}`"
        )
    if counts.rows == counts.null_entities + counts.null_times + counts.null_values:
        raise JobError(
            Reason.DATA_ERROR,
            f"spec.source.columns: no row of `{spec.source.uri}` has all of entity, time and value: of {counts.rows}, "
            f"{counts.null_entities} have no `{spec.source.columns.entity}`, {counts.null_times} no "
            f"`{spec.source.columns.time}` and {counts.null_values} no `{spec.source.columns.value}`",
        )


def _settle_frequency(spec: ForecastSpec, aggregation: Aggregation) -> None:
    """Infer the frequency, or hold the declared one against the times."""
    column, calendar = spec.source.columns.time, aggregation.plan.calendar
    entity, period = aggregation.sample(SAMPLE)
    if spec.frequency == "auto":
        daily = Calendar(Frequency(Unit.DAY), calendar.time_type, calendar.time_zone)
        found = infer(entity, daily.wall(calendar.times(period)).astype("datetime64[s]"), column)
        aggregation.regroup(Calendar(found, calendar.time_type, calendar.time_zone))
        return
    frequency = calendar.frequency
    check(frequency, entity, period, column)
    if len(aggregation.weekdays) == 1 and frequency.weekday not in aggregation.weekdays and len(np.unique(period)) > 1:
        (weekday,) = (WEEKDAYS[one] for one in aggregation.weekdays)
        raise JobError(
            Reason.DATA_ERROR,
            f"spec.frequency: `{frequency}` is of weeks that start on {WEEKDAYS[frequency.weekday]}, and all times of "
            f"column `{column}` are on {weekday}: write {str(frequency).split('-')[0]}-{weekday}",
        )


def _check_span(spec: ForecastSpec, observations: Observations) -> None:
    """Refuse times such as 9999-12-31, which stand for none: every series would reach as far."""
    first, last = int(observations.period.min()), observations.last_period
    span = last - first + 1
    if span > 100_000 and span > 100 * len(np.unique(observations.period)):
        label = observations.calendar.label
        raise JobError(
            Reason.DATA_ERROR,
            f"spec.source.columns.time: column `{spec.source.columns.time}` reaches from {label(first)} to "
            f"{label(last)}, {span} periods of {observations.frequency}, of which hardly any holds a row: leave odd "
            "times out by spec.source.filter",
        )
