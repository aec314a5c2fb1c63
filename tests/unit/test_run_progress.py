"""Counting, its two displays, and stopping."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from almanac_jobs.engines.local import map_unordered
from almanac_jobs.progress import Interrupted, Progress, Snapshot, bar, line, lines


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_snapshot_knows_its_rate_and_the_time_left() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.start("fit", 1000, "series")
    progress.advance(100)
    clock.now = 2.0
    progress.advance(100)
    at = progress.snapshot()
    assert at == Snapshot("fit", "series", 200, 1000, 2.0)
    assert at.rate == 100
    assert at.seconds_left == 8


def test_nobody_can_tell_the_time_left_before_something_is_done_or_without_a_total() -> None:
    assert Snapshot("fit", "series", 0, 10, 5.0).seconds_left is None
    assert Snapshot("read", "rows", 10, None, 5.0).seconds_left is None
    assert Snapshot("read", "rows", 10, 10, 0.0).rate == 0


def test_a_stage_ends_where_the_next_begins() -> None:
    clock = Clock()
    progress = Progress(clock)
    assert progress.snapshot() is None
    progress.start("read", 3, "rows")
    progress.advance(3)
    clock.now = 1.0
    progress.start("fit", 5, "series")
    assert progress.finished() == (Snapshot("read", "rows", 3, 3, 1.0),)
    progress.finish()
    assert [at.stage for at in progress.finished()] == ["read", "fit"]
    assert progress.snapshot() is None


@pytest.mark.parametrize(
    ("at", "ended", "text"),
    [
        (
            Snapshot("fit", "series", 51200, 100000, 2.0),
            False,
            "fit 51,200/100,000 series, 25,600 series/s, 1.9 s left",
        ),
        (Snapshot("fit", "series", 1, 7200, 1.0), False, "fit 1/7,200 series, 1 series/s, 1 h 59 min left"),
        (Snapshot("fit", "series", 100, 100, 130.0), True, "fit 100 series, done in 2 min 10 s"),
        (Snapshot("read", "rows", 7, None, 1.0), False, "read 7 rows, 7 rows/s"),
        (Snapshot("report", "", 0, None, 0.25), True, "report, done in 0.2 s"),
    ],
)
def test_line(at: Snapshot, ended: bool, text: str) -> None:
    assert line(at, ended=ended) == text


def test_a_log_has_a_line_for_every_stage_that_ended_and_no_control_characters() -> None:
    progress, log = Progress(), io.StringIO()
    with lines(progress, log, every=60):
        progress.start("read", 2, "rows")
        progress.advance(2)
        progress.start("fit", 4, "series")
        progress.advance(4)
        progress.finish()
    assert [text.split(",")[0] for text in log.getvalue().splitlines()] == ["read 2 rows", "fit 4 series"]
    assert "\x1b" not in log.getvalue()


def test_a_log_tells_how_far_a_long_stage_is() -> None:
    told = threading.Event()

    class Log(io.StringIO):
        def write(self, text: str) -> int:
            told.set()
            return super().write(text)

    progress, log = Progress(), Log()
    with lines(progress, log, every=0.01):
        progress.start("fit", 4, "series")
        progress.advance(1)
        assert told.wait(10)
    assert log.getvalue().startswith("fit 1/4 series")


def test_the_bar_shows_every_stage_and_leaves_the_terminal_clean() -> None:
    progress = Progress()
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with bar(progress, console):
        progress.start("read", 3, "rows")
        progress.advance(3)
        progress.start("fit", 4, "series")
        progress.advance(1)
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "3 rows" in drawn
    assert "1/4" in drawn
    assert drawn.rstrip().endswith("\x1b[2K")


def test_a_stopped_run_is_told_at_the_next_count() -> None:
    progress = Progress()
    progress.start("fit", 2, "series")
    progress.stop()
    with pytest.raises(Interrupted):
        progress.advance()
    with pytest.raises(Interrupted):
        progress.start("report")


def test_the_guard_is_asked_at_every_count() -> None:
    def guard() -> None:
        raise MemoryError("full")

    with pytest.raises(MemoryError, match="full"):
        Progress(guard=guard).start("read")


def test_the_local_engine_does_every_item_once() -> None:
    assert sorted(map_unordered(lambda i: i * i, range(50), 4, Progress())) == [i * i for i in range(50)]
    assert list(map_unordered(lambda i: i, [], 4, Progress())) == []


def test_the_local_engine_keeps_to_its_threads() -> None:
    together, lock, meeting = [0, 0], threading.Lock(), threading.Barrier(2)

    def work(_: int) -> None:
        with lock:
            together[0] += 1
            together[1] = max(together)
        meeting.wait(10)
        with lock:
            together[0] -= 1

    assert len(list(map_unordered(work, range(6), 2, Progress()))) == 6
    assert together[1] == 2


def test_an_error_in_one_item_ends_the_others() -> None:
    progress, begun, failed = Progress(), [], threading.Event()

    def work(i: int) -> int:
        begun.append(i)
        if i == 0:
            failed.set()
            raise ValueError("item 0")
        failed.wait(10)
        while True:
            progress.check()

    with pytest.raises(ValueError, match="item 0"):
        list(map_unordered(work, range(100), 2, progress))
    assert len(begun) <= 3


def test_stopping_does_not_wait_for_an_item_that_never_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("almanac_jobs.engines.local.GRACE", 0.05)
    progress, released = Progress(), threading.Event()

    def work(_: int) -> None:
        progress.stop()
        released.wait(30)

    with pytest.raises(Interrupted):
        list(map_unordered(work, range(2), 2, progress))
    released.set()
