"""The entities of one bucket: fitted, forecast and tried on the past. Observations in, tables and a summary out.

Nothing is read or written here, so that any engine can do it anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from almanac.api import ForecastModel, ForecastSpec
from almanac_jobs import tables
from almanac_jobs.calendar import Calendar
from almanac_jobs.evaluate import Backtest, Evaluation, Forecaster, Totals, evaluate, seasonal_naive
from almanac_jobs.forecast import fit
from almanac_jobs.forecast.types import MODELLED, Floats, Forecast, Ints, Parameters, SeriesBatch
from almanac_jobs.history import history_table
from almanac_jobs.progress import Progress
from almanac_jobs.report.highlights import LISTED, Failure, Fitted, Highlighter, Highlights, history_periods
from almanac_jobs.source.observations import Observations

SLICE = 2048
"""Series that are fitted at a time: what a run counts, and how soon it notices that it is to stop."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is to say of some entities; summaries of disjoint sets of them add up.

    `mase` and `baseline_mase` have one entry an entity, NaN where it was not tested. `failures` are the first few.
    """

    statuses: Counter[str]
    totals: Totals | None
    mase: Floats
    baseline_mase: Floats
    highlights: Highlights
    failures: tuple[Failure, ...]

    @classmethod
    def sum(cls, parts: Sequence[Summary]) -> Summary:
        """All parts together, in their order, of which there is at least one."""
        totals, highlights, statuses = parts[0].totals, parts[0].highlights, Counter(parts[0].statuses)
        for part in parts[1:]:
            totals = totals + part.totals if totals and part.totals else None
            highlights += part.highlights
            statuses.update(part.statuses)
        return cls(
            statuses=statuses,
            totals=totals,
            mase=np.concatenate([part.mase for part in parts]),
            baseline_mase=np.concatenate([part.baseline_mase for part in parts]),
            highlights=highlights,
            failures=tuple(failure for part in parts for failure in part.failures)[:LISTED],
        )


@dataclass(frozen=True, slots=True)
class Part:
    """The tables of a bucket by name, rows sorted by entity, and its summary."""

    tables: dict[str, pa.Table]
    summary: Summary


@dataclass(frozen=True, slots=True)
class Recipe:
    """How every bucket of a run is worked on."""

    spec: ForecastSpec
    calendar: Calendar

    @property
    def season_length(self) -> int:
        """The season of seasonal naive and of the errors' scale: the model's, or what is usual for the frequency."""
        own = self.spec.model.season_length
        return own if own > 1 else self.calendar.frequency.default_season_length

    @property
    def backtest(self) -> Backtest | None:
        """How to look back; None where evaluation is off."""
        if not self.spec.evaluation.windows:
            return None
        return Backtest(
            windows=self.spec.evaluation.windows,
            horizon=self.spec.horizon,
            season_length=self.season_length,
            levels=self.spec.intervals,
            min_observations=self.spec.min_observations,
            floor=self.spec.floor,
        )

    def work(self, observations: Observations, first: int, last: int, progress: Progress) -> Part:
        """Fit entities `first` to `last` (not included); `progress` counts them.

        Raises:
            JobError: DataError where gaps are to fail and there is one, Interrupted.
        """
        with np.errstate(all="ignore"):  # what overflows is said in the entity's status, not by a warning
            return _join([self._slice(observations, *bounds, progress) for bounds in slices(first, last)])

    def _slice(self, observations: Observations, first: int, last: int, progress: Progress) -> Part:
        progress.check()
        spec = self.spec
        batch, observed = observations.series(first, last, spec.missing)
        parameters = fit.fit(batch, observed, spec.model, spec.min_observations)
        forecast = fit.forecast(parameters, spec.horizon)
        evaluation = self._evaluate(batch, observed)
        entities = observations.entities.slice(first, last - first)
        part = Part(
            self._tables(entities, batch, parameters, forecast, evaluation),
            self._summary(entities, observed, Fitted(_names(entities), batch, parameters, forecast, evaluation)),
        )
        progress.advance(last - first)
        return part

    def _evaluate(self, batch: SeriesBatch, observed: Ints) -> Evaluation | None:
        if self.backtest is None:
            return None
        naive = seasonal_naive(self.season_length)
        return evaluate(batch, observed, self.backtest, _forecaster(self.spec.model), naive)

    def _tables(
        self,
        entities: pa.Array,
        batch: SeriesBatch,
        parameters: Parameters,
        forecast: Forecast,
        evaluation: Evaluation | None,
    ) -> dict[str, pa.Table]:
        spec, horizon = self.spec, self.spec.horizon
        times = tables.future_times(self.calendar, batch.end, horizon)
        nothing = pa.array(batch.values.lengths == 0)
        ends = pc.if_else(nothing, None, self.calendar.times(batch.end))
        made = {
            "forecasts": tables.forecasts_table(entities, times, forecast, self.spec.intervals, spec.floor),
            "parameters": tables.parameters_table(entities, parameters, ends),
            "history": history_table(entities, batch, ends, history_periods(self.season_length, horizon)),
        }
        if evaluation is not None:
            scores = {name: pa.array(column, from_pandas=True) for name, column in evaluation.columns().items()}
            made["scores"] = pa.table({"entity": entities, **scores})
        return made

    def _summary(self, entities: pa.Array, observed: Ints, fitted: Fitted) -> Summary:
        highlight = Highlighter(
            self.calendar.frequency.starts, self.season_length, self.spec.intervals, self.spec.floor
        )
        status, evaluation = fitted.parameters.status, fitted.evaluation
        failed = np.flatnonzero(~np.isin(status, list(MODELLED)))[:LISTED]
        columns = evaluation.columns() if evaluation else {}
        untested = np.full(len(entities), np.nan)
        return Summary(
            statuses=Counter(status.tolist()),
            totals=evaluation.totals() if evaluation else None,
            mase=columns.get("mase", untested),
            baseline_mase=columns.get("seasonalnaive_mase", untested),
            highlights=highlight(fitted),
            failures=tuple(Failure(fitted.entities[i], str(status[i]), int(observed[i])) for i in failed),
        )


def _forecaster(model: ForecastModel) -> Forecaster:
    """The model for training parts, which have been found long enough."""

    def train(training: SeriesBatch) -> Parameters:
        return fit.fit(training, training.values.lengths, model, 1)

    return Forecaster(train, fit.forecast)


def slices(first: int, last: int) -> Iterator[tuple[int, int]]:
    """At least one, empty where there is no entity: an empty bucket has tables, too."""
    return ((start, min(start + SLICE, last)) for start in range(first, max(last, first + 1), SLICE))


def _join(parts: Sequence[Part]) -> Part:
    made = {name: pa.concat_tables([part.tables[name] for part in parts]) for name in parts[0].tables}
    return Part(made, Summary.sum([part.summary for part in parts]))


def _names(entities: pa.Array) -> list[str]:
    names: list[str] = pc.cast(entities, pa.string()).to_pylist()
    return names
