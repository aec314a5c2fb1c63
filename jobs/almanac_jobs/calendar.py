"""Periods: what a frequency is, and the way from times to period numbers and back. Pure: no clock is read.

A period number counts periods since 1970-01-01T00:00. A period is named by its start, and so are forecasts:

| written | a period is |
|---|---|
| `s` `min` `H` | a second, a minute, an hour |
| `D` | a day |
| `W` `W-MON` | a week that starts on Monday |
| `W-SUN` ... `W-SAT` | a week that starts on that day |
| `M` `Q` `Y` | a calendar month, a quarter (from January, April, July, October), a year |
| `15min` `6H` `2W` ... | that many of them, counted from the period that holds 1970-01-01T00:00 |

Times with a time zone: days and longer follow the wall clock of the declared zone; hours and shorter follow elapsed
time (multiples are counted in UTC), so that daylight saving time neither joins two hours nor leaves one out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from almanac.api import JobError, Reason

Ints = NDArray[np.int64]
Times = NDArray[np.datetime64]

DAY = 86_400
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_THURSDAY = 3  # the weekday of 1970-01-01
_PATTERN = re.compile(r"(?P<multiple>[1-9]\d{0,5})?(?P<unit>s|min|[hH]|D|W|M|Q|Y)(?:-(?P<weekday>[A-Z]{3}))?")


class Unit(StrEnum):
    SECOND = "s"
    MINUTE = "min"
    HOUR = "H"
    DAY = "D"
    WEEK = "W"
    MONTH = "M"
    QUARTER = "Q"
    YEAR = "Y"


_SECONDS = {Unit.SECOND: 1, Unit.MINUTE: 60, Unit.HOUR: 3600, Unit.DAY: DAY, Unit.WEEK: 7 * DAY}
_MONTHS = {Unit.MONTH: 1, Unit.QUARTER: 3, Unit.YEAR: 12}
# An hour of seconds, a day of minutes or hours, a week of days, a year of everything longer.
_CYCLE = {
    Unit.SECOND: 3600,
    Unit.MINUTE: 1440,
    Unit.HOUR: 24,
    Unit.DAY: 7,
    Unit.WEEK: 52,
    Unit.MONTH: 12,
    Unit.QUARTER: 4,
    Unit.YEAR: 1,
}


@dataclass(frozen=True, slots=True)
class Frequency:
    """How long a period is. `weekday` (0: Monday) is the day that weeks start on, and counts for weeks alone."""

    unit: Unit
    multiple: int = 1
    weekday: int = 0

    @classmethod
    def parse(cls, text: str) -> Frequency:
        """The frequency written as `text`, see the table above.

        Raises:
            JobError: InvalidSpec, if `text` is none.
        """
        found = _PATTERN.fullmatch(text)
        weekday = found and found["weekday"]
        if found is None or (weekday and (found["unit"] != "W" or weekday not in WEEKDAYS)):
            raise JobError(
                Reason.INVALID_SPEC,
                f"spec.frequency: `{text}` is not a frequency: write s, min, H, D, W, W-SUN (weeks from Sunday on), M, "
                "Q, Y, a multiple such as 15min, or auto",
            )
        unit = Unit.HOUR if found["unit"] == "h" else Unit(found["unit"])
        return cls(unit, int(found["multiple"] or 1), WEEKDAYS.index(weekday) if weekday else 0)

    def __str__(self) -> str:
        multiple = str(self.multiple) if self.multiple > 1 else ""
        weekday = f"-{WEEKDAYS[self.weekday]}" if self.unit is Unit.WEEK and self.weekday else ""
        return f"{multiple}{self.unit}{weekday}"

    @property
    def default_season_length(self) -> int:
        """Periods in the usual cycle: D 7, H 24, W 52, M 12, Q 4, Y 1, 15min 96; 1 where no whole number fits."""
        cycle = _CYCLE[self.unit]
        return cycle // self.multiple if cycle % self.multiple == 0 else 1

    @property
    def within_day(self) -> bool:
        """Whether periods are shorter than a day by nature: seconds, minutes, hours."""
        return self.unit in (Unit.SECOND, Unit.MINUTE, Unit.HOUR)

    def periods(self, times: Times) -> Ints:
        """The number of the period that holds each time; `times` are datetime64 in days, or in seconds or finer."""
        if self.unit in _MONTHS:
            months = times.astype("datetime64[M]").view(np.int64)
            return months // (_MONTHS[self.unit] * self.multiple)
        unit, _ = np.datetime_data(times.dtype)
        length = _SECONDS[self.unit] * self.multiple
        if unit == "D" and length % DAY == 0:
            return (times.view(np.int64) - self._origin // DAY) // (length // DAY)
        if unit == "D":
            times, unit = times.astype("datetime64[s]"), "s"
        ticks = int(np.timedelta64(1, "s") // np.timedelta64(1, unit))  # type: ignore[call-overload]
        return (times.view(np.int64) - self._origin * ticks) // (length * ticks)

    def starts(self, periods: Ints) -> Times:
        """The first moment of each period, as datetime64[s]."""
        if self.unit in _MONTHS:
            return (periods * (_MONTHS[self.unit] * self.multiple)).astype("datetime64[M]").astype("datetime64[s]")
        return (periods * (_SECONDS[self.unit] * self.multiple) + self._origin).astype("datetime64[s]")

    @property
    def _origin(self) -> int:
        return -((_THURSDAY - self.weekday) % 7) * DAY if self.unit is Unit.WEEK else 0


@dataclass(frozen=True, slots=True)
class Calendar:
    """From a column's times to period numbers and back to the column's own type.

    `time_type` is the column's Arrow type: a date, or a timestamp with or without a time zone. `time_zone` is the zone
    whose wall clock days and longer periods follow; None is the column's own. Times without a zone are wall clock.
    """

    frequency: Frequency
    time_type: pa.DataType
    time_zone: str | None = None

    @property
    def zone(self) -> str | None:
        """The zone of wall-clock times; None where the column has none."""
        own: str | None = self.time_type.tz if pa.types.is_timestamp(self.time_type) else None
        return own and (self.time_zone or own)

    def wall(self, times: pa.Array) -> Times:
        """The times that periods divide: the zone's wall clock, or UTC within the day. `times` holds no null."""
        if pa.types.is_date32(times.type):
            return np.asarray(times.cast(pa.int32())).astype("datetime64[D]")
        if pa.types.is_date64(times.type):
            return np.asarray(times.cast(pa.int64())).view("datetime64[ms]")
        if self.zone is not None and not self.frequency.within_day:
            times = pc.local_timestamp(times.cast(pa.timestamp(times.type.unit, self.zone)))
        return np.asarray(times.cast(pa.int64())).view(f"datetime64[{times.type.unit}]")

    def periods(self, times: pa.Array) -> Ints:
        """The period number of every time; `times` is of any date or timestamp type and holds no null."""
        return self.frequency.periods(self.wall(times))

    def times(self, periods: Ints) -> pa.Array:
        """The start of every period as `time_type`. A day that daylight saving robs of its midnight starts after it."""
        starts = self.frequency.starts(np.asarray(periods, np.int64))
        if not pa.types.is_timestamp(self.time_type):
            return pa.array(starts.astype("datetime64[D]"), pa.date32()).cast(self.time_type)
        unit = self.time_type.unit
        naive = pa.array(starts, pa.timestamp("s")).cast(
            pa.timestamp(unit)
        )  # not numpy's cast, which overflows in silence
        if self.zone is None:
            return naive
        if not self.frequency.within_day:
            naive = pc.assume_timezone(naive, self.zone, ambiguous="earliest", nonexistent="latest")
        return naive.cast(self.time_type) if naive.type.tz else pc.assume_timezone(naive, "UTC").cast(self.time_type)

    def label(self, period: int) -> str:
        """One period's start in words, as ISO 8601; midnights without their time."""
        start = str(self.frequency.starts(np.array([period]))[0])
        return start.removesuffix("T00:00:00")


def check_zone(zone: str, field: str) -> None:
    """Raise InvalidSpec if there is no time zone of that name."""
    try:
        pc.local_timestamp(pa.array([0], pa.timestamp("s", zone)))
    except pa.ArrowInvalid as error:
        raise JobError(
            Reason.INVALID_SPEC, f"{field}: there is no time zone `{zone}`: write one such as Europe/Berlin or UTC"
        ) from error


@dataclass(frozen=True, slots=True)
class _Step:
    """The most frequent step from one time of an entity to its next, as calendar months or (months = 0) as seconds."""

    months: int
    seconds: int
    share: float
    count: int

    @classmethod
    def of(cls, entity: NDArray[np.int32], times: Times) -> _Step | None:
        """The most frequent step; None if no entity has two times."""
        same = entity[1:] == entity[:-1]
        before, after = times[:-1][same], times[1:][same]
        if not len(before):
            return None
        fixed, fixed_count = _mode((after - before).view(np.int64))
        whole = _whole_months(before, after)
        months, months_count = _mode(whole[whole > 0])
        # One step of 31 days is a month; where there are more, months win because their lengths in days differ.
        if months_count >= fixed_count:
            return cls(months, round(months * 30.436875 * DAY), months_count / len(before), len(before))
        return cls(0, fixed, fixed_count / len(before), len(before))

    def frequency(self, times: Times) -> Frequency:
        """The frequency with periods as long as this step; weeks start on the one weekday of `times`, if it is one."""
        for unit in (Unit.YEAR, Unit.QUARTER, Unit.MONTH):
            if self.months and self.months % _MONTHS[unit] == 0:
                return Frequency(unit, self.months // _MONTHS[unit])
        for unit in (Unit.WEEK, Unit.DAY, Unit.HOUR, Unit.MINUTE):
            if self.seconds % _SECONDS[unit] == 0:
                weekday = only_weekday(times) if unit is Unit.WEEK else None
                return Frequency(unit, self.seconds // _SECONDS[unit], weekday or 0)
        return Frequency(Unit.SECOND, self.seconds)

    def __str__(self) -> str:
        lengths = {"day": DAY, "hour": 3600, "minute": 60, "second": 1}
        name = "month" if self.months else next(name for name, length in lengths.items() if self.seconds % length == 0)
        count = self.months or self.seconds // lengths[name]
        return f"{count} {name}{'s' if count > 1 else ''}"


def infer(entity: NDArray[np.int32], times: Times, column: str) -> Frequency:
    """The frequency of data whose job says `auto`: the most frequent step from one time of an entity to its next.

    `times` (datetime64[s], wall clock) are sorted and distinct within an entity; `entity` are the entities' indices,
    equal ones side by side. `column` is the name of the times, for messages.

    Raises:
        JobError: DataError, if there is no step, fewer than half of the steps are equal, or times share a period.
    """
    step = _Step.of(entity, times)
    if step is None:
        raise _cannot_tell(column, "no entity has two different times")
    if step.share < 0.5:
        raise _cannot_tell(
            column, f"the most frequent step between two times of an entity, {step}, is only {step.share:.0%} of all"
        )
    found = step.frequency(times)
    if found.unit is Unit.WEEK and only_weekday(times) is None:
        raise _cannot_tell(column, "entities have a time a week, each on a weekday of its own")
    periods = found.periods(times)
    shared = np.mean((periods[1:] == periods[:-1]) & (entity[1:] == entity[:-1]))
    if shared > 0.01:
        raise _cannot_tell(
            column, f"most steps between two times of an entity are {step}, but {shared:.0%} of the times come closer"
        )
    return found


def check(frequency: Frequency, entity: NDArray[np.int32], periods: Ints, column: str) -> None:
    """Refuse a frequency that is too fine for the data: nearly all steps of an entity are one and the same longer one.

    `periods` are sorted and distinct within an entity; `entity` and `column` are as for `infer`. A handful of steps
    proves nothing.

    Raises:
        JobError: DataError.
    """
    starts = frequency.starts(periods)
    step = _Step.of(entity, starts)
    if step is None or step.count < 10 or step.share < 0.9:
        return
    own = np.diff(frequency.starts(np.arange(2, dtype=np.int64)).view(np.int64))[0]
    if step.seconds < 1.5 * own:  # the next step up is twice as long, but months differ a little in length
        return
    raise JobError(
        Reason.DATA_ERROR,
        f"spec.frequency: `{frequency}` does not fit column `{column}`: {step.share:.0%} of the steps between two "
        f"times of an entity are {step}: write {step.frequency(starts)}",
    )


def only_weekday(times: Times) -> int | None:
    """The weekday (0: Monday) that all times fall on; None if there are several."""
    found = weekdays(times)
    return next(iter(found)) if len(found) == 1 else None


def weekdays(times: Times) -> frozenset[int]:
    """The weekdays (0: Monday) that times fall on."""
    days = times.astype("datetime64[D]").view(np.int64)
    return frozenset(np.unique((days + _THURSDAY) % 7).tolist())


def _mode(values: Ints) -> tuple[int, int]:
    """The most frequent value, the smallest of several, and how often it occurs; (0, 0) of nothing."""
    distinct, counts = np.unique(values, return_counts=True)
    return (int(distinct[counts.argmax()]), int(counts.max())) if len(distinct) else (0, 0)


def _whole_months(before: Times, after: Times) -> Ints:
    """Months between two times that are on the same day of the month, or both on its last; 0 elsewhere."""
    first, second = before.astype("datetime64[M]"), after.astype("datetime64[M]")
    same_day = (before - first) == (after - second)
    last_day = _last_of_month(before) & _last_of_month(after)
    return np.where(same_day | last_day, (second - first).view(np.int64), 0)


def _last_of_month(times: Times) -> NDArray[np.bool_]:
    tomorrow = times.astype("datetime64[D]") + np.timedelta64(1, "D")
    return tomorrow.astype("datetime64[M]") > times.astype("datetime64[M]")


def _cannot_tell(column: str, why: str) -> JobError:
    return JobError(
        Reason.DATA_ERROR,
        f"spec.frequency: auto cannot tell the frequency of column `{column}`: {why}: write it, for example D",
    )
