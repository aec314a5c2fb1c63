"""A batch of a data set's rows as arrays: entities, period numbers and values, without nulls. Pure.

Values to be summed are exact: a decimal, or an integer beyond 2**53, is a sum of doubles, its digits in base 2**32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from almanac_jobs.calendar import Calendar, Unit, weekdays
from almanac_jobs.forecast.types import Floats, Ints
from almanac_jobs.kernel.sums import Aggregator, How

_EXACT = 2**53
"""Integers up to here are doubles."""
_MOST_PLACES = 22
"""10 to this power, and no higher, is a double."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What rows are read for. The types are those of the whole data set; a file's own may be narrower."""

    how: How
    calendar: Calendar
    entity_type: pa.DataType
    value_type: pa.DataType

    @property
    def scale(self) -> int:
        """Values are given in units of 10**-scale: sums of decimals count their last place."""
        summed = self.how in (How.SUM, How.MEAN)
        return self.value_type.scale if summed and pa.types.is_decimal(self.value_type) else 0


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with an entity; those of them that count have a time and a value as well.

    `entity` holds all, dictionary-encoded; `counted` marks those that count (None: all). `period` has an entry a
    counted row, and so has `time` (ticks of the source's type, for LAST alone). `parts` are arrays whose sum is the
    value, in units of the plan's scale; none for COUNT. `weekdays` are those of counted rows, where periods are weeks.
    """

    entity: pa.DictionaryArray
    counted: NDArray[np.bool_] | None
    period: Ints
    parts: tuple[Floats, ...]
    time: Ints | None
    weekdays: frozenset[int]
    null_entities: int
    null_times: int
    null_values: int


def convert(batch: pa.RecordBatch, plan: Plan) -> Rows:
    """The rows of a batch with columns `entity`, `time` and `value`, each of the type that its file has."""
    named = _valid(batch["entity"])
    nameless = batch.num_rows - int(named.sum())
    if nameless:
        batch = batch.filter(pa.array(named))
    timed = _valid(batch["time"])
    counted = timed & _valid(batch["value"])
    all_count = bool(counted.all())
    rows = batch if all_count else batch.filter(pa.array(counted))
    time = _decoded(rows["time"])
    wall = plan.calendar.wall(time)
    return Rows(
        entity=_encoded(batch["entity"], plan.entity_type),
        counted=None if all_count else counted,
        period=plan.calendar.frequency.periods(wall),
        parts=_parts(_decoded(rows["value"]), plan),
        time=_ticks(time, plan.calendar.time_type) if plan.how is How.LAST else None,
        weekdays=weekdays(wall) if plan.calendar.frequency.unit is Unit.WEEK else frozenset(),
        null_entities=nameless,
        null_times=batch.num_rows - int(timed.sum()),
        null_values=int(timed.sum()) - int(counted.sum()),
    )


def _valid(column: pa.Array) -> NDArray[np.bool_]:
    """Where there is a value: neither null nor NaN."""
    column = _decoded(column) if pa.types.is_dictionary(column.type) and column.dictionary.null_count else column
    found = pc.is_valid(column)
    if pa.types.is_floating(column.type):
        found = pc.and_(found, pc.invert(pc.fill_null(pc.is_nan(column), False)))
    return np.asarray(found)


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _encoded(column: pa.Array, kind: pa.DataType) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(column.type):
        return column.cast(kind).dictionary_encode()
    if column.type == pa.dictionary(pa.int32(), kind):
        return column
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary.cast(kind))


def _ticks(time: pa.Array, kind: pa.DataType) -> Ints:
    """Times as integers that order them over all files."""
    time = time.cast(kind)
    return np.asarray(time.cast(pa.int32()) if pa.types.is_date32(kind) else time.cast(pa.int64())).astype(np.int64)


def _parts(value: pa.Array, plan: Plan) -> tuple[Floats, ...]:
    if plan.how is How.COUNT:
        return ()
    if pa.types.is_floating(value.type):
        return (np.asarray(value.cast(pa.float64())),)
    if plan.how not in (How.SUM, How.MEAN) or (
        pa.types.is_decimal(value.type) and pa.types.is_floating(plan.value_type)
    ):
        return (_nearest(value),)
    if pa.types.is_decimal(plan.value_type) and value.type != plan.value_type:
        value = value.cast(plan.value_type)
    return _exact(value)


def _nearest(value: pa.Array) -> Floats:
    """Integers or decimals, each as the nearest double."""
    if pa.types.is_integer(value.type):
        return np.asarray(value).astype(np.float64)
    units = _exact(value)
    if len(units) == 1 and value.type.scale <= _MOST_PLACES:
        return units[0] / np.float64(10.0**value.type.scale)  # both are exact: the quotient is rounded once
    sums = Aggregator(How.SUM)  # Arrow's own cast may be off by a bit
    sums.add(np.tile(np.arange(len(value)), len(units)), np.concatenate(units))
    return sums.finish(10.0**value.type.scale)[1]


def _exact(value: pa.Array) -> tuple[Floats, ...]:
    """Integers, or the units of decimals, as doubles whose sum they are."""
    whole = _as_int64(value)
    if whole is None:
        digits = _digits(value)
        signed = not pa.types.is_unsigned_integer(value.type)
        top = digits[:, -1].view(np.int32) if signed else digits[:, -1]
        return tuple(np.ldexp(digit.astype(np.float64), 32 * i) for i, digit in enumerate([*digits.T[:-1], top]))
    if not len(whole) or max(-int(whole.min()), int(whole.max())) <= _EXACT:
        return (whole.astype(np.float64),)
    return (whole & 0xFFFF_FFFF).astype(np.float64), np.ldexp((whole >> 32).astype(np.float64), 32)


def _as_int64(value: pa.Array) -> Ints | None:
    """Integers, or the units of decimals, as 64 bits; None if one does not fit."""
    if pa.types.is_integer(value.type):
        whole = np.asarray(value)
        return None if whole.dtype == np.uint64 and (whole >> 63).any() else whole.astype(np.int64)
    digits = _digits(value)
    if digits.shape[1] == 1:
        return digits.view(np.int32)[:, 0].astype(np.int64)
    sign = digits[:, 1].view(np.int32) >> 31
    fits = (digits[:, 2:].view(np.int32) == sign[:, None]).all()
    return np.ascontiguousarray(digits[:, :2]).view(np.int64)[:, 0] if fits else None


def _digits(value: pa.Array) -> NDArray[np.uint32]:
    """The digits in base 2**32 of each value, least first; the last carries the sign (two's complement)."""
    width = value.type.bit_width // 32
    digits = np.frombuffer(value.buffers()[1], np.uint32)[value.offset * width :][: len(value) * width]
    return digits.reshape(len(value), width)
