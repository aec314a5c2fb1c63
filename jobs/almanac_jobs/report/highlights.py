"""The few entities that a report shows: the biggest, best and worst with what a chart needs, and those without a model.

Pure. Highlights of two disjoint sets of entities add up, so that each part of a run keeps only its own few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.evaluate import Evaluation
from almanac_jobs.forecast.types import Floats, Forecast, Ints, Parameters, SeriesBatch

Times = NDArray[np.datetime64]

KEPT = 4
"""Highlights of each kind that are kept."""
LISTED = 200
"""Entities without a model that a report lists at most."""


def history_periods(season_length: int, horizon: int) -> int:
    """The periods of history before a forecast that a chart shows, and a run keeps: four seasons or three horizons."""
    return max(4 * season_length, 3 * horizon)


@dataclass(frozen=True, slots=True)
class Failure:
    """An entity that its model does not forecast, and why: its status, with how many observed periods it has."""

    entity: str
    status: str
    observations: int


@dataclass(frozen=True, slots=True)
class Band:
    """A prediction interval at `level` percent, one entry a period; NaN where there is none."""

    level: float
    lower: Floats
    upper: Floats


@dataclass(frozen=True, slots=True)
class Fan:
    """What a chart of one entity draws: the end of its history (NaN where a period is missing), and its forecast."""

    past: Times
    history: Floats
    ahead: Times
    mean: Floats
    bands: tuple[Band, ...]


@dataclass(frozen=True, slots=True)
class Highlight:
    """An entity with its forecast, size and scores; `mase` and `baseline_mase` are NaN where it was not tested.

    `volume` is the sum of its values' sizes over the whole history.
    """

    entity: str
    model: str
    status: str
    volume: float
    mase: float
    baseline_mase: float
    fan: Fan


@dataclass(frozen=True, slots=True)
class Highlights:
    """The entities with the most volume, and those with the lowest and the highest MASE, in that order."""

    biggest: tuple[Highlight, ...] = ()
    best: tuple[Highlight, ...] = ()
    worst: tuple[Highlight, ...] = ()

    def __add__(self, other: Highlights) -> Highlights:
        return self.of((*self.biggest, *other.biggest), (*self.best, *other.best), (*self.worst, *other.worst))

    @classmethod
    def of(cls, biggest: Iterable[Highlight], best: Iterable[Highlight], worst: Iterable[Highlight]) -> Self:
        """The first few of each, in an order that does not depend on how entities were divided into parts."""
        return cls(
            tuple(sorted(biggest, key=lambda one: (-one.volume, one.entity))[:KEPT]),
            tuple(sorted(best, key=lambda one: (one.mase, -one.volume, one.entity))[:KEPT]),
            tuple(sorted(worst, key=lambda one: (-one.mase, -one.volume, one.entity))[:KEPT]),
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """A batch after its run, one entry a series. `entities` are names; `evaluation` is None where it is off."""

    entities: Sequence[str]
    batch: SeriesBatch
    parameters: Parameters
    forecast: Forecast
    evaluation: Evaluation | None


@dataclass(frozen=True, slots=True)
class Highlighter:
    """Picks a batch's highlights. `starts` turns period numbers into times, see `calendar.Frequency.starts`."""

    starts: Callable[[Ints], Times]
    season_length: int
    levels: tuple[float, ...]
    floor: float | None = None

    def __call__(self, fitted: Fitted) -> Highlights:
        """The highlights of one batch.

        Entities without a forecast are left out; among the best and worst, so are those whose windows hold only zeros.
        """
        volume = _volume(fitted.batch)
        drawable = np.isfinite(fitted.forecast.mean).all(axis=1)
        mase, baseline, traded = _errors(fitted)
        tested = drawable & traded & np.isfinite(mase)
        names = np.asarray(fitted.entities, dtype=np.str_)

        def first(rows: NDArray[np.bool_], *keys: Floats) -> list[Highlight]:
            order = np.lexsort((names, *reversed(keys)))
            return [self._highlight(fitted, int(i), volume, mase, baseline) for i in order[rows[order]][:KEPT]]

        return Highlights.of(first(drawable, -volume), first(tested, mase, -volume), first(tested, -mase, -volume))

    def _highlight(self, fitted: Fitted, i: int, volume: Floats, mase: Floats, baseline: Floats) -> Highlight:
        parameters = fitted.parameters
        return Highlight(
            entity=fitted.entities[i],
            model=f"{parameters.model[i]}{parameters.form[i]}",
            status=str(parameters.status[i]),
            volume=float(volume[i]),
            mase=float(mase[i]),
            baseline_mase=float(baseline[i]),
            fan=self._fan(fitted, i),
        )

    def _fan(self, fitted: Fitted, i: int) -> Fan:
        row = np.array([i])
        forecast = Forecast(fitted.forecast.mean[row], fitted.forecast.se[row])
        horizon = forecast.mean.shape[1]
        history = fitted.batch.take(row).tail(history_periods(self.season_length, horizon)).values[0]
        end = fitted.batch.end[i]
        bands = (Band(level, *(bound[0] for bound in forecast.interval(level, self.floor))) for level in self.levels)
        return Fan(
            past=self.starts(np.arange(end - len(history) + 1, end + 1)),
            history=history,
            ahead=self.starts(np.arange(end + 1, end + 1 + horizon)),
            mean=forecast.mean[0] if self.floor is None else np.maximum(forecast.mean[0], self.floor),
            bands=tuple(bands),
        )


def _volume(batch: SeriesBatch) -> Floats:
    series = np.repeat(np.arange(len(batch)), batch.values.lengths)
    offsets = batch.values.offsets
    sizes = np.nan_to_num(np.abs(batch.values.values[offsets[0] : offsets[-1]]), posinf=0.0)
    return np.bincount(series, sizes, len(batch))


def _errors(fitted: Fitted) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """MASE of the model and of seasonal naive, and whether anything but zeros came in the windows."""
    if fitted.evaluation is None:
        nothing = np.full(len(fitted.batch), np.nan)
        return nothing, nothing, np.zeros(len(fitted.batch), bool)
    columns = fitted.evaluation.columns()
    tally = fitted.evaluation.model
    return columns["mase"], columns["seasonalnaive_mase"], tally.weight[tally.measures.index("wape")] > 0
