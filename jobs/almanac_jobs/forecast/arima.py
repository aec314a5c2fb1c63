"""ARIMA(p,d,q)(P,D,Q)[m] by exact maximum likelihood, for all series of a batch at once.

Series are differenced first, centred where a constant is estimated, and scaled, so that neither level nor unit changes
the result; the compiled kernel then maximises the likelihood of the ARMA that is left (kernel/arma.h). A series with
missing values is fitted undifferenced, with a state that holds the values in doubt; the likelihood is that of the
values given the first d + D m of them in both cases, so that the two agree where nothing is missing. The conventions
are R's `arima`: moving-average terms are added, a constant is the mean of the differenced series.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from almanac.api.forecast import ForecastModel
from almanac_jobs.forecast import segments
from almanac_jobs.forecast.types import (
    Floats,
    Forecast,
    Ints,
    Parameters,
    Ragged,
    SeriesBatch,
    Status,
    Strings,
    fallback_status,
)
from almanac_jobs.kernel.arma import ArmaFit, ArmaModel, fit_complete, fit_missing

UNCERTAIN = 0.5
"""A standard error of a partial autocorrelation (which lies within -1 and 1) above which a fit is weakly identified."""
UNIT_ROOT = 1e-3
"""theta(1) below this is a moving-average root at 1: the series was differenced once too often."""
NEGLIGIBLE = 1e-9
"""A state covariance below this, in units of sigma^2, changes no digit that is shown, and is not kept."""

_FORM = re.compile(r"\((\d+),(\d+),(\d+)\)(?:\((\d+),(\d+),(\d+)\)\[(\d+)\])?(?: with (mean|drift|constant))?")


@dataclass(frozen=True, slots=True)
class Order:
    """The order of an ARIMA model: its form as numbers."""

    p: int
    d: int
    q: int
    P: int = 0
    D: int = 0
    Q: int = 0
    m: int = 1
    constant: bool = False

    def __str__(self) -> str:
        seasonal = f"({self.P},{self.D},{self.Q})[{self.m}]" if self.P or self.D or self.Q else ""
        return f"({self.p},{self.d},{self.q}){seasonal}" + (f" with {self.constant_term}" if self.constant else "")

    @classmethod
    def parse(cls, form: str) -> Order:
        """The order that `str()` gave. Raises ValueError."""
        found = _FORM.fullmatch(form)
        if not found:
            raise ValueError(f"not the form of an ARIMA model: {form!r}")
        p, d, q = (int(number) for number in found.group(1, 2, 3))
        P, D, Q, m = (int(number or default) for number, default in zip(found.group(4, 5, 6, 7), "0001", strict=True))  # noqa: N806
        return cls(p, d, q, P, D, Q, m, found[8] is not None)

    @property
    def arma(self) -> ArmaModel:
        """What is left after differencing."""
        return ArmaModel(self.p, self.q, self.P, self.Q, self.m, self.constant)

    @property
    def constant_term(self) -> str:
        return ("mean", "drift", "constant")[min(self.d + self.D, 2)]

    @property
    def lags(self) -> int:
        """Number of values that differencing uses up."""
        return self.d + self.D * self.m

    @property
    def delta(self) -> Floats:
        """Weights of past values: (1 - B)^d (1 - B^m)^D = 1 - sum_j delta[j] B^(j+1)."""
        polynomial = np.ones(1)
        for lag in (1,) * self.d + (self.m,) * self.D:
            factor = np.zeros(lag + 1)
            factor[0], factor[-1] = 1, -1
            polynomial = np.convolve(polynomial, factor)
        return -polynomial[1:]

    @property
    def starts(self) -> int:
        """Searches a series: as many as were needed to find the best optimum known on all but a few of simulated and
        journal series.
        """
        terms = self.p + self.q + self.P + self.Q
        if (self.p or self.P) and (self.q or self.Q):
            return 5 if terms == 2 and not self.P and not self.Q else 16 if terms > 3 else 8
        return 2 if terms <= 1 or (terms == 2 and (self.P or self.Q)) else 4


@cache
def terms(form: str) -> tuple[str, ...]:
    """Names of the coefficients of a form, in order: ar1, ma1, sar1, sma1, and mean, drift or constant."""
    order = Order.parse(form)
    sizes = {"ar": order.p, "ma": order.q, "sar": order.P, "sma": order.Q}
    names = [f"{name}{i + 1}" for name, size in sizes.items() for i in range(size)]
    return (*names, order.constant_term) if order.constant else tuple(names)


def fit(batch: SeriesBatch, model: ForecastModel) -> Parameters:
    """Fit the order that `model` gives; a constant is a mean without differences and left out with them, unless it says
    otherwise.
    """
    (p, d, q), (P, D, Q) = model.order, model.seasonal_order  # noqa: N806 (the field's own letters)
    constant = d + D == 0 if model.constant == "auto" else model.constant
    return fit_order(batch, Order(p, d, q, P, D, Q, model.season_length if P or D or Q else 1, constant))


def fit_order(batch: SeriesBatch, order: Order, starts: int | None = None) -> Parameters:
    """Fit one order to every series of a batch, each from `starts` points (default: as many as the order needs).

    A series that is too short for the order has status `too_short`, one whose likelihood could not be evaluated
    anywhere `fallback:naive`; both have NaN for parameters and no state. Series are finite but for NaN. Raises
    MemoryError.
    """
    starts = starts or order.starts
    observations = batch.observed
    missing = batch.values.lengths - observations
    enough = observations - order.lags > order.arma.parameters + 2  # else AICc has no value
    smooth = _interpolated(batch.values) if missing.any() else batch.values
    differenced = _difference(smooth, order)
    mean = segments.means(differenced)
    spread, level = segments.deviations(differenced, mean), segments.largest(smooth)
    still = enough & (spread <= segments.EXACT * level)
    groups = {
        "short": ~enough,
        "still": still,
        "complete": enough & ~still & (missing == 0),
        "missing": enough & ~still & (missing > 0),
    }
    rows = {name: np.flatnonzero(mask) for name, mask in groups.items()}
    scaling = _Scaling(np.where(order.constant, mean, 0.0), spread if order.constant else np.hypot(mean, spread))
    parts = [
        _unfitted(order, len(rows["short"])),
        _still(order, smooth.take(rows["still"]), mean[rows["still"]], level[rows["still"]]),
        _complete(
            order,
            differenced.take(rows["complete"]),
            smooth.take(rows["complete"]),
            scaling.take(rows["complete"]),
            starts,
        ),
        _missing(order, batch.values.take(rows["missing"]), scaling.take(rows["missing"]), starts),
    ]
    back = np.argsort(np.concatenate(list(rows.values())), kind="stable")
    return replace(Parameters.concatenate(parts).take(back), observations=observations)


@dataclass(frozen=True, slots=True)
class _Scaling:
    """How each differenced series is brought to zero mean, where a constant is estimated, and unit size."""

    center: Floats
    size: Floats

    def take(self, rows: Ints) -> _Scaling:
        return _Scaling(self.center[rows], self.size[rows])


def _complete(order: Order, differenced: Ragged, values: Ragged, scaling: _Scaling, starts: int) -> Parameters:
    lengths = differenced.lengths
    scaled = (differenced.values - np.repeat(scaling.center, lengths)) / np.repeat(scaling.size, lengths)
    longest_first = np.argsort(-lengths, kind="stable")  # series that share a vector then end together
    sorted_series = Ragged(scaled, differenced.offsets).take(longest_first)
    fitted = fit_complete(order.arma, sorted_series.values, sorted_series.offsets, starts)
    fitted = fitted.take(np.argsort(longest_first, kind="stable"))
    return _parameters(order, fitted, scaling, lengths, _last(values, order.lags))


def _missing(order: Order, values: Ragged, scaling: _Scaling, starts: int) -> Parameters:
    lengths = values.lengths
    origin = values.values[values.offsets[:-1]] if order.lags else scaling.center
    scaled = (values.values - np.repeat(origin, lengths)) / np.repeat(scaling.size, lengths)
    if order.lags and order.constant:  # differencing the line of slope `center` leaves the constant
        scaled -= _line(order, lengths) * np.repeat(scaling.center / scaling.size, lengths)
    fitted = fit_missing(order.arma, order.delta, scaled, values.offsets, starts)
    state = order.arma.state
    lags = fitted.state[:, state:] * scaling.size[:, None] + origin[:, None]
    if order.lags and order.constant:
        lags += _last(Ragged(_line(order, lengths), values.offsets), order.lags) * scaling.center[:, None]
    return _parameters(order, replace(fitted, state=fitted.state[:, :state]), scaling, fitted.observations, lags)


def _line(order: Order, lengths: Ints) -> Floats:
    """For every series, the polynomial in time that differencing turns into 1."""
    time = np.arange(lengths.sum(), dtype=np.float64) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    degree = order.d + order.D
    line: Floats = time**degree / (order.m**order.D * math.factorial(degree))
    return line


def _parameters(order: Order, fitted: ArmaFit, scaling: _Scaling, counts: Ints, last: Floats) -> Parameters:
    """The kernel's result for the scaled series as parameters of the series; `last` are the last values of y, newest
    first.
    """
    n, size = len(last), scaling.size[:, None]
    coefficients = fitted.coefficients.copy()
    if order.constant:
        coefficients[:, -1] = coefficients[:, -1] * scaling.size + scaling.center
    loglik = fitted.loglik - counts * np.log(scaling.size)
    free = order.arma.parameters + 1
    with np.errstate(divide="ignore"):
        aicc = -2 * loglik + 2 * free * counts / np.maximum(counts - free - 1, 0)
    failed = ~np.isfinite(loglik)
    coefficients[failed], aicc[failed], loglik[failed] = np.nan, np.nan, np.nan
    known = np.abs(fitted.state_cov).max(axis=1, initial=0.0) < NEGLIGIBLE
    return Parameters(
        model=np.full(n, "arima"),
        form=np.full(n, str(order)),
        status=_status(order, fitted, coefficients, failed),
        coefficients=Ragged.regular(coefficients),
        sigma2=np.where(failed, np.nan, fitted.sigma2 * scaling.size**2),
        loglik=loglik,
        aicc=aicc,
        observations=counts,
        state=segments.rows_where(~failed, np.hstack([fitted.state * size, last])),
        state_cov=segments.rows_where(~known & ~failed, fitted.state_cov),
    )


def _status(order: Order, fitted: ArmaFit, coefficients: Floats, failed: NDArray[np.bool_]) -> Strings:
    ma = coefficients[:, order.p : order.p + order.q].sum(axis=1)
    seasonal = order.p + order.q + order.P
    sma = coefficients[:, seasonal : seasonal + order.Q].sum(axis=1)
    over = ((order.d > 0) & (1 + ma < UNIT_ROOT)) | ((order.D > 0) & (1 + sma < UNIT_ROOT))
    weak = ~(fitted.uncertainty < UNCERTAIN)
    return np.select(
        [failed, over, weak], [fallback_status("naive"), Status.OVER_DIFFERENCED, Status.WEAKLY_IDENTIFIED], Status.OK
    ).astype(np.str_)


def _unfitted(order: Order, n: int) -> Parameters:
    nothing = np.full(n, np.nan)
    return Parameters(
        model=np.full(n, "arima"),
        form=np.full(n, str(order)),
        status=np.full(n, Status.TOO_SHORT.value),
        coefficients=Ragged.regular(np.full((n, order.arma.parameters), np.nan)),
        sigma2=nothing,
        loglik=nothing,
        aicc=nothing,
        observations=np.zeros(n, np.int64),
        state=Ragged.empty(n),
        state_cov=Ragged.empty(n),
    )


def _still(order: Order, values: Ragged, mean: Floats, level: Floats) -> Parameters:
    """Series that do not vary once differenced: a constant, a line, a fixed season; forecast exactly as such."""
    n = len(values)
    plain = Order(0, order.d, 0, 0, order.D, 0, order.m)
    moving = np.abs(mean) > segments.EXACT * level
    last = _last(values, order.lags)
    nothing = np.full(n, np.nan)
    return Parameters(
        model=np.full(n, "arima"),
        form=np.where(moving, str(replace(plain, constant=True)), str(plain)),
        status=np.full(n, Status.CONSTANT.value),
        coefficients=segments.rows_where(moving, mean[:, None]),
        sigma2=np.zeros(n),
        loglik=nothing,
        aicc=nothing,
        observations=values.lengths,
        state=Ragged.regular(np.hstack([np.zeros((n, 1)), last])),
        state_cov=Ragged.empty(n),
    )


def forecast(parameters: Parameters, horizon: int) -> Forecast:
    """Forecasts of `horizon` periods after the last observation, from parameters alone; NaN for series without a fit.

    The variance is that of the innovations to come and of the state's own uncertainty, as R's `predict` has it; that of
    the estimated coefficients is left out, as everywhere.
    """
    mean, se = np.full((2, len(parameters), horizon), np.nan)
    fitted = np.isfinite(parameters.sigma2)
    for form in np.unique(parameters.form[fitted]):
        rows = np.flatnonzero(fitted & (parameters.form == form))
        mean[rows], se[rows] = _forecast_form(parameters.take(rows), Order.parse(str(form)), horizon)
    return Forecast(mean, se)


def _forecast_form(parameters: Parameters, order: Order, horizon: int) -> tuple[Floats, Floats]:
    n, r, lags, delta = len(parameters), order.arma.state, order.lags, order.delta
    ar, ma, constant = _polynomials(parameters.coefficients.values.reshape(n, -1), order)
    state = parameters.state.values.reshape(n, r + lags)
    x, past = state[:, :r].copy(), state[:, r:].copy()
    response, psi_past = ar + ma, np.zeros((n, lags))
    psi_past[:, :1] = 1
    mean, variance = np.empty((n, horizon)), np.empty((n, horizon))
    total = np.ones(n)
    for h in range(horizon):
        mean[:, h] = constant + x[:, 0] + past @ delta
        x = ar * x[:, :1] + _shifted(x)
        past = np.hstack([mean[:, h : h + 1], past[:, :-1]]) if lags else past
        variance[:, h] = total
        psi = response[:, 0] + psi_past @ delta
        response = ar * response[:, :1] + _shifted(response)
        psi_past = np.hstack([psi[:, None], psi_past[:, :-1]]) if lags else psi_past
        total = total + psi**2
    doubtful = np.flatnonzero(parameters.state_cov.lengths)
    if len(doubtful):
        variance[doubtful] += _state_variance(parameters.state_cov.take(doubtful), ar[doubtful], delta, r, horizon)
    return mean, np.sqrt(variance * parameters.sigma2[:, None])


def _state_variance(covariances: Ragged, ar: Floats, delta: Floats, r: int, horizon: int) -> Floats:
    """What the uncertainty of the state adds to the variance of each period's forecast, in units of sigma^2."""
    n, size, lags = len(covariances), r + len(delta), len(delta)
    covariance = np.zeros((n, size, size))
    for width in {r, size}:
        rows = np.flatnonzero(covariances.lengths == width * (width + 1) // 2)
        lower, other = np.tril_indices(width)
        triangle = covariances.take(rows).values.reshape(len(rows), len(lower))
        covariance[rows[:, None], lower, other] = covariance[rows[:, None], other, lower] = triangle
    row = np.zeros((n, size))  # how the forecast of the present h depends on the state
    row[:, 0], row[:, r:] = 1, delta
    added = np.empty((n, horizon))
    for h in range(horizon):
        added[:, h] = np.einsum("ni,nij,nj->n", row, covariance, row)
        first = (row[:, :r] * ar).sum(axis=1)
        newest = row[:, r : r + 1] if lags else np.zeros((n, 1))
        x = np.hstack([first[:, None] + newest, row[:, : r - 1]])
        past = np.hstack([row[:, r + 1 :], np.zeros((n, 1))]) + newest * delta if lags else row[:, r:]
        row = np.hstack([x, past])
    return np.maximum(added, 0)


def _polynomials(coefficients: Floats, order: Order) -> tuple[Floats, Floats, Floats]:
    """Coefficients (n, k) -> the expanded AR and MA polynomials (n, r), padded with zeros, and the constant (n)."""
    n, r = len(coefficients), order.arma.state
    ar, ma = np.zeros((n, r)), np.zeros((n, r))
    cuts = np.cumsum((order.p, order.q, order.P, order.Q))
    one, two, three, four, rest = np.split(coefficients, cuts, axis=1)
    for out, plain, seasonal, sign in ((ar, one, three, -1), (ma, two, four, 1)):
        out[:, : plain.shape[1]] += plain
        for j in range(seasonal.shape[1]):
            lag = (j + 1) * order.m
            out[:, lag - 1] += seasonal[:, j]
            out[:, lag : lag + plain.shape[1]] += sign * seasonal[:, j : j + 1] * plain
    return ar, ma, rest[:, 0] if order.constant else np.zeros(n)


def _shifted(table: Floats) -> Floats:
    return np.hstack([table[:, 1:], np.zeros((len(table), 1))])


def _difference(series: Ragged, order: Order) -> Ragged:
    for lag in (1,) * order.d + (order.m,) * order.D:
        lengths = np.maximum(series.lengths - lag, 0)
        later = np.flatnonzero(segments.positions(series) >= lag)
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        series = Ragged(series.values[later] - series.values[later - lag], offsets)
    return series


def _interpolated(series: Ragged) -> Ragged:
    """NaN replaced by the line between neighbours: what scales and moments are taken of, never the likelihood."""
    seen = np.flatnonzero(~np.isnan(series.values))
    if not len(seen):
        return series
    return Ragged(np.interp(np.arange(len(series.values)), seen, series.values[seen]), series.offsets)


def _last(series: Ragged, lags: int) -> Floats:
    """The last `lags` values of every series, newest first."""
    return (
        series.values[(series.offsets[1:, None] - 1 - np.arange(lags)).clip(0)] if lags else np.empty((len(series), 0))
    )
