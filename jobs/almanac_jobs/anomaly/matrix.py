"""Rows of features where they lie: in memory, or in parts on a disk, for data that memory does not hold.

Both give XGBoost the same numbers in the same order, and so the same model, bit for bit.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import NDArray

from almanac_jobs.anomaly.features import Floats32

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

PART_ROWS = 131_072
"""Rows that are worked on at a time."""
PART_BYTES = 32 << 20
"""Bytes of a file of rows, about: XGBoost takes one file after the other for every level of every tree, and each time
costs, while memory holds two or three of them."""


class Matrix(Protocol):
    """Rows of features, in parts."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def cache(self, rows: int, width: int, bins: int) -> Path | None:
        """Where XGBoost is to keep what it makes of so many rows and columns of them; None: in memory.

        Raises:
            OSError: ENOSPC, where there is no room for that: XGBoost would end the process.
        """

    def parts(self) -> Iterator[Floats32]:
        """All rows in order, some at a time."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A matrix in memory."""

    values: Floats32

    @property
    def rows(self) -> int:
        return len(self.values)

    def cache(self, rows: int, width: int, bins: int) -> Path | None:
        return None

    def parts(self) -> Iterator[Floats32]:
        for start in range(0, max(len(self.values), 1), PART_ROWS):
            yield self.values[start : start + PART_ROWS]


_set_aside: dict[str, TemporaryDirectory[str]] = {}


class Spooled:
    """A matrix in files of a folder of its own, which goes with it; memory holds one part.

    Who pickles it means to have it back, in this process: Dask does so where memory is short. From then on the folder
    stays until the process ends.
    """

    def __init__(self, parts: Iterator[Floats32]) -> None:
        """Write parts as they come, small ones together."""
        self._place = TemporaryDirectory(prefix="almanac-")
        self._sizes: list[int] = []
        self.width = 0
        self.present = 0
        """Number of values that are not missing."""
        waiting: list[Floats32] = []
        for part in parts:
            waiting.append(part)
            if sum(map(len, waiting)) >= PART_ROWS or sum(one.nbytes for one in waiting) >= PART_BYTES:
                self._write(waiting)
        if waiting:
            self._write(waiting)

    def __getstate__(self) -> dict[str, Any]:
        _set_aside[self._place.name] = self._place
        return {**self.__dict__, "_place": self._place.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_place": _set_aside[state["_place"]]}

    def _write(self, parts: list[Floats32]) -> None:
        whole = np.ascontiguousarray(np.concatenate(parts), np.float32)
        (self.folder / str(len(self._sizes))).write_bytes(whole)  # numpy itself would not say why it cannot
        self.present += whole.size - int(np.isnan(whole).sum())
        self._sizes.append(len(whole))
        self.width = whole.shape[1]
        parts.clear()

    @property
    def rows(self) -> int:
        return sum(self._sizes)

    @property
    def folder(self) -> Path:
        return Path(self._place.name)

    def cache(self, rows: int, width: int, bins: int) -> Path:
        size, free = self.cache_size(rows, width, bins), shutil.disk_usage(self.folder).free
        if free < size:
            told = f"{size / 2**20:,.1f} MiB are needed, and {free / 2**20:,.1f} MiB are free"
            raise OSError(errno.ENOSPC, told, str(self.folder))
        return self.folder

    def cache_size(self, rows: int, width: int, bins: int) -> int:
        """Bytes that XGBoost writes, at most: where rows begin, the bin of each value, and the bins once more by
        columns, where those of a column with few values have the numbers of their rows beside them."""
        narrow = 1 if bins <= 256 else 2
        dense = self.present == self.rows * self.width
        by_row = rows * width * narrow if dense else min(rows * width, self.present) * 4
        by_column = rows * width * max(narrow + 1 / 8, (narrow + 8) / 5)
        page = width * bins * 8 + 4096
        return int(rows * 8 + by_row + by_column) + page * len(self._sizes)

    def parts(self) -> Iterator[Floats32]:
        for at in range(len(self._sizes)):
            yield np.fromfile(self.folder / str(at), np.float32).reshape(-1, self.width)


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


def quantized(selection: Selection, threads: int, bins: int, name: str, reference: Any = None) -> Any:
    """The selection as XGBoost trains on it: cut into bins, without a copy of the values in between.

    `name` tells it from others of the same matrix. `reference` is another one, whose bins it gets.

    Raises:
        OSError: as `Matrix.cache` does.
    """
    rows = selection.matrix.rows if selection.rows is None else int(selection.rows.sum())
    folder = selection.matrix.cache(rows, len(selection.names), bins)
    if folder is not None:
        source = _Source(selection, str(folder / name))
        return xgb.ExtMemQuantileDMatrix(source, nthread=threads, max_bin=bins, ref=reference)
    return xgb.QuantileDMatrix(_Source(selection, None), nthread=threads, max_bin=bins, ref=reference)


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
            # As a frame, XGBoost takes it column by column, and cuts bins in three quarters of the time.
            input_data(data=pd.DataFrame(values, columns=list(self._selection.names), copy=False), label=target)
            return True
        return False

    def reset(self) -> None:
        self._next = _batches(self._selection)


def _batches(selection: Selection) -> Iterator[tuple[Floats32, Floats]]:
    """The parts that have rows of the selection; an empty one, where none has: other places may have some."""
    start = 0
    some = False
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
            some = True
            yield part, target
    if not some:
        yield np.empty((0, len(selection.names)), np.float32), np.empty(0)
