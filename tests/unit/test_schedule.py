"""When a schedule is due: cron, time zones, clocks that change, starts that were missed."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac.api.checks import cron as check
from almanac.schedule import Schedule, Tick, tick


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NOW = at("2026-11-21T02:15")


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("15 2 * * *", "", "2026-11-21T02:14:59", "2026-11-21T02:15"),
        ("15 2 * * *", "", "2026-11-21T02:15", "2026-11-22T02:15"),
        ("15 2 * * *", "Europe/Berlin", "2026-11-21T00:00", "2026-11-21T01:15"),
        ("0 6 * * 1-5", "", "2026-11-20T06:00", "2026-11-23T06:00"),
        ("0 6 ? * mon", "", "2026-11-21T00:00", "2026-11-23T06:00"),
        ("0 0 29 2 *", "", "2026-11-21T00:00", "2028-02-29T00:00"),
        ("*/20 * * * *", "Asia/Kathmandu", "2026-11-21T00:00", "2026-11-21T00:15"),
        ("@daily", "America/New_York", "2026-11-21T00:00", "2026-11-21T05:00"),
        ("@weekly", "", "2026-11-21T00:00", "2026-11-22T00:00"),
        ("0 0 * * 7", "", "2026-11-21T00:00", "2026-11-22T00:00"),
        # Clocks go forward from 02:00 to 03:00: what lies between is due at 03:00, once.
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T00:00", "2026-03-29T01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00", "2026-03-30T00:30"),
        # Clocks go back from 03:00 to 02:00: a time of day comes once, an interval goes on.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00", "2026-10-25T00:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30", "2026-10-26T01:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", "2026-10-26T01:30"),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:30", "2026-10-25T01:00"),
    ],
)
def test_after(cron: str, zone: str, after: str, expected: str) -> None:
    assert Schedule(cron, zone).after(at(after)) == at(expected)


@pytest.mark.parametrize("cron", ["0 0 30 2 *", "0 0 31 4,6 *"])
def test_a_day_that_never_comes(cron: str) -> None:
    schedule = Schedule(cron)
    assert schedule.after(NOW) is None
    assert schedule.until(NOW) is None
    assert tick(schedule, None, NOW) == Tick(None, None)


fields = [
    st.sampled_from(["0", "5", "*/7", "30", "10-40/15", "*"]),
    st.sampled_from(["*", "2", "*/6", "1-3", "23"]),
    st.sampled_from(["*", "1", "15,31", "?"]),
    st.sampled_from(["*", "3", "oct", "1-6"]),
    st.sampled_from(["*", "1-5", "sun", "7"]),
]
crons = st.tuples(*fields).map(" ".join)
zones = st.sampled_from(["", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
times = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))


@given(crons, zones, times)
def test_times_only_move_on(cron: str, zone: str, time: datetime) -> None:
    check(cron)
    schedule = Schedule(cron, zone)
    following = schedule.after(time)
    if following is not None:
        assert following > time
        assert schedule.has(following)
        assert schedule.after(following - timedelta(seconds=1)) == following
    before = schedule.until(time)
    assert before is None or before <= time


@given(crons, times)
def test_nothing_lies_between_the_last_time_and_the_next(cron: str, time: datetime) -> None:
    schedule = Schedule(cron)
    before, following = schedule.until(time), schedule.after(time)
    if before is not None:
        assert schedule.after(before) == following


DAILY = Schedule("0 2 * * *")


@pytest.mark.parametrize(
    ("remembered", "now", "due", "following"),
    [
        pytest.param(None, "2026-11-21T02:30", None, "2026-11-22T02:00", id="a new schedule makes up for nothing"),
        pytest.param("2026-11-22T02:00", "2026-11-21T02:30", None, "2026-11-22T02:00", id="not yet"),
        pytest.param("2026-11-21T02:00", "2026-11-21T02:00", "2026-11-21T02:00", "2026-11-22T02:00", id="now"),
        pytest.param("2026-11-19T02:00", "2026-11-21T02:30", "2026-11-21T02:00", "2026-11-22T02:00", id="missed three"),
        pytest.param("2026-11-21T01:30", "2026-11-21T01:45", None, "2026-11-21T02:00", id="another schedule's time"),
        pytest.param("2026-11-25T02:00", "2026-11-21T01:45", None, "2026-11-21T02:00", id="more often than before"),
    ],
)
def test_tick(remembered: str | None, now: str, due: str | None, following: str) -> None:
    found = tick(DAILY, at(remembered) if remembered else None, at(now))
    assert found == Tick(at(due) if due else None, at(following))


def test_what_was_due_in_an_hour_that_clocks_repeat() -> None:
    """At 02:10 for the second time, 02:30 is in the past."""
    found = tick(Schedule("30 2 * * *", "Europe/Berlin"), at("2026-10-25T00:30"), at("2026-10-25T01:10"))
    assert found == Tick(at("2026-10-25T00:30"), at("2026-10-26T01:30"))


def test_without_a_schedule_nothing_is_due() -> None:
    assert tick(None, NOW, NOW) == Tick(None, None)


@given(crons, zones, times, st.lists(st.timedeltas(timedelta(seconds=1), timedelta(days=40)), max_size=8))
def test_each_time_is_due_once_and_none_is_lost(cron: str, zone: str, start: datetime, steps: list[timedelta]) -> None:
    """Whenever somebody looks, what has come since the last look is due, as its last time."""
    schedule = Schedule(cron, zone)
    now, remembered, last = start, tick(schedule, None, start).next, None
    for step in steps:
        now += step
        found = tick(schedule, remembered, now)
        assert (found.due is not None) == (remembered is not None and remembered <= now)
        if found.due is not None:
            assert remembered is not None
            assert remembered <= found.due <= now
            assert last is None or found.due > last
            last = found.due
        remembered = found.next
