"""The mean method: a series varies about a fixed mean, independently from period to period.

Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., sections 5.2 and 5.5. A missing value is no
observation of the mean, and changes nothing else. The state is the mean too.
"""

from __future__ import annotations

import numpy as np

from almanac.api.forecast import ForecastModel
from almanac_jobs.forecast import naive, segments
from almanac_jobs.forecast.types import Forecast, Parameters, Ragged, SeriesBatch, Status


def terms(form: str) -> tuple[str, ...]:
    """Names of the coefficients."""
    return ("mean",)


def fit(batch: SeriesBatch, model: ForecastModel) -> Parameters:
    """The mean of each series and the variance about it, n - 1 degrees of freedom; `too_short` below two values."""
    return naive.fit_where(batch.observed >= 2, batch, _fit)


def forecast(parameters: Parameters, horizon: int) -> Forecast:
    """The mean for every period, with standard error sigma sqrt(1 + 1/n)."""
    n = parameters.observations[:, None]
    mean = np.repeat(parameters.coefficients.values[:, None], horizon, axis=1)
    return Forecast(mean, np.broadcast_to(np.sqrt(parameters.sigma2[:, None] * (1 + 1 / n)), mean.shape).copy())


def _fit(batch: SeriesBatch) -> Parameters:
    n, observed = len(batch), batch.observed
    mean = segments.means(batch.values)
    sigma2 = segments.deviations(batch.values, mean) ** 2 * observed / (observed - 1)
    still = np.sqrt(sigma2) <= segments.EXACT * segments.largest(batch.values)
    nothing = np.full(n, np.nan)
    return Parameters(
        model=np.full(n, "mean"),
        form=np.full(n, ""),
        status=np.where(still, Status.CONSTANT, Status.OK).astype(np.str_),
        coefficients=Ragged.regular(mean[:, None]),
        sigma2=np.where(still, 0.0, sigma2),
        loglik=nothing,
        aicc=nothing,
        observations=observed,
        state=Ragged.regular(mean[:, None]),
        state_cov=Ragged.empty(n),
    )
