"""`features: {preset: ledger}`: what auditors look at in journal entries, for each row from what came before it.

| feature | what |
|---|---|
| `ledger.magnitude` | log10(1 + absolute amount) |
| `ledger.sign` | -1, 0, 1 |
| `ledger.first_digit` | leading digit of the amount, 1 to 9; 0 for no amount |
| `ledger.zeros` | zeros at the end of the amount in hundredths: 0 for 12.34, 2 for 12.00, 5 for 12,000.00 |
| `ledger.weekday`, `ledger.hour` | 0 (Monday) to 6; hour of the day with its fraction, where times have one |
| `ledger.days_to_month_end` | 0 on the last day of a month |
| `ledger.gap` | log10(1 + seconds since the entity's previous entry) |
| `ledger.deviation` | of the magnitude from the entity's mean so far, in standard deviations, after 3 entries |
| `ledger.today` | entries of the entity on the same day so far |
| `ledger.repeat` | 1 / (1 + days since the entity had the same amount); 1 if at the same time, 0 if never |
| `ledger.reversal` | 1 / (1 + days since the entity had the opposite amount); 0 if never |
| `ledger.hour_rarity` | log10 of (entries + 1) / (those of them at this weekday and hour + 1), before this one |
| `ledger.user_rarity` | log10 of (entries of the entity + 1) / (those of them by this user + 1), before this one |
| `ledger.counterparty_rarity` | the same for the counterparty |
| `ledger.user_counterparty_rarity` | log10 of (entries of the user + 1) / (those of them with this counterparty + 1) |

Rows of the same entity and time see the same past: nothing depends on their order, and nothing on what comes later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from almanac.api import JobError, LedgerColumns, Reason
from almanac_jobs.anomaly import across
from almanac_jobs.anomaly.features import Feature, Floats32, Kind, check_finite, decoded, wall
from almanac_jobs.buckets import bucket_of
from almanac_jobs.crew import Crew, Held

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FIELD = "spec.features.ledger"
SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000
"""Times are counted in microseconds."""
MOMENTS = 7 * 24
"""Weekdays and hours."""
_HABITS = 5
"""Features that `_of_entity` makes."""
_SCALE = 4096
"""Magnitudes are summed as whole numbers, so that sums are exact and what a row sees does not depend on other rows."""
_ENOUGH = 3
_SPREAD = 0.1
"""Added to standard deviations: an entity whose amounts are all alike is not infinitely surprised by another one."""
_MOST_CENTS = 9.0e15
"""Hundredths that a double holds exactly."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Which columns are what, and whether times have hours."""

    columns: LedgerColumns
    entity: str
    time: str
    hours: bool
    time_zone: str | None

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that the features are made of."""
        told = (self.entity, self.time, self.columns.amount, self.columns.user, self.columns.counterparty)
        return tuple(dict.fromkeys(name for name in told if name is not None))

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features, in the order of the columns that `encode` makes."""
        return tuple(Feature(name, column, Kind.LEDGER) for name, column in self._names())

    def _names(self) -> list[tuple[str, str]]:
        amount, user, counterparty = self.columns.amount, self.columns.user, self.columns.counterparty
        told = [(name, amount) for name in ("magnitude", "sign", "first_digit", "zeros")]
        told += [
            ("weekday", self.time),
            *([("hour", self.time)] if self.hours else []),
            ("days_to_month_end", self.time),
        ]
        told += [("gap", self.time), ("deviation", amount), ("today", self.time)]
        told += [("repeat", amount), ("reversal", amount)]
        told += [("hour_rarity", self.time)] if self.hours else []
        told += [("user_rarity", user)] if user else []
        told += [("counterparty_rarity", counterparty)] if counterparty else []
        told += [("user_counterparty_rarity", user)] if user and counterparty else []
        return [(f"ledger.{name}", str(column)) for name, column in told]

    def check(self, types: dict[str, pa.DataType]) -> None:
        """Refuse columns that are missing or of other types than they must be.

        Raises:
            JobError: DataError, saying which.
        """
        for role, name in self.columns.model_dump(exclude_none=True).items():
            if name not in types:
                raise JobError(
                    Reason.DATA_ERROR, f"{FIELD}.{role}: the source has no column `{name}`: it has {', '.join(types)}"
                )
        kind = types[self.columns.amount]
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise JobError(
                Reason.DATA_ERROR,
                f"{FIELD}.amount: column `{self.columns.amount}` is of type {kind}: amounts are numbers",
            )

    def encode(self, table: pa.Table) -> Floats32:
        """The features of all rows of a ledger, which has the columns that are `needed`, in any order.

        Raises:
            JobError: DataError for infinite amounts.
        """
        return self.joined(
            self.of_row(table),
            self.of_entity(table),
            self.of_moment(self.moments(table), np.zeros(MOMENTS, np.int64)),
            self.of_user(table),
        )

    def joined(self, row: Floats32, entity: Floats32, moment: Floats32, user: Floats32) -> Floats32:
        """The features of rows in their order, from those of each kind, which are `of_...`."""
        return np.concatenate([row, entity[:, :_HABITS], moment, entity[:, _HABITS:], user], axis=1)

    def of_row(self, table: pa.Table) -> Floats32:
        """What follows from a row alone."""
        value = self._amounts(table)
        check_finite(value, self.columns.amount)
        return _stacked([*_of_amount(value), *_of_time(self._wall(table), self.hours)], len(value))

    def of_entity(self, table: pa.Table) -> Floats32:
        """What follows from the entity's rows, which are all there."""
        own, when = _codes(decoded(table.column(self.entity))), _microseconds(decoded(table.column(self.time)))
        made = _of_entity(own, when, _microseconds(self._wall(table)) // DAY, self._amounts(table))
        for name in (self.columns.user, self.columns.counterparty):
            made += [] if name is None else [_rarity(own, _codes(decoded(table.column(name))), when)]
        return _stacked(made, len(own))

    def of_user(self, table: pa.Table) -> Floats32:
        """What follows from the user's rows, which are all there."""
        user, counterparty = self.columns.user, self.columns.counterparty
        if user is None or counterparty is None:
            return _stacked([], len(table))
        own, other = (_codes(decoded(table.column(name))) for name in (user, counterparty))
        return _stacked([_rarity(own, other, _microseconds(decoded(table.column(self.time))))], len(table))

    def moments(self, table: pa.Table) -> Ints:
        """Two columns: when each row is, and at which weekday and hour."""
        hours = (_microseconds(self._wall(table)) + 3 * DAY) % (7 * DAY) // HOUR
        return np.stack([_microseconds(decoded(table.column(self.time))), hours], axis=1)

    def of_moment(self, moments: Ints, before: Ints) -> Floats32:
        """What follows from `moments` of all rows of some time; `before` counts those before it by weekday and hour."""
        if not self.hours:
            return _stacked([], len(moments))
        when, hour = np.ascontiguousarray(moments.T)
        same = _Past(hour, when).count + before[hour]
        every = _Past(np.zeros_like(when), when).count + before.sum()
        return _stacked([np.log10((every + 1) / (same + 1))], len(when))

    def _amounts(self, table: pa.Table) -> Floats:
        amount = decoded(table.column(self.columns.amount)).cast(pa.float64(), safe=False)
        return np.asarray(amount.to_numpy())

    def _wall(self, table: pa.Table) -> pa.ChunkedArray:
        return wall(decoded(table.column(self.time)), self.time_zone)


def everywhere(crew: Crew, ledger: Ledger, past: Held[pa.Table]) -> Held[Floats32]:
    """The features of a ledger whose rows lie in several places: the same as if they lay in one."""
    entity = across.route(crew, past, _homes(crew, past, ledger.entity)).each(ledger.of_entity)
    user = across.route(crew, past, _homes(crew, past, ledger.columns.user)).each(ledger.of_user)
    moments = crew.each(ledger.moments, past)
    routed = across.route(crew, moments, across.by_value(crew, crew.each(_when, moments)))
    counts = np.array(routed.ask(_by_hour))
    before = crew.deal(list(np.cumsum(counts, axis=0) - counts))
    return crew.each(ledger.joined, crew.each(ledger.of_row, past), entity, routed.each(ledger.of_moment, before), user)


def _homes(crew: Crew, rows: Held[pa.Table], column: str | None) -> Held[Ints] | None:
    """For each row a place, the same for all rows with the same value."""
    if crew.size == 1:
        return None
    return crew.each(_home, rows, column, crew.size)


def _home(rows: pa.Table, column: str | None, places: int) -> Ints:
    if column is None or not len(rows):
        return np.zeros(len(rows), np.int64)
    encoded = decoded(rows.column(column)).cast(pa.string()).combine_chunks().dictionary_encode()
    homes = np.append(bucket_of(encoded.dictionary, 1 << 16) % places, 0)  # null is at home in the first place
    return homes[np.asarray(pc.fill_null(encoded.indices, -1))].astype(np.int64)


def _when(moments: Ints) -> Ints:
    return moments[:, 0]


def _by_hour(moments: Ints) -> Ints:
    return np.bincount(moments[:, 1], minlength=MOMENTS)


def _stacked(columns: list[Floats], rows: int) -> Floats32:
    return np.stack(columns, axis=1).astype(np.float32) if columns else np.empty((rows, 0), np.float32)


def _of_amount(value: Floats) -> list[Floats]:
    size = np.abs(value)
    some = size > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.floor(np.log10(size, where=some, out=np.zeros_like(size)))
        digit = np.where(some, np.clip(np.floor(size / 10.0**power + 1e-9), 1, 9), size)
    return [np.log10(1 + size), np.sign(value), digit, _zeros(size)]


def _zeros(size: Floats) -> Floats:
    """Zeros at the end of amounts in hundredths; NaN for no amount, and for amounts too large to have hundredths."""
    exact = (size > 0) & (size * 100 < _MOST_CENTS)
    cents = np.where(exact, np.rint(np.where(exact, size, 0) * 100), 1).astype(np.int64)
    zeros = np.zeros(len(size))
    for power in range(1, 16):
        zeros += cents % 10**power == 0
    return np.where(exact, np.where(cents > 0, zeros, 0), np.nan)


def _of_time(local: pa.Array | pa.ChunkedArray, hours: bool) -> list[Floats]:
    days = np.asarray(local.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy()) // DAY
    dates = days.astype("datetime64[D]")
    next_month = (dates.astype("datetime64[M]") + np.timedelta64(1, "M")).astype("datetime64[D]")
    made = [((days + 3) % 7).astype(np.float64)]  # 1970-01-01 was a Thursday
    if hours:
        minutes = pc.add(pc.multiply(pc.hour(local), 60), pc.minute(local))
        made.append(np.asarray(minutes.to_numpy()) / 60)
    return [*made, (next_month - dates).astype(np.int64) - 1.0]


def _of_entity(entity: Ints, when: Ints, day: Ints, value: Floats) -> list[Floats]:
    size = np.nan_to_num(np.log10(1 + np.abs(value)))
    past = _Past(entity, when)
    scaled = np.rint(size * _SCALE).astype(np.int64)
    entries, total, squares = past.count, past.sum(scaled), past.sum(scaled * scaled)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / entries
        spread = np.sqrt(np.maximum(squares / entries - mean**2, 0)) / _SCALE + _SPREAD
        deviation = np.where((entries >= _ENOUGH) & ~np.isnan(value), (size - mean / _SCALE) / spread, np.nan)
    known = ~np.isnan(value)
    cents = np.rint(np.clip(np.where(known, value, 0) * 100, -_MOST_CENTS, _MOST_CENTS)).astype(np.int64)
    cents[~known] = int(_MOST_CENTS) + 1  # no amount is not the amount 0
    gap = past.gap() / SECOND
    repeat, reversal = _same_amount(entity, when, cents)
    return [
        np.log10(1 + gap),
        deviation,
        _Past(_pair(entity, day), when).count.astype(np.float64),
        np.where(known, _recency(repeat), np.nan),
        np.where(known, _recency(reversal), np.nan),
    ]


def _recency(gap: Floats) -> Floats:
    """1 now, a half after a day, 0 for what never was."""
    return np.nan_to_num(1 / (1 + gap / DAY))


def _same_amount(entity: Ints, when: Ints, cents: Ints) -> tuple[Floats, Floats]:
    """Microseconds since the entity had the same amount, and the opposite one; NaN where it had not.

    Of several rows with the same amount at the same time, each repeats another: 0.
    """
    own = _Past(_pair(entity, cents), when)
    repeat = np.where(own.twins > 1, 0.0, own.gap())
    size = _pair(entity, np.abs(cents))
    order = np.lexsort((when, size))
    key, time, sign = size[order], when[order], np.sign(cents[order])
    at = np.arange(len(order))
    start = _starts(key[1:] != key[:-1], at)
    first = _starts((key[1:] != key[:-1]) | (time[1:] != time[:-1]), at)  # the first row of the same time
    latest = {one: np.concatenate(([-1], np.maximum.accumulate(np.where(sign == one, at, -1)))) for one in (-1, 1)}
    found = np.where(sign > 0, latest[-1][first], np.where(sign < 0, latest[1][first], -1))
    reversal = np.empty(len(order))
    reversal[order] = np.where(found >= start, (time - time[found]).astype(np.float64), np.nan)
    return repeat, reversal


def _rarity(of: Ints, other: Ints, when: Ints) -> Floats:
    """log10 of (earlier rows of `of` + 1) / (earlier rows of both + 1)."""
    rarity: Floats = np.log10((_Past(of, when).count + 1) / (_Past(_pair(of, other), when).count + 1))
    return rarity


class _Past:
    """For every row, those of the same key that are strictly earlier."""

    def __init__(self, key: Ints, when: Ints) -> None:
        self._order = np.lexsort((when, key))
        self._time = when[self._order]
        key = key[self._order]
        at = np.arange(len(key))
        fresh = key[1:] != key[:-1]
        self._start = _starts(fresh, at)
        self._first = _starts(fresh | (self._time[1:] != self._time[:-1]), at)

    @property
    def count(self) -> Ints:
        """How many there are."""
        return self._back(self._first - self._start)

    @property
    def twins(self) -> Ints:
        """How many rows have the same key and time, the row itself included."""
        sizes = np.bincount(self._first, minlength=len(self._first))
        return self._back(sizes[self._first])

    def sum(self, values: Ints) -> Ints:
        """Their sum."""
        sums = np.concatenate(([0], np.cumsum(values[self._order])))
        return self._back(sums[self._first] - sums[self._start])

    def gap(self) -> Floats:
        """Microseconds since the latest of them; NaN where there is none."""
        before = np.maximum(self._first - 1, 0)
        gap = np.where(self._first > self._start, (self._time - self._time[before]).astype(np.float64), np.nan)
        made = np.empty(len(gap))
        made[self._order] = gap
        return made

    def _back(self, values: Ints) -> Ints:
        made = np.empty_like(values)
        made[self._order] = values
        return made


def _starts(changes: NDArray[np.bool_], at: Ints) -> Ints:
    """For every position, where its run of equals begins."""
    begins = np.concatenate(([True], changes)) if len(at) else np.empty(0, np.bool_)
    return np.maximum.accumulate(np.where(begins, at, 0)) if len(at) else at


def _codes(column: pa.Array | pa.ChunkedArray) -> Ints:
    """Equal values, equal numbers; null is a value."""
    encoded = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = encoded.dictionary_encode(null_encoding="encode")
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False)).astype(np.int64)


def _pair(one: Ints, other: Ints) -> Ints:
    """Equal pairs, equal numbers."""
    if not len(one):
        return one
    _, codes = np.unique(other, return_inverse=True)
    return one * (int(codes.max()) + 1) + codes


def _microseconds(times: pa.Array | pa.ChunkedArray) -> Ints:
    kind = times.type
    as_us = times.cast(pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None), safe=False)
    return np.asarray(
        as_us.cast(pa.int64()).to_numpy(zero_copy_only=False)
        if isinstance(as_us, pa.Array)
        else as_us.cast(pa.int64()).to_numpy()
    )
