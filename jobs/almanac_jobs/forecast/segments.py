"""Sums, moments and neighbours within each list of a `Ragged`, without a loop over lists.

Whatever is computed of one list depends on that list alone, to the last bit: the same series gives the same bytes in
any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.forecast.types import Floats, Ints, Parameters, Ragged

Mask = NDArray[np.bool_]

EXACT = 1e-14
"""Errors of this size, relative to the values, are rounding: a model that leaves no more describes a series exactly."""


def owners(series: Ragged) -> Ints:
    """For each value the number of its list."""
    return np.repeat(np.arange(len(series)), series.lengths)


def positions(series: Ragged) -> Ints:
    """For each value its position within its list."""
    return np.arange(len(series.values)) - np.repeat(series.offsets[:-1], series.lengths)


def sums(values: Floats, owner: Ints, n: int) -> Floats:
    """Sums of `values` by their `owner` in 0 .. n - 1."""
    return np.bincount(owner, values, minlength=n)


def counts(mask: Mask, series: Ragged) -> Ints:
    """The number of values of each list at which `mask` is true."""
    return np.diff(np.concatenate(([0], np.cumsum(mask)))[series.offsets])


def largest(series: Ragged) -> Floats:
    """The largest absolute value of each list; 0 where there is none. NaN does not count."""
    result = np.zeros(len(series))
    np.fmax.at(result, owners(series), np.abs(series.values))
    return result


def means(series: Ragged) -> Floats:
    """The mean of each list's values that are not NaN; NaN where there is none. Accurate at any distance from zero."""
    present = ~np.isnan(series.values)
    values, owner, n = series.values[present], owners(series)[present], counts(present, series)
    first = np.zeros(len(series))
    first[owner[::-1]] = values[::-1]
    with np.errstate(invalid="ignore"):
        return first + sums(values - first[owner], owner, len(series)) / n


def deviations(series: Ragged, center: Floats) -> Floats:
    """The root mean square distance of each list's values from its `center`; NaN where there is no value."""
    values = series.values - np.repeat(center, series.lengths)
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.sqrt(sums(values[present] ** 2, owners(series)[present], len(series)) / counts(present, series))


@dataclass(frozen=True, slots=True)
class Scaled:
    """Series brought to size 1: (values - shift) / size. Sizes are powers of two, so that no digit is lost.

    A series that does not differ from `shift`, or by more than a double holds, has size 0 and no scaled values (NaN).
    """

    series: Ragged
    shift: Floats
    size: Floats

    @classmethod
    def of(cls, series: Ragged, shift: Floats) -> Scaled:
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.exp2(np.round(np.log2(deviations(series, shift))))
            size[np.isinf(size)] = 0
            values = (series.values - np.repeat(shift, series.lengths)) / np.repeat(size, series.lengths)
        return cls(Ragged(values, series.offsets), shift, size)

    def take(self, rows: Ints) -> Scaled:
        return Scaled(self.series.take(rows), self.shift[rows], self.size[rows])


def back_to_observed(values: Floats, index: Ints, first: Ints, step: int) -> Ints:
    """Each index, moved back by multiples of `step` to where `values` is not NaN; -1 where that is before `first`."""
    index = np.where(index >= first, index, -1)
    while True:
        left = np.flatnonzero(index >= 0)
        missing = left[np.isnan(values[index[left]])]
        if not len(missing):
            return index
        moved = index[missing] - step
        index[missing] = np.where(moved >= first[missing], moved, -1)


def earlier(series: Ragged, step: int) -> tuple[Ints, Ints]:
    """Each observed value with the last observed one a multiple of `step` before it, as indices (later, earlier)."""
    later = np.flatnonzero(~np.isnan(series.values))
    first = np.repeat(series.offsets[:-1], series.lengths)[later]
    before = back_to_observed(series.values, later - step, first, step)
    return later[before >= 0], before[before >= 0]


def window_sums(values: Floats, width: int) -> Floats:
    """At each position the sum of the `width` values from it on; past the end, values count as zero.

    Sums are built by doubling, of a window's own values only.
    """
    result, run, size, done = np.zeros_like(values), values, 1, 0
    while done < width:
        if width & size:
            result[: max(len(values) - done, 0)] += run[done:]
            done += size
        run = run + np.append(run[size:], np.zeros(min(size, len(values))))
        size *= 2
    return result


def rows_where(mask: Mask, table: Floats) -> Ragged:
    """The rows of a 2-D array at which `mask` is true, as lists; the others are empty."""
    lengths = np.where(mask, table.shape[1], 0)
    return Ragged(table[mask].reshape(-1), np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))


def merge(parts: Sequence[tuple[Ints, Parameters]]) -> Parameters:
    """Parameters of some rows of a batch each, as those of the whole batch."""
    rows = np.concatenate([rows for rows, _ in parts])
    return Parameters.concatenate([fitted for _, fitted in parts]).take(np.argsort(rows, kind="stable"))


def blocks(widths: Ints, cells: int = 2**22) -> list[Ints]:
    """Rows in groups of equal width, none of more than `cells` cells where more than one row is in it."""
    order = np.argsort(widths, kind="stable")
    groups: list[Ints] = []
    for rows in np.split(order, np.flatnonzero(np.diff(widths[order])) + 1):
        if len(rows):
            size = max(1, cells // max(int(widths[rows[0]]), 1))
            groups += [rows[start : start + size] for start in range(0, len(rows), size)]
    return groups
