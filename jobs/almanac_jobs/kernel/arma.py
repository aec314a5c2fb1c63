"""The compiled ARMA kernel (arma.h says what it computes) as functions of arrays."""

from __future__ import annotations

from ctypes import Structure, byref, c_int32, c_int64, c_void_p
from dataclasses import dataclass

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

    `coefficients` (n, k) are ar, ma, seasonal ar, seasonal ma, mean. `loglik` is the exact Gaussian log-likelihood of the series as
    given. `state` (n, r) and `state_cov` (n, r(r+1)/2: lower triangle by rows, in units of `sigma2`) are the filter's prediction for
    the time after the last value. `uncertainty` is the largest standard error along any direction of the partial autocorrelations,
    `ma_edge` the largest moving-average partial autocorrelation in absolute value: 1 is the border of invertibility.
    """

    coefficients: NDArray[np.float64]
    sigma2: NDArray[np.float64]
    loglik: NDArray[np.float64]
    state: NDArray[np.float64]
    state_cov: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    ma_edge: NDArray[np.float64]
    converged: NDArray[np.bool_]
    evaluations: NDArray[np.int32]


def fit_complete(model: ArmaModel, values: NDArray[np.float64], offsets: NDArray[np.int64], starts: int) -> ArmaFit:
    """Maximise the exact likelihood of complete, finite, non-constant series; `values[offsets[i]:offsets[i + 1]]` is series i.

    `starts` searches a series begin at its own moment estimate and at fixed points; the best end counts. Raises MemoryError.
    """
    n = len(offsets) - 1
    values, offsets = np.ascontiguousarray(values, np.float64), np.ascontiguousarray(offsets, np.int64)
    fits = np.zeros(n, _FIT)
    sigma2, state = np.empty(n), np.empty((n, model.state))
    state_cov = np.empty((n, model.state * (model.state + 1) // 2))
    struct = byref(_Model(model.p, model.q, model.P, model.Q, model.m, int(model.constant)))
    series = (struct, c_int64(n), _address(values), _address(offsets))
    done = library().arma_fit_complete(*series, c_int32(starts), _address(fits)) and library().arma_finish(
        *series, _address(fits), _address(sigma2), _address(state), _address(state_cov)
    )
    if not done:
        raise MemoryError(f"no memory to fit {model} to {n} series of up to {np.diff(offsets).max()} values")
    lengths = np.diff(offsets)
    return ArmaFit(
        coefficients=_coefficients(model, fits),
        sigma2=sigma2,
        loglik=-lengths * (fits["objective"] + 0.5 * (1 + np.log(2 * np.pi))),
        state=state,
        state_cov=state_cov,
        uncertainty=fits["uncertainty"],
        ma_edge=_ma_edge(model, fits["u"]),
        converged=fits["converged"] == 1,
        evaluations=fits["evaluations"],
    )


def _coefficients(model: ArmaModel, fits: NDArray[np.void]) -> NDArray[np.float64]:
    out = np.empty((len(fits), model.parameters))
    struct = byref(_Model(model.p, model.q, model.P, model.Q, model.m, int(model.constant)))
    library().arma_coefficients(struct, c_int64(len(fits)), _address(fits), _address(out))
    return out


def _ma_edge(model: ArmaModel, u: NDArray[np.float64]) -> NDArray[np.float64]:
    seasonal = model.p + model.q + model.P
    columns = [*range(model.p, model.p + model.q), *range(seasonal, seasonal + model.Q)]
    return np.abs(u[:, columns]).max(axis=1, initial=0.0)


def _address(array: NDArray[np.generic]) -> c_void_p:
    return c_void_p(array.ctypes.data)
