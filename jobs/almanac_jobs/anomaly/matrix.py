"""Rows of features where they lie: in memory, or in parts on a disk, for data that memory does not hold.

Both give XGBoost the same numbers in the same order, and so the same model, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from almanac_jobs.anomaly.features import Floats32

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

PART_ROWS = 131_072
"""Rows that are worked on at a time."""


class Matrix(Protocol):
    """Rows of features, in parts."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def external(self) -> bool:
        """Whether XGBoost is to keep what it makes of them on the disk, too."""

    def parts(self) -> Iterator[Floats32]:
        """All rows in order, some at a time."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A matrix in memory."""

    values: Floats32

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def external(self) -> bool:
        return False

    def parts(self) -> Iterator[Floats32]:
        for start in range(0, max(len(self.values), 1), PART_ROWS):
            yield self.values[start : start + PART_ROWS]


@dataclass(slots=True)
class Spooled:
    """A matrix in files of `folder`, which is there for it alone; memory holds one part."""

    folder: Path
    _sizes: list[int]

    @classmethod
    def of(cls, folder: Path, parts: Iterator[Floats32]) -> Spooled:
        """Write parts as they come."""
        made = cls(folder, [])
        for part in parts:
            np.save(folder / f"{len(made._sizes)}.npy", part)
            made._sizes.append(len(part))
        return made

    @property
    def rows(self) -> int:
        return sum(self._sizes)

    @property
    def external(self) -> bool:
        return True

    def parts(self) -> Iterator[Floats32]:
        for at in range(len(self._sizes)):
            yield np.load(self.folder / f"{at}.npy")


def take(matrix: Matrix, rows: Ints) -> Floats32:
    """Some rows, whose numbers ascend, in memory."""
    found: list[Floats32] = []
    start = 0
    for part in matrix.parts():
        first, last = np.searchsorted(rows, (start, start + len(part)))
        found.append(part[rows[first:last] - start])
        start += len(part)
    return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a model learns from: rows of a matrix (None: all), some of its columns (None: all), what they come to."""

    matrix: Matrix
    names: Sequence[str]
    target: Floats
    rows: Flags | None = None
    columns: Ints | None = None


def quantized(selection: Selection, threads: int, bins: int, cache: Path | None = None, reference: Any = None) -> Any:
    """The selection as XGBoost trains on it: cut into bins, without a copy of the values in between.

    `cache` is the prefix of files for a matrix that is external, which is then not kept in memory. `reference` is
    another one, whose bins it gets.
    """
    source = _Source(selection, None if cache is None else str(cache))
    if cache is not None:
        return xgb.ExtMemQuantileDMatrix(source, nthread=threads, max_bin=bins, ref=reference)
    return xgb.QuantileDMatrix(source, nthread=threads, max_bin=bins, ref=reference)


class _Source(xgb.DataIter):
    """A selection, a part at a time, as often as XGBoost asks."""

    def __init__(self, selection: Selection, cache: str | None) -> None:
        self._selection = selection
        self._next = _batches(selection)
        if cache is None:
            super().__init__(release_data=True)
        else:
            super().__init__(cache_prefix=cache, on_host=False, release_data=True)

    def next(self, input_data: Any) -> bool:
        for values, target in self._next:
            input_data(data=values, label=target, feature_names=list(self._selection.names))
            return True
        return False

    def reset(self) -> None:
        self._next = _batches(self._selection)


def _batches(selection: Selection) -> Iterator[tuple[Floats32, Floats]]:
    start = 0
    for part in selection.matrix.parts():
        end = start + len(part)
        rows = None if selection.rows is None else selection.rows[start:end]
        target = selection.target[start:end]
        start = end
        if rows is not None:
            part, target = part[rows], target[rows]
        if selection.columns is not None:
            part = np.ascontiguousarray(part[:, selection.columns])
        if len(part):
            yield part, target
