"""Aggregates of rows by key as they stream in, the same whatever their order (sums.c says how)."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_double, c_int32, c_int64, c_void_p
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.kernel import library

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class How(IntEnum):
    """What the rows of one key become. The numbers are those of sums.c."""

    SUM = 0
    """Their exact sum, rounded once."""
    MEAN = 1
    """That, divided by their number."""
    COUNT = 2
    MIN = 3
    MAX = 4
    LAST = 5
    """The value with the latest time, the largest of several."""


class Aggregator:
    """Combines rows of equal keys as they come, so that memory follows the number of keys.

    Not for several threads at once; the interpreter is released while it computes. All methods may raise MemoryError.
    """

    def __init__(self, how: How) -> None:
        self._how = how
        self._run = _Entries(how)
        self._pending: list[_Entries] = []

    def add(self, key: Ints, value: Floats | None, extra: Ints | None = None) -> None:
        """Add rows, fewer than 2**32 at a time. The arrays are the aggregator's own from then on.

        `key` is not negative. `value` is never NaN, and None for COUNT. `extra` is 1 a row for MEAN and COUNT (0 where
        a row is a further part of another's value), the row's time for LAST, and None for the others. Rows may be
        another aggregator's `entries`, too.
        """
        rows = _Entries(self._how, key, value, extra)
        rows.reduce()
        self._pending.append(rows)
        # Rewriting all that there is for every few rows would cost more than all the rest.
        if 4 * sum(map(len, self._pending)) > len(self._run):
            self._combine()

    def rekey(self, change: Callable[[Ints], Ints]) -> None:
        """Replace every key by `change(keys)`, which keeps their order but may make some equal."""
        self._combine()
        self._run = self._run.with_key(change)
        self._run.reduce()

    def keys(self) -> Ints:
        """The keys so far, sorted; a key may be there several times. Good until rows are added."""
        self._combine()
        return self._run.key

    def entries(self) -> tuple[Ints, Floats | None, Ints | None]:
        """What there is so far, exactly: keys, sorted, with values and extras as `add` of another aggregator takes
        them. Good until rows are added."""
        self._combine()
        return self._run.columns

    def finish(self, unit: float = 1.0) -> tuple[Ints, Floats]:
        """The different keys, sorted, and their aggregates. The aggregator is empty afterwards.

        Sums and means are divided by `unit` before they are rounded.
        """
        self._combine()
        run, self._run = self._run, _Entries(self._how)
        return run.round(unit)

    def _combine(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        rows = pending.pop()
        for other in pending:
            rows.append(other)
        if pending:
            rows.reduce()
        self._run.absorb(rows)


class _Entries:
    """The arrays of sums.c."""

    def __init__(
        self, how: How, key: Ints | None = None, value: Floats | None = None, extra: Ints | None = None
    ) -> None:
        counted = how in (How.MEAN, How.COUNT, How.LAST)
        self._how = how
        self._key: Ints = _owned(key, np.int64)
        self._value: Floats | None = None if how is How.COUNT else _owned(value, np.float64)
        self._extra: Ints | None = _owned(extra, np.int64) if counted else None

    def __len__(self) -> int:
        return len(self._key)

    def with_key(self, change: Callable[[Ints], Ints]) -> _Entries:
        return _Entries(self._how, change(self._key), self._value, self._extra)

    @property
    def key(self) -> Ints:
        return self._key

    @property
    def columns(self) -> tuple[Ints, Floats | None, Ints | None]:
        return self._key, self._value, self._extra

    def reduce(self) -> None:
        """Sort by key and combine equal ones."""
        self._cut("sums_reduce", len(self))

    def append(self, other: _Entries) -> None:
        """Take in `other` at the end."""
        before = len(self)
        self._resize(before + len(other))
        for mine, theirs in zip(self.columns, other.columns, strict=True):
            if mine is not None and theirs is not None:
                mine[before:] = theirs

    def absorb(self, other: _Entries) -> None:
        """Take in `other` in order; both are reduced."""
        before = len(self)
        self.append(other)
        self._cut("sums_merge", before, len(other))

    def round(self, unit: float) -> tuple[Ints, Floats]:
        """The keys, and the aggregate of each."""
        if self._how in (How.SUM, How.MEAN):
            self._cut("sums_round", len(self), unit=unit)
        return self._key, np.asarray(self._extra, np.float64) if self._value is None else self._value

    def _cut(self, name: str, *lengths: int, unit: float | None = None) -> None:
        """Call a function of sums.c, which returns how many entries are left."""
        work = library()[name]
        work.restype = c_int64
        addresses = [c_void_p(None if column is None else column.ctypes.data) for column in self.columns]
        units = () if unit is None else (c_double(unit),)
        left = work(c_int32(self._how), *units, *map(c_int64, lengths), *addresses)
        if left < 0:
            raise MemoryError(f"no memory to sort {sum(lengths)} rows")
        self._resize(left)

    def _resize(self, length: int) -> None:
        for column in self.columns:
            if column is not None:
                column.resize(length, refcheck=False)  # where it is, if the system can: no second copy of all there is


def _owned(column: NDArray[Any] | None, kind: type[np.generic]) -> NDArray[Any]:
    """An array that may be changed and resized."""
    return np.empty(0, kind) if column is None else np.require(column, kind, ["C", "W", "O"])
