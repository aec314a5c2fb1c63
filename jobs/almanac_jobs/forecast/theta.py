"""The theta method: simple exponential smoothing with half the slope of the series' line as a drift.

Assimakopoulos and Nikolopoulos (2000), in the form that Hyndman and Billah (2003, Unmasking the theta method) found for
it and R's `thetaf` has: a series with a season (autocorrelation at its lag, tested at 90 %) is first freed from it by a
classical decomposition. That is multiplicative where all values are above zero, and additive where it cannot be.
Smoothing is fitted by least squares over its parameter and its first level, in the compiled kernel.

The state is the forecast for the next period without season, and the seasonal terms, the next period's first.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from almanac.api.forecast import ForecastModel
from almanac_jobs.forecast import naive, segments
from almanac_jobs.forecast.segments import Mask
from almanac_jobs.forecast.types import Floats, Forecast, Parameters, Ragged, SeriesBatch, Status
from almanac_jobs.kernel.ets import EtsModel, fit_complete

FEWEST = 5
"""The smallest number of values that smoothing is fitted to."""
SMALLEST_FACTOR = 1e-4
"""Seasonal factors below this are no factors: the decomposition is additive then."""


def terms(form: str) -> tuple[str, ...]:
    """Names of the coefficients: the smoothing parameter, and the growth in a period."""
    return ("alpha", "drift")


def fit(batch: SeriesBatch, model: ForecastModel) -> Parameters:
    """Fit the theta method. The form is `multiplicative[m]`, `additive[m]`, or empty without a season.

    Fewer than five values are `too_short`; a series with missing values is forecast by naive instead. Raises
    MemoryError.
    """
    gaps = batch.observed < batch.values.lengths
    yes, no = np.flatnonzero(~gaps), np.flatnonzero(gaps)
    complete = batch.take(yes)
    fitted = naive.fit_where(complete.observed >= FEWEST, complete, lambda part: _fit(part, model.season_length))
    return segments.merge([(yes, fitted), (no, naive.fallback(batch.take(no)))])


def forecast(parameters: Parameters, horizon: int) -> Forecast:
    """Forecasts of `horizon` periods; standard errors are those of simple smoothing, scaled by the seasonal factor."""
    n, ahead = len(parameters), np.arange(horizon)
    alpha, drift = parameters.coefficients.values.reshape(n, 2).T[:, :, None]
    first = parameters.state.values[parameters.state.offsets[:-1]][:, None]
    mean = first + drift * ahead
    se = np.sqrt(parameters.sigma2[:, None] * (1 + alpha**2 * ahead))
    for form in np.unique(parameters.form[parameters.form != ""]):
        rows = np.flatnonzero(parameters.form == form)
        season = parameters.state.take(rows).values.reshape(len(rows), -1)[:, 1:]
        season = season[:, ahead % season.shape[1]]
        if str(form).startswith("multiplicative"):
            mean[rows] *= season
            se[rows] *= season
        else:
            mean[rows] += season
    return Forecast(mean, se)


def _fit(batch: SeriesBatch, m: int) -> Parameters:
    """The theta method for complete, finite series of at least FEWEST values."""
    seasonal = is_seasonal(batch.values, m)
    if not seasonal.any():
        return _fit_adjusted(batch.values, np.empty((len(batch), 0)), "")
    season, multiplicative = decompose(batch.values, m)
    forms = {
        "": ~seasonal,
        f"multiplicative[{m}]": seasonal & multiplicative,
        f"additive[{m}]": seasonal & ~multiplicative,
    }
    parts = []
    for form, mask in forms.items():
        rows = np.flatnonzero(mask)
        series, kept = batch.values.take(rows), season[rows] if form else np.empty((len(rows), 0))
        if form:
            own = kept[segments.owners(series), segments.positions(series) % m]
            free = series.values / own if form.startswith("multiplicative") else series.values - own
            series = Ragged(free, series.offsets)
            kept = np.take_along_axis(kept, (series.lengths[:, None] + np.arange(m)) % m, axis=1)
        parts.append((rows, _fit_adjusted(series, kept, form)))
    return segments.merge(parts)


def _fit_adjusted(series: Ragged, season: Floats, form: str) -> Parameters:
    """Smoothing with drift of series freed from their `season`, whose terms are kept in the state."""
    n, lengths, center = len(series), series.lengths, segments.means(series)
    still = segments.deviations(series, center) <= segments.EXACT * segments.largest(series)
    alpha, level, sigma2 = np.ones(n), center.copy(), np.zeros(n)
    rows = np.flatnonzero(~still)
    scaled = segments.Scaled.of(series.take(rows), center[rows])
    smoothed = fit_complete(EtsModel("A", "N", "N"), scaled.series.values, scaled.series.offsets)
    alpha[rows] = smoothed.smoothing[:, 0]
    level[rows] = smoothed.state[:, 0] * scaled.size + center[rows]
    sigma2[rows] = smoothed.squares / (lengths[rows] - 2) * scaled.size**2
    drift = np.where(still, 0, _slope(series, center) / 2)
    weights = -np.expm1(lengths * np.log1p(-np.minimum(alpha, 1 - 1e-12))) / alpha  # sum of (1 - alpha)^j, j < n
    nothing = np.full(n, np.nan)
    return Parameters(
        model=np.full(n, "theta"),
        form=np.full(n, form),
        status=np.where(still, Status.CONSTANT, Status.OK).astype(np.str_),
        coefficients=Ragged.regular(np.column_stack([alpha, drift])),
        sigma2=sigma2,
        loglik=nothing,
        aicc=nothing,
        observations=lengths,
        state=Ragged.regular(np.column_stack([level + drift * weights, season])),
        state_cov=Ragged.empty(n),
    )


def _slope(series: Ragged, center: Floats) -> Floats:
    """The slope of the line through each series, by least squares."""
    owner, n = segments.owners(series), len(series)
    time = segments.positions(series).astype(np.float64) - np.repeat((series.lengths - 1) / 2, series.lengths)
    products = time * (series.values - np.repeat(center, series.lengths))
    return segments.sums(products, owner, n) / segments.sums(time**2, owner, n)


def is_seasonal(series: Ragged, m: int) -> Mask:
    """Whether the autocorrelation at lag `m` differs from zero at 90 %, given those before it (Bartlett's formula)."""
    result = np.zeros(len(series), np.bool_)
    center = segments.means(series)
    moving = segments.deviations(series, center) > segments.EXACT * segments.largest(series)
    able = np.flatnonzero((series.lengths > 2 * m) & moving) if m > 1 else np.empty(0, np.int64)
    scaled = segments.Scaled.of(series.take(able), center[able])
    widths = 2 ** np.ceil(np.log2(scaled.series.lengths + m)).astype(np.int64)  # of that series alone
    for rows in segments.blocks(widths):
        part = scaled.series.take(rows)
        table = np.zeros((len(rows), widths[rows[0]]))
        table[segments.owners(part), segments.positions(part)] = part.values
        spectrum = np.fft.rfft(table)
        covariance = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:, : m + 1]
        r = covariance[:, 1:] / covariance[:, :1]
        error = np.sqrt((1 + 2 * (r[:, :-1] ** 2).sum(axis=1)) / part.lengths)
        result[able[rows]] = np.abs(r[:, -1]) / error > NormalDist().inv_cdf(0.95)
    return result


def decompose(series: Ragged, m: int) -> tuple[Floats, Mask]:
    """Classical decomposition: the seasonal term of each position modulo `m`, and whether it is a factor.

    Factors have mean 1, other terms mean 0. Series of at most 2 m values have no meaningful terms.
    """
    n, owner, position = len(series), segments.owners(series), segments.positions(series)
    half = m // 2
    window = segments.window_sums(series.values, m)
    middle = np.flatnonzero((position >= half) & (position + half < np.repeat(series.lengths, series.lengths)))
    trend = window[middle - half] / m if m % 2 else (window[middle - half] + window[middle - half + 1]) / (2 * m)
    season = owner[middle] * m + position[middle] % m

    def averages(values: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return (np.bincount(season, values, n * m) / np.bincount(season, minlength=n * m)).reshape(n, m)

    sums = averages(series.values[middle] - trend)
    sums -= sums.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = averages(series.values[middle] / trend)
        factors /= factors.mean(axis=1, keepdims=True)
    multiplicative = (segments.counts(series.values <= 0, series) == 0) & (factors > SMALLEST_FACTOR).all(axis=1)
    return np.where(multiplicative[:, None], factors, sums), multiplicative
