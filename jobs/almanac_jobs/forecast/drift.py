"""The drift method: a random walk with a drift, the line through the first and the last value continued.

Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., sections 5.2 and 5.5. A step over g - 1
missing values has mean g c and variance g sigma^2; so weighed, missing values are handled exactly, and the estimate of
c stays that of the line.

The state is the last value and the number of periods since the first one.
"""

from __future__ import annotations

import numpy as np

from almanac.api.forecast import ForecastModel
from almanac_jobs.forecast import naive, segments
from almanac_jobs.forecast.types import Forecast, Parameters, Ragged, SeriesBatch, Status


def terms(form: str) -> tuple[str, ...]:
    """Names of the coefficients."""
    return ("drift",)


def fit(batch: SeriesBatch, model: ForecastModel) -> Parameters:
    """The drift of each series and the variance of its steps (n - 2 degrees of freedom); `too_short` below 3 values."""
    return naive.fit_where(batch.observed >= 3, batch, _fit)


def forecast(parameters: Parameters, horizon: int) -> Forecast:
    """Forecasts of `horizon` periods: y + c h, with standard error sigma sqrt(h (1 + h/(T - 1)))."""
    last, periods = parameters.state.values.reshape(-1, 2).T[:, :, None]
    drift, ahead = parameters.coefficients.values[:, None], np.arange(1, horizon + 1)
    return Forecast(last + drift * ahead, np.sqrt(parameters.sigma2[:, None] * ahead * (1 + ahead / periods)))


def _fit(batch: SeriesBatch) -> Parameters:
    series, n, observed = batch.values, len(batch), batch.observed
    later, before = segments.earlier(series, 1)
    owner, gap = segments.owners(series)[later], later - before
    steps = series.values[later] - series.values[before]
    periods = segments.sums(gap.astype(float), owner, n)
    drift = segments.sums(steps, owner, n) / periods
    sigma2 = segments.sums((steps - drift[owner] * gap) ** 2 / gap, owner, n) / (observed - 2)
    still = np.sqrt(sigma2) <= segments.EXACT * segments.largest(series)
    nothing = np.full(n, np.nan)
    return Parameters(
        model=np.full(n, "drift"),
        form=np.full(n, ""),
        status=np.where(still, Status.CONSTANT, Status.OK).astype(np.str_),
        coefficients=Ragged.regular(drift[:, None]),
        sigma2=np.where(still, 0.0, sigma2),
        loglik=nothing,
        aicc=nothing,
        observations=observed,
        state=Ragged.regular(np.column_stack([series.values[series.offsets[1:] - 1], periods])),
        state_cov=Ragged.empty(n),
    )
