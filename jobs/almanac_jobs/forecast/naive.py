"""Seasonal naive forecasts, and the naive forecast (a season of one period) that stands in for a model that fails.

Each day of a week, or month of a year, is a random walk of its own (Hyndman and Athanasopoulos, Forecasting: Principles
and Practice, 3rd ed., sections 5.2 and 5.5): the forecast is the last value of the same season, and its variance grows
by sigma^2 with every turn. A step over g - 1 missing values has variance g sigma^2; so weighed, missing values are
handled exactly.

The state is the last value of each season, the next period's first; `state_cov` counts the turns since it is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from almanac.api.forecast import ForecastModel
from almanac_jobs.forecast import segments
from almanac_jobs.forecast.segments import Mask
from almanac_jobs.forecast.types import Floats, Forecast, Parameters, Ragged, SeriesBatch, Status, fallback_status

LARGEST = 1e150
"""Squares of larger values overflow."""


def terms(form: str) -> tuple[str, ...]:
    """Names of the coefficients: there are none."""
    return ()


def fit(batch: SeriesBatch, model: ForecastModel) -> Parameters:
    """Seasonal naive of `model.season_length` periods.

    A series that was not observed in each season, or never twice in the same, becomes naive: status `fallback:naive`,
    or `too_short` without a second value.
    """
    m = model.season_length
    fitted = _walks(batch, m, "seasonalnaive", f"[{m}]")
    incomplete = np.isnan(fitted.sigma2)
    yes, no = np.flatnonzero(~incomplete), np.flatnonzero(incomplete)
    return segments.merge([(yes, fitted.take(yes)), (no, fallback(batch.take(no)))])


def fallback(batch: SeriesBatch) -> Parameters:
    """The naive forecast with its interval for series that a model could not be fitted to: status `fallback:naive`.

    A single value is carried forward without one, `too_short`; empty and infinite series are `empty` and `not_finite`,
    and have no forecast.
    """
    fitted = _walks(batch, 1, "naive", "")
    return fitted.with_status(np.where(fitted.status == Status.OK, fallback_status("naive"), fitted.status))


def carry_forward(batch: SeriesBatch) -> Parameters:
    """The last value without an interval, for series that are too short for a model: as `fallback`, but `too_short`."""
    fitted = _walks(batch, 1, "naive", "")
    status = np.where(np.isin(fitted.status, (Status.OK, Status.CONSTANT)), Status.TOO_SHORT.value, fitted.status)
    return replace(fitted, sigma2=np.full(len(batch), np.nan), status=status)


def fit_where(usable: Mask, batch: SeriesBatch, fit_usable: Callable[[SeriesBatch], Parameters]) -> Parameters:
    """The fits of `fit_usable` to the series that are finite and `usable`; the others' last values carried forward."""
    usable = usable & (segments.largest(batch.values) < LARGEST)
    yes, no = np.flatnonzero(usable), np.flatnonzero(~usable)
    return segments.merge([(yes, fit_usable(batch.take(yes))), (no, carry_forward(batch.take(no)))])


def forecast(parameters: Parameters, horizon: int) -> Forecast:
    """Forecasts of `horizon` periods after each series' last value."""
    mean, variance = np.full((2, len(parameters), horizon), np.nan)
    ahead = np.arange(horizon)
    for m in np.unique(parameters.state.lengths):
        rows = np.flatnonzero(parameters.state.lengths == m)
        waited = np.zeros((len(rows), m))
        late = parameters.state_cov.lengths[rows] > 0
        waited[late] = parameters.state_cov.take(rows[late]).values.reshape(-1, m)
        mean[rows] = parameters.state.take(rows).values.reshape(-1, m)[:, ahead % m]
        variance[rows] = (1 + ahead // m + waited[:, ahead % m]) * parameters.sigma2[rows, None]
    return Forecast(mean, np.sqrt(variance))


def _walks(batch: SeriesBatch, m: int, model: str, form: str) -> Parameters:
    """A random walk for each of m seasons; sigma2 is NaN where no step was observed, or a season was never."""
    values, n, observed = batch.values, len(batch), batch.observed
    infinite = segments.counts(np.isinf(values.values), values) > 0
    later, before = segments.earlier(values, m)
    owner = segments.owners(values)[later]
    with np.errstate(invalid="ignore", over="ignore"):
        squares = (values.values[later] - values.values[before]) ** 2 / ((later - before) // m)
        sigma2 = segments.sums(squares, owner, n) / np.bincount(owner, minlength=n)
    sigma2[~np.isfinite(sigma2)] = np.nan
    last, waited = _last_of_seasons(values, m)
    last[infinite] = np.nan
    sigma2[np.isnan(last).any(axis=1)] = np.nan
    nothing = np.full(n, np.nan)
    return Parameters(
        model=np.full(n, model),
        form=np.full(n, form),
        status=np.select(
            [observed == 0, infinite, np.isnan(sigma2), sigma2 == 0],
            [Status.EMPTY, Status.NOT_FINITE, Status.TOO_SHORT, Status.CONSTANT],
            Status.OK,
        ).astype(np.str_),
        coefficients=Ragged.empty(n),
        sigma2=sigma2,
        loglik=nothing,
        aicc=nothing,
        observations=observed,
        state=Ragged.regular(last),
        state_cov=segments.rows_where(waited.any(axis=1), waited),
    )


def _last_of_seasons(values: Ragged, m: int) -> tuple[Floats, Floats]:
    """(series, m), the next period's season first: its last value, NaN if none, and the turns since it is missing."""
    newest = values.offsets[1:, None] - m + np.arange(m)
    first = np.broadcast_to(values.offsets[:-1, None], newest.shape)
    index = segments.back_to_observed(values.values, newest.reshape(-1), first.reshape(-1), m).reshape(newest.shape)
    return np.append(values.values, np.nan)[index], np.where(index >= 0, (newest - index) / m, 0)
