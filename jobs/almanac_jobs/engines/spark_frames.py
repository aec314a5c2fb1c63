"""What runs in executors for a DataFrame: Arrow in, Arrow out, as `mapInArrow` and `applyInArrow` want it.

Rows become partial aggregates by place (`source.partial`), which Spark shuffles as bytes; a place then has all rows of
its entities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from almanac.api import ForecastModel, Missing
from almanac_jobs import tables
from almanac_jobs.buckets import place_of
from almanac_jobs.calendar import Calendar
from almanac_jobs.engines.spark_tasks import marked
from almanac_jobs.forecast import fit
from almanac_jobs.forecast.types import Ints
from almanac_jobs.model import forecast_table
from almanac_jobs.parts import slices
from almanac_jobs.source.aggregation import Aggregation
from almanac_jobs.source.observations import Observations
from almanac_jobs.source.partial import Partial
from almanac_jobs.source.rows import Plan, convert

PARTIAL = "place int, value binary"
"""Spark's schema of partial aggregates."""
Batches = Iterable[pa.RecordBatch]


def guarded(task: Callable[[Batches], Iterator[pa.RecordBatch]]) -> Callable[[Batches], Iterator[pa.RecordBatch]]:
    """The task, with errors that the driver finds again."""

    def run(batches: Batches) -> Iterator[pa.RecordBatch]:
        pa.set_cpu_count(1)  # Spark runs a task a core
        try:
            yield from task(batches)
        except Exception as error:
            raise marked(error) from error

    return run


@dataclass(frozen=True, slots=True)
class Rows:
    """Batches with columns entity, time and value become partial aggregates by place. `column` is the times' name."""

    plan: Plan
    column: str
    places: int

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        aggregation = Aggregation(self.plan, self.column)
        for batch in batches:
            aggregation.add(convert(batch, self.plan))
        parts = [(place, partial.to_bytes()) for place, partial in aggregation.parts(self.places)]
        places, values = ([part[i] for part in parts] for i in (0, 1))
        yield pa.record_batch({"place": pa.array(places, pa.int32()), "value": pa.array(values, pa.binary())})

    def gather(self, blobs: Iterable[bytes]) -> Observations:
        """All observations of some places."""
        aggregation = Aggregation(self.plan, self.column, buckets=1)
        for blob in blobs:
            aggregation.merge(Partial.from_bytes(blob))
        return aggregation.finish(last_period=0)


@dataclass(frozen=True, slots=True)
class Fit:
    """Partial aggregates of places become rows of the table `parameters`.

    `last_period` is where series end where a gap means zero.
    """

    rows: Rows
    model: ForecastModel
    missing: Missing
    min_observations: int
    last_period: int

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        blobs = (blob for batch in batches for blob in batch.column("value").to_pylist())
        observations = replace(self.rows.gather(blobs), last_period=self.last_period)
        if not len(observations):
            return
        for first, last in slices(0, len(observations)):
            with np.errstate(all="ignore"):  # what overflows is said in the entity's status
                batch, observed = observations.series(first, last, self.missing)
                parameters = fit.fit(batch, observed, self.model, self.min_observations)
            nothing = pa.array(batch.values.lengths == 0)
            ends = pc.if_else(nothing, None, observations.calendar.times(batch.end))
            made = tables.parameters_table(observations.entities.slice(first, last - first), parameters, ends)
            yield from made.to_batches()


@dataclass(frozen=True, slots=True)
class Place:
    """Rows with a column entity get the column place."""

    places: int

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch.append_column("place", pa.array(place_of(batch.column("entity"), self.places), pa.int32()))


@dataclass(frozen=True, slots=True)
class Predict:
    """Rows of `parameters` and partial aggregates of the same place become forecasts of the entities of the latter.

    `names` are those of the columns entity, time, mean and value in the result: value is what was observed.
    """

    rows: Rows
    names: tuple[str, str, str, str]
    horizon: int
    intervals: tuple[float, ...]
    floor: float | None

    def __call__(self, parameters: pa.Table, partial: pa.Table) -> pa.Table:
        try:
            return self._predict(parameters.drop_columns("place"), partial)
        except Exception as error:
            raise marked(error) from error

    def _predict(self, parameters: pa.Table, partial: pa.Table) -> pa.Table:
        observations = self.rows.gather(partial.column("value").to_pylist())
        calendar = self.rows.plan.calendar
        settings = {
            "frequency": str(calendar.frequency),
            "timeZone": calendar.time_zone,
            "intervals": self.intervals,
            "floor": self.floor,
        }
        asked = pc.is_in(parameters.column("entity"), value_set=observations.entities)
        made = forecast_table(parameters.filter(asked).combine_chunks(), self.horizon, settings)
        entity, time, mean, value = self.names
        made = made.append_column("value", _observed(observations, made, calendar))
        renamed = {"entity": entity, "time": time, "mean": mean, "value": value}
        return made.rename_columns([renamed.get(name, name) for name in made.column_names])


def _observed(observations: Observations, forecasts: pa.Table, calendar: Calendar) -> pa.Array:
    """The value that was observed of each row's entity and period; null where there is none."""
    entity = np.asarray(pc.index_in(forecasts.column("entity"), value_set=observations.entities), np.int64)
    period = calendar.periods(forecasts.column("time").combine_chunks())
    base = min(period.min(initial=0), observations.period.min(initial=0))
    span = max(period.max(initial=0), observations.period.max(initial=0)) - base + 1

    def keys(entities: Ints, periods: Ints) -> Ints:
        return entities * span + (periods - base)

    known = keys(observations.entity.astype(np.int64), observations.period)
    wanted = keys(entity, period)
    at = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
    if not len(known):
        return pa.nulls(len(wanted), pa.float64())
    return pa.array(observations.value[at], mask=known[at] != wanted)
