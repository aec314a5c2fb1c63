"""Rolling-origin evaluation: what a model would have forecast earlier, beside seasonal naive, against what then came.

Pure: series in, scores out. How a batch is fitted is passed in; the one model known here is what it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from almanac.api.forecast import Family, ForecastModel
from almanac_jobs import scores
from almanac_jobs.forecast import naive
from almanac_jobs.forecast.types import Floats, Forecast, Ints, Parameters, SeriesBatch
from almanac_jobs.scores import Tally

BASELINE = "seasonalnaive"
"""What every model is compared with, and the prefix of its scores."""


@dataclass(frozen=True, slots=True)
class Forecaster:
    """A model family reduced to what evaluation needs: fit a batch, and forecast its series so many periods ahead."""

    fit: Callable[[SeriesBatch], Parameters]
    forecast: Callable[[Parameters, int], Forecast]

    def __call__(self, training: SeriesBatch, horizon: int) -> Forecast:
        return self.forecast(self.fit(training), horizon)


def seasonal_naive(season_length: int) -> Forecaster:
    """What every model is compared with: the last value of the same season; without a whole season, the last value."""
    model = ForecastModel(family=Family.SEASONALNAIVE, season_length=season_length)
    return Forecaster(lambda training: naive.fit(training, model), naive.forecast)


@dataclass(frozen=True, slots=True)
class Backtest:
    """How to look back: `windows` test parts of `horizon` periods each, end to end; the last one ends with the series.

    A series is tested in a window only if at least `min_observations` observed values come before it. `season_length`
    scales MASE and RMSSE; `levels` and `floor` are those of the forecast.
    """

    windows: int
    horizon: int
    season_length: int
    levels: tuple[float, ...]
    min_observations: int = 1
    floor: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """One test part of a batch: for the series at `rows`, what was known before (`training`) and what came (`actual`).

    `start` is the period of the first column of `actual`. It is later than the period after `training.end` where
    values are missing right before it, because a series never ends with a missing value.
    """

    rows: Ints
    training: SeriesBatch
    start: Ints
    actual: Floats


def split(batch: SeriesBatch, backtest: Backtest, number: int) -> Window:
    """Window `number` of a batch, counted back from the series' end: 1 is the last.

    Series that are too short for it, or that have no observation in it, are left out.
    """
    offsets, lengths = batch.values.offsets, batch.values.lengths
    base = offsets[:-1] - offsets[0]
    values = batch.values.values[offsets[0] : offsets[-1]]
    present = ~np.isnan(values)
    known = np.concatenate(([0], np.cumsum(present)))
    last_present = np.concatenate(([-1], np.maximum.accumulate(np.where(present, np.arange(len(values)), -1))))
    cut = base + np.maximum(lengths - number * backtest.horizon, 0)
    length = np.maximum(last_present[cut] + 1 - base, 0)
    observed = known[cut] - known[base]
    tested = known[np.minimum(cut + backtest.horizon, base + lengths)] - known[cut]
    long_enough = lengths > number * backtest.horizon
    rows = np.flatnonzero(long_enough & (observed >= max(backtest.min_observations, 1)) & (tested > 0))
    start = batch.end[rows] - number * backtest.horizon + 1
    gap = cut[rows] - base[rows] - length[rows]
    training = SeriesBatch(batch.values.cut(rows, np.zeros(len(rows), np.int64), length[rows]), start - 1 - gap)
    return Window(rows, training, start, values[cut[rows, np.newaxis] + np.arange(backtest.horizon)])


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a batch, one entry a series: of the model and of seasonal naive on the same points.

    `windows` counts the windows in which a series was tested, `skipped` those for which it was too short or had
    nothing to compare.
    """

    windows: Ints
    skipped: Ints
    model: Tally
    baseline: Tally

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of the scores table after `entity`; NaN where a measure is not defined."""
        ours, theirs = scores.per_series(self.model), scores.per_series(self.baseline)
        return {"windows": self.windows} | ours | {f"{BASELINE}_{name}": values for name, values in theirs.items()}

    def totals(self) -> Totals:
        ours, theirs = scores.per_series(self.model)["mase"], scores.per_series(self.baseline)["mase"]
        compared = np.isfinite(ours) & np.isfinite(theirs)
        return Totals(
            entities=len(self.windows),
            evaluated=int((self.windows > 0).sum()),
            windows=int(self.windows.sum()),
            skipped=int(self.skipped.sum()),
            compared=int(compared.sum()),
            wins=int((ours < theirs)[compared].sum()),
            model=scores.overall(self.model),
            baseline=scores.overall(self.baseline),
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """The scores of all entities; those of two disjoint sets of entities add up.

    Of `entities`, `evaluated` were tested in at least one window, `windows` in sum, and `compared` have a MASE: it is
    undefined where the training part never changed. Among these, the model `wins` where its MASE is below seasonal
    naive's.
    """

    entities: int
    evaluated: int
    windows: int
    skipped: int
    compared: int
    wins: int
    model: Tally
    baseline: Tally

    @classmethod
    def zeros(cls, levels: Sequence[float]) -> Self:
        """The sum of no parts."""
        return cls(0, 0, 0, 0, 0, 0, Tally.zeros(levels), Tally.zeros(levels))

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.entities + other.entities,
            self.evaluated + other.evaluated,
            self.windows + other.windows,
            self.skipped + other.skipped,
            self.compared + other.compared,
            self.wins + other.wins,
            self.model + other.model,
            self.baseline + other.baseline,
        )

    @property
    def win_share(self) -> float:
        """The share of compared entities on which the model beats seasonal naive; NaN if there is none."""
        return self.wins / self.compared if self.compared else np.nan

    def summary(self) -> dict[str, float]:
        """All overall scores by name, to six significant digits, the same on any engine and whatever the parts were.

        Scores that no point defines are left out. `beats_seasonalnaive` is `win_share`.
        """
        ours = {name: float(mean) for name, mean in self.model.means().items()}
        theirs = {f"{BASELINE}_{name}": float(mean) for name, mean in self.baseline.means().items()}
        every = ours | theirs | {f"beats_{BASELINE}": self.win_share}
        return {name: float(f"{value:.6g}") for name, value in every.items() if np.isfinite(value)}


def evaluate(
    batch: SeriesBatch, observed: Ints, backtest: Backtest, model: Forecaster, baseline: Forecaster
) -> Evaluation:
    """Score a model and seasonal naive in every window of a batch.

    `observed` counts each series' observations before gaps were filled: a series with fewer than `min_observations`
    is not tested at all. Both forecasts are scored on the points that both have, and their intervals where both give
    one, so that the scores compare.
    """
    n = len(batch)
    eligible = np.flatnonzero(observed >= backtest.min_observations)
    candidates = batch.take(eligible)
    tested = np.zeros(n, np.int64)
    ours = theirs = Tally.zeros(backtest.levels, n)
    for number in range(backtest.windows, 0, -1):
        window = split(candidates, backtest, number)
        if not len(window.rows):
            continue
        forecasts = _comparable(_ahead(window, model, backtest.horizon), _ahead(window, baseline, backtest.horizon))
        scale = scores.naive_scale(window.training, backtest.season_length)
        mine, naive = (
            scores.score(window.actual, forecast, scale, backtest.levels, floor=backtest.floor).scattered(
                eligible[window.rows], n
            )
            for forecast in forecasts
        )
        ours, theirs = ours + mine, theirs + naive
        tested += mine.weight[mine.measures.index("mae")] > 0
    return Evaluation(tested, backtest.windows - tested, ours, theirs)


def _ahead(window: Window, forecaster: Forecaster, horizon: int) -> Forecast:
    """The forecast of the window's periods: where values right before it are missing, they are more steps ahead."""
    gap = window.start - 1 - window.training.end
    forecast = forecaster(window.training, horizon + int(gap.max()))
    columns = gap[:, np.newaxis] + np.arange(horizon)
    return Forecast(np.take_along_axis(forecast.mean, columns, 1), np.take_along_axis(forecast.se, columns, 1))


def _comparable(first: Forecast, second: Forecast) -> tuple[Forecast, Forecast]:
    mean = np.isfinite(first.mean) & np.isfinite(second.mean)
    se = np.isfinite(first.se) & np.isfinite(second.se)
    a, b = (Forecast(np.where(mean, one.mean, np.nan), np.where(se, one.se, np.nan)) for one in (first, second))
    return a, b
