"""Exponential smoothing by maximum likelihood: of the 15 ETS models with a finite variance, the one of the lowest AICc.

These are the models that R's `ets` chooses among (Hyndman, Koehler, Ord and Snyder, Forecasting with Exponential
Smoothing, 2008): errors A or M, trend N, A or Ad, season N, A or M, without multiplicative trends and without
multiplicative seasons of additive errors. Multiplicative errors need values above zero. The compiled kernel
(kernel/ets.h) finds smoothing parameters and initial states; forecasts and their variances are the book's chapter 6,
and need the parameters alone.

The state is level, growth and the seasonal terms, the next period's first, as far as the form has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from almanac.api.forecast import ForecastModel
from almanac_jobs.forecast import naive, segments
from almanac_jobs.forecast.types import Floats, Forecast, Parameters, Ragged, SeriesBatch, Status
from almanac_jobs.kernel.ets import EtsModel, fit_complete

FEWEST = 5
"""AICc of the smallest model, which has three parameters, needs so many values."""
TIE = 0.01
"""A model whose AICc is better by less is not preferred to a simpler one: far from zero, errors A and M are alike."""
EXACT = 1e-22
"""Mean squared errors of this size, of values of size 1, are rounding: the model describes the series exactly."""

_FORM = re.compile(r"\(([AM]),(N|Ad?),([NAM])\)(?:\[(\d+)\])?")


def candidates(season_length: int) -> tuple[EtsModel, ...]:
    """The models to choose among, the simplest first."""
    return tuple(
        EtsModel(error, trend, season, season_length if season != "N" else 1)
        for season in ("NAM" if season_length > 1 else "N")
        for trend in ("N", "A", "Ad")
        for error in "AM"
        if (error, season) != ("A", "M")
    )


@cache
def parse(form: str) -> EtsModel:
    """The model of a form such as `(M,Ad,A)[7]`. Raises ValueError."""
    found = _FORM.fullmatch(form)
    if not found:
        raise ValueError(f"not the form of an ETS model: {form!r}")
    return EtsModel(found[1], found[2], found[3], int(found[4] or 1))


def terms(form: str) -> tuple[str, ...]:
    """Names of the coefficients of a form, in order: alpha, and beta, gamma and phi as far as it has them."""
    return parse(form).smoothing


def fit(batch: SeriesBatch, model: ForecastModel) -> Parameters:
    """Fit every model that a series has enough values for, and keep the one of the lowest AICc.

    A series that a model describes exactly is `constant`. Fewer than five values are `too_short`; a series with missing
    values is forecast by naive instead. Raises MemoryError.
    """
    gaps = batch.observed < batch.values.lengths
    yes, no = np.flatnonzero(~gaps), np.flatnonzero(gaps)
    complete = batch.take(yes)
    fitted = naive.fit_where(complete.observed >= FEWEST, complete, lambda part: _fit(part, model.season_length))
    return segments.merge([(yes, fitted), (no, naive.fallback(batch.take(no)))])


def forecast(parameters: Parameters, horizon: int) -> Forecast:
    """Means and standard errors of the next `horizon` periods."""
    mean, se = np.full((2, len(parameters), horizon), np.nan)
    for form in np.unique(parameters.form):
        rows = np.flatnonzero(parameters.form == form)
        mean[rows], se[rows] = _forecast_form(parameters.take(rows), parse(str(form)), horizon)
    return Forecast(mean, se)


def _fit(batch: SeriesBatch, season_length: int) -> Parameters:
    """The best model of each of some complete, finite series of at least FEWEST values."""
    series, n, lengths = batch.values, len(batch), batch.values.lengths
    center = segments.means(series)
    still = segments.deviations(series, center) <= segments.EXACT * segments.largest(series)
    scaled = {"A": segments.Scaled.of(series, center), "M": segments.Scaled.of(series, np.zeros(n))}
    positive = segments.counts(series.values <= 0, series) == 0
    tried = []
    score = np.full((n, len(candidates(season_length))), np.inf)
    for column, model in enumerate(candidates(season_length)):
        able = ~still & (lengths > model.parameters + 2) & (positive | (model.error == "A"))
        rows = np.flatnonzero(able)
        fitted = _fit_model(model, scaled[model.error].take(rows))
        score[rows, column] = np.where(fitted.status == Status.CONSTANT, -np.inf, fitted.aicc)
        tried.append((rows, fitted))
    least = score.min(axis=1)
    best, none = (score <= least[:, None] + TIE).argmax(axis=1), np.isposinf(least)
    chosen = [np.flatnonzero((best == column) & ~none) for column in range(len(tried))]
    parts = [
        (keep, fitted.take(np.searchsorted(rows, keep))) for keep, (rows, fitted) in zip(chosen, tried, strict=True)
    ]
    rest = np.flatnonzero(none & ~still)
    flat = np.flatnonzero(still)
    return segments.merge([*parts, (flat, _constant(batch.take(flat))), (rest, naive.fallback(batch.take(rest)))])


def _fit_model(model: EtsModel, scaled: segments.Scaled) -> Parameters:
    """One model fitted to each series; `aicc` is inf where it cannot be evaluated."""
    fitted = fit_complete(model, scaled.series.values, scaled.series.offsets)
    n, lengths, size = len(scaled.series), scaled.series.lengths, scaled.size
    exact = (fitted.squares <= EXACT * lengths) & (fitted.loglik > -np.inf)
    free = model.parameters + 1
    loglik = np.where(exact, np.nan, fitted.loglik - lengths * np.log(size))
    variance = fitted.squares / (lengths - model.parameters)
    state = fitted.state.copy()
    in_units = state.shape[1] - (model.m if model.season == "M" else 0)
    state[:, :in_units] *= size[:, None]
    state[:, 0] += scaled.shift
    return Parameters(
        model=np.full(n, "ets"),
        form=np.full(n, str(model)),
        status=np.where(exact, Status.CONSTANT, Status.OK).astype(np.str_),
        coefficients=Ragged.regular(fitted.smoothing),
        sigma2=np.where(exact, 0.0, variance * size**2 if model.error == "A" else variance),
        loglik=loglik,
        aicc=-2 * loglik + 2 * free * lengths / (lengths - free - 1),
        observations=lengths,
        state=Ragged.regular(state),
        state_cov=Ragged.empty(n),
    )


def _constant(batch: SeriesBatch) -> Parameters:
    """Series of one value: simple smoothing, whatever its parameter."""
    n, nothing = len(batch), np.full(len(batch), np.nan)
    return Parameters(
        model=np.full(n, "ets"),
        form=np.full(n, "(A,N,N)"),
        status=np.full(n, Status.CONSTANT.value),
        coefficients=Ragged.regular(np.ones((n, 1))),
        sigma2=np.zeros(n),
        loglik=nothing,
        aicc=nothing,
        observations=batch.values.lengths,
        state=Ragged.regular(batch.values.values[batch.values.offsets[1:] - 1][:, None]),
        state_cov=Ragged.empty(n),
    )


def _forecast_form(parameters: Parameters, model: EtsModel, horizon: int) -> tuple[Floats, Floats]:
    n, ahead = len(parameters), np.arange(1, horizon + 1)
    found = dict(zip(model.smoothing, parameters.coefficients.values.reshape(n, -1).T[:, :, None], strict=True))
    smoothing = _Smoothing(*(found.get(name, np.full((n, 1), default)) for name, default in _ABSENT.items()))
    state = parameters.state.values.reshape(n, model.states)
    growth = state[:, 1:2] if model.trend != "N" else np.zeros((n, 1))
    damped = np.cumsum(smoothing.phi**ahead, axis=1)  # what h periods of growth add up to
    trend = state[:, :1] + growth * damped
    sigma2 = parameters.sigma2[:, None]
    if model.season == "M":
        seasons = state[:, -model.m :]
        mean, variance = _of_products(state[:, :1], growth, seasons, smoothing, sigma2, horizon)
    else:
        mean = trend + (state[:, -model.m :][:, (ahead - 1) % model.m] if model.season == "A" else 0)
        weight = smoothing.alpha + smoothing.beta * damped + smoothing.gamma * (ahead % model.m == 0)
        variance = _variance_of_sums(mean, weight, sigma2, model.error == "M")
    return mean, np.sqrt(np.maximum(variance, 0))


@dataclass(frozen=True, slots=True)
class _Smoothing:
    """Smoothing parameters, (series, 1) each."""

    alpha: Floats
    beta: Floats
    gamma: Floats
    phi: Floats


_ABSENT = {"alpha": 1.0, "beta": 0.0, "gamma": 0.0, "phi": 1.0}
"""Smoothing parameters that leave a part of the model out."""


def _variance_of_sums(mean: Floats, weight: Floats, sigma2: Floats, multiplicative: bool) -> Floats:
    """Forecast variances of models whose forecast is a sum of states: classes 1 and 2 (sections 6.2 and 6.3).

    `weight[:, j - 1]` is what an error adds to the forecast j periods later. With multiplicative errors, theta_h is the
    second moment of the one-step forecast for period h.
    """
    spread = sigma2 * weight**2
    if not multiplicative:
        return sigma2 + np.cumsum(spread, axis=1) - spread
    theta = mean**2
    for h in range(mean.shape[1] - 1):
        theta[:, h + 1 :] += spread[:, : -(h + 1)] * theta[:, h : h + 1]
    return (1 + sigma2) * theta - mean**2


def _of_products(
    level: Floats, growth: Floats, seasons: Floats, k: _Smoothing, sigma2: Floats, horizon: int
) -> tuple[Floats, Floats]:
    """Forecast means and variances of models whose forecast is trend times season: class 3 (section 6.4).

    Each season's factor s depends on the errors of its own periods only, so that the moments of (l, b) s up to the
    second, one set a season, are carried forward exactly. In its own period an error moves both trend and factor.
    """
    m, phi = seasons.shape[1], k.phi
    first, second = level * seasons, growth * seasons  # E[l s], E[b s]
    ll, lb, bb = first**2, first * second, second**2  # E[l^2 s^2], E[l b s^2], E[b^2 s^2]
    means, variances = np.empty((2, len(level), horizon))
    for h in range(horizon):
        j = h % m
        mean, product, square = first + phi * second, phi * (lb + phi * bb), phi**2 * bb
        total = ll + 2 * phi * lb + square  # E[(l + phi b)^2 s^2]
        means[:, h], variances[:, h] = mean[:, j], (1 + sigma2[:, 0]) * total[:, j] - mean[:, j] ** 2
        gamma = np.where(np.arange(m) == j, k.gamma, 0)
        grown, both, errors = 1 + gamma**2 * sigma2, 2 * gamma * sigma2, sigma2 + 3 * gamma**2 * sigma2**2
        ll = total * (grown + 2 * k.alpha * both + k.alpha**2 * errors)
        lb = product * (grown + k.alpha * both) + total * k.beta * (both + k.alpha * errors)
        bb = square * grown + product * 2 * k.beta * both + total * k.beta**2 * errors
        first, second = mean * (1 + k.alpha * gamma * sigma2), phi * second + k.beta * gamma * sigma2 * mean
    return means, variances
