"""The compiled ETS kernel (ets.h says what it computes) as functions of arrays."""

from __future__ import annotations

from ctypes import Structure, byref, c_int32, c_int64, c_void_p
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.kernel import library


class _Model(Structure):
    _fields_ = tuple((name, c_int32) for name in ("multiplicative", "trend", "season", "m"))


_FIT = np.dtype(
    [(name, np.float64) for name in ("objective", "decrement", "squares", "alpha", "beta", "gamma", "phi")]
    + [(name, np.int32) for name in ("evaluations", "converged")],
    align=True,
)


@dataclass(frozen=True, slots=True)
class EtsModel:
    """An ETS model by its letters: error A or M, trend N, A or Ad, season N, A or M of `m` periods.

    M trends and M seasons with A errors are no models of this kernel.
    """

    error: str
    trend: str
    season: str
    m: int = 1

    def __str__(self) -> str:
        return f"({self.error},{self.trend},{self.season})" + (f"[{self.m}]" if self.season != "N" else "")

    @property
    def smoothing(self) -> tuple[str, ...]:
        """The smoothing parameters that the model has."""
        has = {"alpha": True, "beta": self.trend != "N", "gamma": self.season != "N", "phi": self.trend == "Ad"}
        return tuple(name for name, present in has.items() if present)

    @property
    def states(self) -> int:
        """Number of states: level, growth, and m seasonal terms."""
        return 1 + (self.trend != "N") + (self.m if self.season != "N" else 0)

    @property
    def parameters(self) -> int:
        """Number of free parameters, the variance not counted: the seasonal terms' sum is given."""
        return len(self.smoothing) + self.states - (self.season != "N")


@dataclass(frozen=True, slots=True)
class EtsFit:
    """Fits of n series, one entry a series.

    `smoothing` (n, k) are the model's smoothing parameters, `state` (n, states) is level, growth and seasonal terms,
    the next period's first, after the last value. `squares` is the sum of squared errors, relative ones where these
    multiply. `loglik` is the Gaussian log-likelihood at the variance squares / length, -inf where there is no fit.
    """

    smoothing: NDArray[np.float64]
    state: NDArray[np.float64]
    squares: NDArray[np.float64]
    loglik: NDArray[np.float64]
    decrement: NDArray[np.float64]
    converged: NDArray[np.bool_]
    evaluations: NDArray[np.int32]


def fit_complete(model: EtsModel, values: NDArray[np.float64], offsets: NDArray[np.int64]) -> EtsFit:
    """Maximise the likelihood of complete, finite series over smoothing parameters and initial states.

    `values[offsets[i]:offsets[i + 1]]` is series i, scaled to a size of about 1, and positive where something
    multiplies. Raises MemoryError.
    """
    n, lengths = len(offsets) - 1, np.diff(offsets)
    values, offsets = np.ascontiguousarray(values, np.float64), np.ascontiguousarray(offsets, np.int64)
    fits, state = np.zeros(n, _FIT), np.empty((n, model.states))
    struct = _Model(model.error == "M", ("N", "A", "Ad").index(model.trend), "NAM".index(model.season), model.m)
    arguments = (_address(values), _address(offsets), _address(fits), _address(state))
    if not library().ets_fit_complete(byref(struct), c_int64(n), *arguments):
        raise MemoryError(f"no memory to fit ETS{model}")
    return EtsFit(
        smoothing=np.column_stack([fits[name] for name in model.smoothing]),
        state=state,
        squares=fits["squares"],
        loglik=-0.5 * lengths * (fits["objective"] + 1 + np.log(2 * np.pi)),
        decrement=fits["decrement"],
        converged=fits["converged"] == 1,
        evaluations=fits["evaluations"],
    )


def _address(array: NDArray[np.generic]) -> c_void_p:
    return c_void_p(array.ctypes.data)
