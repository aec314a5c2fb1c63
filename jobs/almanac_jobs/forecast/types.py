"""What forecasting models take and give: batches of series in, parameters and forecasts out, as arrays of one entry a
series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from statistics import NormalDist
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Strings = NDArray[np.str_]


class Status(StrEnum):
    """How the fit of one entity ended. A fallback is written `fallback:<model>`, see `fallback_status`."""

    OK = "ok"
    WEAKLY_IDENTIFIED = "weakly_identified"
    """The likelihood hardly depends on some direction of the parameters (phi close to -theta): read forecasts, not
    coefficients.
    """
    OVER_DIFFERENCED = "over_differenced"
    """A moving-average root is on the unit circle: one difference less would describe the series better."""
    TOO_SHORT = "too_short"
    """Fewer observations than `minObservations` or than the model needs: the last value is carried forward, without an
    interval.
    """
    CONSTANT = "constant"
    """No variation is left after differencing: the forecast is exact and its interval has no width."""
    NOT_FINITE = "not_finite"
    """The series holds an infinite value: nothing is forecast."""
    EMPTY = "empty"
    """The series holds no observation: nothing is forecast."""


FAILED = frozenset({Status.NOT_FINITE, Status.EMPTY})
"""Statuses of entities that have no forecast."""
MODELLED = frozenset({Status.OK, Status.WEAKLY_IDENTIFIED, Status.OVER_DIFFERENCED, Status.CONSTANT})
"""Statuses of entities that the job's model forecasts; something simpler forecasts the others."""


def fallback_status(model: str) -> str:
    """The status of an entity whose model could not be fitted and that `model` forecasts instead."""
    return f"fallback:{model}"


@dataclass(frozen=True, slots=True)
class Ragged:
    """Lists of floats of different lengths, end to end: list i is `values[offsets[i]:offsets[i + 1]]`, as Arrow keeps
    them.
    """

    values: Floats
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Floats:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    def take(self, rows: Ints) -> Ragged:
        """The lists at `rows`, in that order."""
        return self.cut(rows, np.zeros(len(rows), np.int64), self.lengths[rows])

    def cut(self, rows: Ints, start: Ints, length: Ints) -> Ragged:
        """Of each list at `rows`, the `length` values from position `start` on; all three have one entry a row."""
        offsets = np.concatenate(([0], np.cumsum(length)))
        index = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] + start - offsets[:-1], length)
        return Ragged(self.values[index], offsets)

    @classmethod
    def of(cls, lists: Sequence[Sequence[float] | Floats]) -> Ragged:
        offsets = np.concatenate(([0], np.cumsum([len(one) for one in lists]))).astype(np.int64)
        values = np.concatenate([np.asarray(one, np.float64) for one in lists]) if lists else np.empty(0)
        return cls(values, offsets)

    @classmethod
    def empty(cls, n: int) -> Ragged:
        """`n` empty lists."""
        return cls(np.empty(0), np.zeros(n + 1, np.int64))

    @classmethod
    def regular(cls, table: Floats) -> Ragged:
        """The rows of a 2-D array as lists of one length."""
        n, width = table.shape
        return cls(np.ascontiguousarray(table).reshape(-1), np.arange(n + 1, dtype=np.int64) * width)

    @classmethod
    def concatenate(cls, parts: Sequence[Ragged]) -> Ragged:
        lengths = np.concatenate([part.lengths for part in parts]) if parts else np.empty(0, np.int64)
        values = (
            np.concatenate([part.values[part.offsets[0] : part.offsets[-1]] for part in parts])
            if parts
            else np.empty(0)
        )
        return cls(values, np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))


@dataclass(frozen=True, slots=True)
class SeriesBatch:
    """Series on a regular grid of periods, one value a period, NaN where nothing was observed.

    `values` are lists of one series each; `end` is the period number of each series' last value (see
    `calendar.Frequency`). A series neither starts nor ends with NaN, and may be empty.
    """

    values: Ragged
    end: Ints

    def __len__(self) -> int:
        return len(self.values)

    @property
    def observed(self) -> Ints:
        """The number of values of each series that are not missing."""
        return np.diff(np.concatenate(([0], np.cumsum(~np.isnan(self.values.values))))[self.values.offsets])

    def take(self, rows: Ints) -> SeriesBatch:
        return SeriesBatch(self.values.take(rows), self.end[rows])

    def tail(self, periods: int) -> SeriesBatch:
        """The last `periods` periods of each series; fewer where it is shorter or would start with a missing value."""
        values, first, last = self.values.values, self.values.offsets[:-1], self.values.offsets[1:]
        present = np.where(np.isnan(values), len(values), np.arange(len(values)))
        next_present = np.append(np.minimum.accumulate(present[::-1])[::-1], len(values))
        start = np.minimum(next_present[np.maximum(first, last - periods)], last)
        return SeriesBatch(self.values.cut(np.arange(len(self)), start - first, last - start), self.end)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Fitted models, one entry a series: all that is needed to forecast further, and nothing of the data.

    `model` is the family that was fitted in the end (`arima`, `ets`, `naive` ...), `form` its order or shape in the
    field's notation (`(1,1,1)`, `(0,1,1)(0,1,1)[12]`, `(A,N,A)[7]`), empty where the family has only one.
    `coefficients` are named by the family's `terms(form)`. `state` and `state_cov` are the family's own filter state
    after the last observation, `state_cov` in units of `sigma2` and empty where it is zero. `sigma2`, `loglik` and
    `aicc` are NaN where the family has none. `observations` counts values that are not missing.
    """

    model: Strings
    form: Strings
    status: Strings
    coefficients: Ragged
    sigma2: Floats
    loglik: Floats
    aicc: Floats
    observations: Ints
    state: Ragged
    state_cov: Ragged

    def __len__(self) -> int:
        return len(self.model)

    def take(self, rows: Ints) -> Parameters:
        """The parameters of the series at `rows`, in that order."""
        columns: dict[str, Any] = {name: _take(getattr(self, name), rows) for name in _PARAMETER_FIELDS}
        return Parameters(**columns)

    def with_status(self, status: Strings) -> Self:
        return replace(self, status=status)

    @classmethod
    def concatenate(cls, parts: Sequence[Parameters]) -> Parameters:
        """The parameters of all series of `parts`, one part after the other."""
        columns: dict[str, Any] = {
            name: _concatenate([getattr(part, name) for part in parts]) for name in _PARAMETER_FIELDS
        }
        return cls(**columns)


_PARAMETER_FIELDS = tuple(field.name for field in fields(Parameters))


def _take(column: NDArray[np.generic] | Ragged, rows: Ints) -> NDArray[np.generic] | Ragged:
    return column.take(rows) if isinstance(column, Ragged) else column[rows]


def _concatenate(columns: Sequence[NDArray[np.generic] | Ragged]) -> NDArray[np.generic] | Ragged:
    if isinstance(columns[0], Ragged):
        return Ragged.concatenate(columns)  # type: ignore[arg-type]
    return np.concatenate(columns)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecasts of a batch: `mean` and standard error `se`, both (series, horizon); NaN where there is none.

    The forecast distribution is normal: the interval at level L is `mean -+ z((1 + L/100) / 2) * se`. `se` is NaN where
    the model gives no interval.
    """

    mean: Floats
    se: Floats

    def interval(self, level: float, floor: float | None = None) -> tuple[Floats, Floats]:
        """Lower and upper bounds of the prediction interval at `level` percent, none of them below `floor`."""
        width = NormalDist().inv_cdf((1 + level / 100) / 2) * self.se
        lower, upper = self.mean - width, self.mean + width
        return (lower, upper) if floor is None else (np.maximum(lower, floor), np.maximum(upper, floor))
