"""Accuracy measures as sums and weights, so that the scores of parts add up to those of the whole on any engine.

Pure arrays, no I/O. Every formula with its source: docs/reference/scores.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from almanac_jobs.forecast.types import Floats, Forecast, Ints, SeriesBatch

AVERAGED = frozenset({"mase", "rmsse", "smape"})
"""Measures without a unit: their overall score is the mean over entities. All others are pooled over the points."""


def coverage(level: float) -> str:
    """The name of the measure that says how often the interval at `level` percent held the actual value."""
    return f"coverage_{level:g}"


def measures(levels: Sequence[float]) -> tuple[str, ...]:
    """The names of all measures, in the order of the scores table, for intervals at `levels` percent."""
    intervals = ("pinball", *map(coverage, levels)) if levels else ()
    return ("mase", "rmsse", "smape", "wape", "mae", "bias", *intervals)


@dataclass(frozen=True, slots=True)
class Tally:
    """Scores as sums: a mean is `total / weight`, and tallies of disjoint sets of points add up.

    `total` and `weight` have one row a measure, and one column a series unless they are overall scores. The weight
    counts points (or entities, see `overall`); for `wape` it is the sum of the actual values' sizes.
    """

    measures: tuple[str, ...]
    total: Floats
    weight: Floats

    def __add__(self, other: Tally) -> Tally:
        if self.measures != other.measures:
            raise ValueError(f"cannot add scores of {other.measures} to scores of {self.measures}")
        return Tally(self.measures, self.total + other.total, self.weight + other.weight)

    def means(self) -> dict[str, Floats]:
        """Every measure's mean; NaN where the weight is zero, which is where the measure is not defined."""
        means = np.full(self.total.shape, np.nan)
        np.divide(self.total, self.weight, out=means, where=self.weight > 0)
        return dict(zip(self.measures, means, strict=True))

    @classmethod
    def zeros(cls, levels: Sequence[float], *series: int) -> Self:
        """No point at all, for a batch of so many `series`, or overall."""
        names = measures(levels)
        return cls(names, np.zeros((len(names), *series)), np.zeros((len(names), *series)))

    def scattered(self, rows: Ints, series: int) -> Tally:
        """The same scores in a batch of `series` of which these are `rows`; the others have no point."""
        total, weight = np.zeros((2, len(self.measures), series))
        total[:, rows], weight[:, rows] = self.total, self.weight
        return Tally(self.measures, total, weight)


@dataclass(frozen=True, slots=True)
class Scale:
    """In-sample errors of each series' seasonal naive forecast: mean size and mean square, NaN if there is none."""

    absolute: Floats
    squared: Floats


def naive_scale(training: SeriesBatch, season_length: int) -> Scale:
    """What MASE and RMSSE are measured in: mean |y[t] - y[t-m]| and mean (y[t] - y[t-m])^2 over each training part.

    A series without a pair of observations one season apart is compared with lag 1 instead.
    """
    seasonal, pairs = _lagged(training, season_length)
    if season_length == 1 or (pairs > 0).all():
        return seasonal
    previous, _ = _lagged(training, 1)
    return Scale(
        np.where(pairs > 0, seasonal.absolute, previous.absolute),
        np.where(pairs > 0, seasonal.squared, previous.squared),
    )


def _lagged(training: SeriesBatch, lag: int) -> tuple[Scale, Ints]:
    n, offsets = len(training), training.values.offsets
    values = training.values.values[offsets[0] : offsets[-1]]
    series = np.repeat(np.arange(n), training.values.lengths)
    difference = values[lag:] - values[:-lag]
    valid = (series[lag:] == series[:-lag]) & np.isfinite(difference)
    owner, difference = series[lag:][valid], difference[valid]
    pairs = np.bincount(owner, minlength=n)
    absolute, squared = np.full((2, n), np.nan)
    np.divide(np.bincount(owner, np.abs(difference), n), pairs, out=absolute, where=pairs > 0)
    np.divide(np.bincount(owner, difference**2, n), pairs, out=squared, where=pairs > 0)
    return Scale(absolute, squared), pairs


def score(
    actual: Floats, forecast: Forecast, scale: Scale, levels: Sequence[float], *, floor: float | None = None
) -> Tally:
    """The scores of each series' forecast against what came.

    `actual` is (series, horizon) like the forecast's arrays. Points without an actual value or without a forecast are
    skipped, and so are points without an interval by pinball loss and coverage. `floor` applies to forecasts and
    bounds, as in the output.
    """
    mean = forecast.mean if floor is None else np.maximum(forecast.mean, floor)
    error = mean - actual
    seen = np.isfinite(error)
    error, size = np.where(seen, error, 0.0), np.where(seen, np.abs(actual) + np.abs(mean), 0.0)
    count = seen.sum(axis=1).astype(np.float64)
    absolute = np.abs(error).sum(axis=1)
    relative = np.divide(2 * np.abs(error), size, out=np.zeros_like(error), where=size > 0).sum(axis=1)
    rows = {
        "mase": _scaled(absolute, count, scale.absolute),
        "rmsse": _scaled((error**2).sum(axis=1), count, scale.squared),
        "smape": (relative, count),
        "wape": (absolute, np.where(seen, np.abs(actual), 0.0).sum(axis=1)),
        "mae": (absolute, count),
        "bias": (error.sum(axis=1), count),
        **_interval_rows(actual, forecast, levels, floor),
    }
    names = measures(levels)
    return Tally(names, np.array([rows[name][0] for name in names]), np.array([rows[name][1] for name in names]))


def _scaled(total: Floats, count: Floats, scale: Floats) -> tuple[Floats, Floats]:
    defined = scale > 0
    return np.divide(total, scale, out=np.zeros_like(total), where=defined), np.where(defined, count, 0.0)


def _interval_rows(
    actual: Floats, forecast: Forecast, levels: Sequence[float], floor: float | None
) -> dict[str, tuple[Floats, Floats]]:
    rows: dict[str, tuple[Floats, Floats]] = {}
    loss, quantiles = np.zeros(len(actual)), np.zeros(len(actual))
    for level in levels:
        lower, upper = forecast.interval(level, floor)
        seen = np.isfinite(upper - lower) & np.isfinite(actual)
        count = seen.sum(axis=1).astype(np.float64)
        tail = (1 - level / 100) / 2
        for share, bound in ((tail, lower), (1 - tail, upper)):
            over = actual - bound
            loss += np.where(seen, np.maximum(share * over, (share - 1) * over), 0.0).sum(axis=1)
        quantiles += 2 * count
        held = seen & (lower <= actual) & (actual <= upper)
        rows[coverage(level)] = (held.sum(axis=1).astype(np.float64), count)
    return {"pinball": (loss, quantiles), **rows}


def per_series(tally: Tally) -> dict[str, Floats]:
    """Every measure of every series; NaN where it is not defined."""
    means = tally.means()
    return means | {"rmsse": np.sqrt(means["rmsse"])}


def overall(tally: Tally) -> Tally:
    """One pair of sum and weight a measure, for all series of a tally; those of parts add up.

    Measures without a unit become sums over entities, each counted once where it is defined. The others keep the
    points' sums, so that `wape` is the total error over the total volume and big entities weigh more.
    """
    values = per_series(tally)
    total, weight = tally.total.sum(axis=1), tally.weight.sum(axis=1)
    for i, name in enumerate(tally.measures):
        if name in AVERAGED:
            defined = np.isfinite(values[name])
            total[i], weight[i] = values[name][defined].sum(), defined.sum()
    return Tally(tally.measures, total, weight)
