"""When a schedule is due: cron in a time zone, with the habits of Debian's cron when clocks change. Pure.

What there is to remember is one time, `JobStatus.next_schedule_time`: what lies before it is done with. A schedule that
is new, or that changed, counts from now on and makes up for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as a job says it: five fields or a macro, and a time zone (empty: UTC)."""

    cron: str
    time_zone: str = ""

    def after(self, time: datetime) -> datetime | None:
        """The first time that comes after `time`, in UTC; None if there is none within 50 years."""
        return next((one for one in self._walk(time, reverse=False) if one > time), None)

    def until(self, time: datetime) -> datetime | None:
        """The last time that is not after `time`, in UTC; None if there is none within 50 years."""
        return next((one for one in self._walk(time + timedelta(seconds=1), reverse=True) if one <= time), None)

    def has(self, time: datetime) -> bool:
        """Whether `time` is one of this schedule's."""
        return self.after(time - timedelta(seconds=1)) == time

    def _walk(self, time: datetime, *, reverse: bool) -> Iterator[datetime]:
        """Times from `time` on. In an hour that clocks repeat, the first of them may lie on the other side of it."""
        cron = _MACROS.get(self.cron, self.cron).replace("?", "*")
        zone = ZoneInfo(self.time_zone) if self.time_zone else UTC
        with suppress(CronSimError, OverflowError):
            for one in CronSim(cron, time.astimezone(zone), reverse=reverse):
                yield one.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Tick:
    """Where a schedule stands: the time that is due, if one is, and the next one to wait for."""

    due: datetime | None
    next: datetime | None


def tick(schedule: Schedule | None, remembered: datetime | None, now: datetime) -> Tick:
    """Where a schedule stands at `now`, given the time that was remembered to come next.

    Of several times that were missed, the last one is due.
    """
    if schedule is None:
        return Tick(None, None)
    following = schedule.after(now)
    if remembered is None or remembered > now or not schedule.has(remembered):
        return Tick(None, following)
    return Tick(max(remembered, schedule.until(now) or remembered), following)
