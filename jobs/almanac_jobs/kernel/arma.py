"""The compiled ARMA kernel (arma.h says what it computes) as functions of arrays."""

from __future__ import annotations

from ctypes import Structure, byref, c_int32, c_int64, c_void_p
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.kernel import library

MAX_FACTOR = 5
"""Highest order of each of the four polynomials."""
MAX_PARAMETERS = 15


class _Model(Structure):
    _fields_ = tuple((name, c_int32) for name in ("p", "q", "P", "Q", "m", "constant"))


_FIT = np.dtype(
    [
        ("objective", np.float64),
        ("decrement", np.float64),
        ("uncertainty", np.float64),
        ("u", np.float64, MAX_PARAMETERS),
        ("evaluations", np.int32),
        ("converged", np.int32),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class ArmaModel:
    """A seasonal ARMA(p,q)(P,Q)[m], with a mean to be estimated if `constant`."""

    p: int
    q: int
    P: int = 0
    Q: int = 0
    m: int = 1
    constant: bool = False

    @property
    def parameters(self) -> int:
        """Number of free parameters, the variance not counted."""
        return self.p + self.q + self.P + self.Q + self.constant

    @property
    def state(self) -> int:
        """Length of the filter's state."""
        return max(self.p + self.P * self.m, self.q + self.Q * self.m, 1)


@dataclass(frozen=True, slots=True)
class ArmaFit:
    """Fits of n series, one entry a series.

    `coefficients` (n, k) are ar, ma, seasonal ar, seasonal ma, mean. `observations` are those that the likelihood
    counts. `loglik` is the exact Gaussian log-likelihood of the series as given. `state` (n, r) and `state_cov` (n,
    r(r+1)/2: lower triangle by rows, in units of `sigma2`) are the filter's prediction for the time after the last
    value. `uncertainty` is the largest standard error along any direction of the partial autocorrelations, `ma_edge`
    the largest moving-average partial autocorrelation in absolute value: 1 is the border of invertibility.
    """

    coefficients: NDArray[np.float64]
    observations: NDArray[np.int64]
    sigma2: NDArray[np.float64]
    loglik: NDArray[np.float64]
    state: NDArray[np.float64]
    state_cov: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    ma_edge: NDArray[np.float64]
    converged: NDArray[np.bool_]
    evaluations: NDArray[np.int32]

    def take(self, rows: NDArray[np.int64]) -> ArmaFit:
        """The fits of the series at `rows`, in that order."""
        return ArmaFit(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def fit_complete(model: ArmaModel, values: NDArray[np.float64], offsets: NDArray[np.int64], starts: int) -> ArmaFit:
    """Maximise the exact likelihood of complete, finite, non-constant series; `values[offsets[i]:offsets[i + 1]]` is
    series i.

    `starts` searches a series begin at its own moment estimate and at fixed points; the best end counts. Raises
    MemoryError.
    """
    n = len(offsets) - 1
    values, offsets = np.ascontiguousarray(values, np.float64), np.ascontiguousarray(offsets, np.int64)
    fits = np.zeros(n, _FIT)
    sigma2, state = np.empty(n), np.empty((n, model.state))
    state_cov = np.empty((n, model.state * (model.state + 1) // 2))
    series = (_struct(model), c_int64(n), _address(values), _address(offsets))
    done = library().arma_complete(*series, c_int32(starts), _address(fits)) and library().arma_finish(
        *series, _address(fits), _address(sigma2), _address(state), _address(state_cov)
    )
    if not done:
        raise _out_of_memory(model, offsets)
    return _result(model, fits, np.diff(offsets), sigma2, state, state_cov)


def fit_missing(
    model: ArmaModel, delta: NDArray[np.float64], values: NDArray[np.float64], offsets: NDArray[np.int64], starts: int
) -> ArmaFit:
    """As `fit_complete`, for undifferenced series with missing values (NaN) inside.

    `delta` are the weights of past values in y_t = w_t + sum_j delta[j] y_{t-1-j}, where w is the ARMA process; its
    length is the number of first values that the likelihood takes as given. A missing one among these has a flat prior.
    Every series must have more observations than these and begin and end with one. `state` is followed by the last
    len(delta) values of y, newest first, in `state` and `state_cov` alike. Raises MemoryError.
    """
    n, lags = len(offsets) - 1, len(delta)
    values, offsets = np.array(values, np.float64), np.ascontiguousarray(offsets, np.int64)
    delta = np.ascontiguousarray(delta, np.float64)
    first = offsets[:-1, None] + np.arange(lags)
    unknown = np.isnan(values[first]).astype(np.uint8)
    for i in np.flatnonzero(unknown.any(axis=1)):  # the middle of the flat prior, for the sake of rounding only
        series = values[offsets[i] : offsets[i + 1]]
        seen = np.flatnonzero(~np.isnan(series))
        values[first[i]] = np.interp(np.arange(lags), seen, series[seen])
    fits, counts = np.zeros(n, _FIT), np.empty(n, np.int64)
    size = model.state + lags
    sigma2, state, state_cov = np.empty(n), np.empty((n, size)), np.empty((n, size * (size + 1) // 2))
    inputs = (_struct(model), c_int32(lags), _address(delta), c_int64(n), _address(values), _address(offsets))
    results = map(_address, (fits, sigma2, counts, state, state_cov))
    done = library().arma_missing(*inputs, _address(unknown), c_int32(starts), *results)
    if not done:
        raise _out_of_memory(model, offsets)
    return _result(model, fits, counts, sigma2, state, state_cov)


def _result(
    model: ArmaModel,
    fits: NDArray[np.void],
    counts: NDArray[np.int64],
    sigma2: NDArray[np.float64],
    state: NDArray[np.float64],
    state_cov: NDArray[np.float64],
) -> ArmaFit:
    return ArmaFit(
        coefficients=_coefficients(model, fits),
        observations=counts,
        sigma2=sigma2,
        loglik=-counts * (fits["objective"] + 0.5 * (1 + np.log(2 * np.pi))),
        state=state,
        state_cov=state_cov,
        uncertainty=fits["uncertainty"],
        ma_edge=_ma_edge(model, fits["u"]),
        converged=fits["converged"] == 1,
        evaluations=fits["evaluations"],
    )


def _out_of_memory(model: ArmaModel, offsets: NDArray[np.int64]) -> MemoryError:
    return MemoryError(
        f"no memory to fit {model} to {len(offsets) - 1} series of up to {np.diff(offsets).max()} values"
    )


def _coefficients(model: ArmaModel, fits: NDArray[np.void]) -> NDArray[np.float64]:
    out = np.empty((len(fits), model.parameters))
    library().arma_coefficients(_struct(model), c_int64(len(fits)), _address(fits), _address(out))
    return out


def _ma_edge(model: ArmaModel, u: NDArray[np.float64]) -> NDArray[np.float64]:
    seasonal = model.p + model.q + model.P
    columns = [*range(model.p, model.p + model.q), *range(seasonal, seasonal + model.Q)]
    return np.abs(u[:, columns]).max(axis=1, initial=0.0)


def _struct(model: ArmaModel) -> Any:
    return byref(_Model(model.p, model.q, model.P, model.Q, model.m, int(model.constant)))


def _address(array: NDArray[np.generic]) -> c_void_p:
    return c_void_p(array.ctypes.data)
