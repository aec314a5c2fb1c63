"""Every way in which a run can end is one Report and one exit code; signals stop it."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from almanac.api import Engine, ExitCode, JobError, Reason, Report
from almanac_jobs import launch
from almanac_jobs.launch import Ended, new_run_id
from almanac_jobs.progress import Progress

RUN = "20261121-021500-3f9a2c"
COMPLETED = Report(run=RUN, reason=Reason.COMPLETED, exit_code=ExitCode.DONE, engine=Engine.LOCAL)


def ended(work: Callable[[Progress], Report], *, debug: bool = False) -> tuple[Ended, str]:
    log = io.StringIO()
    return launch.launch(work, RUN, Progress(), log, debug=debug), log.getvalue()


def raises(error: BaseException) -> Callable[[Progress], Report]:
    def work(_: Progress) -> Report:
        raise error

    return work


def until_stopped(number: signal.Signals) -> Callable[[Progress], Report]:
    def work(progress: Progress) -> Report:
        os.kill(os.getpid(), number)
        while True:
            progress.check()

    return work


def test_run_ids_sort_as_runs_began_wherever_they_did() -> None:
    berlin = timezone(timedelta(hours=1))
    assert new_run_id(datetime(2026, 11, 21, 3, 15, tzinfo=berlin), "3f9a2c") == RUN
    assert new_run_id(datetime(2026, 11, 21, 2, 15, tzinfo=UTC), "000000") < RUN


def test_a_complete_run_is_reported_with_its_times() -> None:
    end, log = ended(lambda _: COMPLETED)
    assert end.exit_code == 0
    assert end.report.start_time is not None
    assert end.report.end_time is not None
    assert end.report.start_time <= end.report.end_time
    assert log == ""


def test_a_failure_is_reported_with_its_reason() -> None:
    end, log = ended(raises(JobError(Reason.ACCESS_DENIED, "spec.source.uri: s3://ledger: access denied")))
    assert (end.exit_code, end.report.reason) == (77, Reason.ACCESS_DENIED)
    assert end.report.message == "spec.source.uri: s3://ledger: access denied"
    assert log == ""


@pytest.mark.parametrize("error", [MemoryError(), pa.ArrowMemoryError("malloc of size 1 failed")])
def test_running_out_of_memory_asks_for_more(error: Exception) -> None:
    end, _ = ended(raises(error))
    assert (end.exit_code, end.report.reason) == (79, Reason.TOO_BIG_FOR_LOCAL)


def test_the_unforeseen_is_our_fault_worth_a_retry_and_one_line() -> None:
    end, log = ended(raises(ZeroDivisionError("float\ndivision")))
    assert end.report.reason is Reason.INTERNAL_ERROR
    assert end.report.exit_code.worth_a_retry
    assert end.report.message.startswith("ZeroDivisionError: float division: this is a fault of Almanac's")
    assert "ALMANAC_DEBUG=1" in end.report.message
    assert log == ""


def test_debugging_shows_where_it_failed() -> None:
    _, log = ended(raises(ZeroDivisionError("boom")), debug=True)
    assert "Traceback" in log
    assert "ZeroDivisionError: boom" in log


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_at_its_next_count(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    end, log = ended(until_stopped(number))
    assert (end.exit_code, end.report.reason, end.stuck) == (code, Reason.INTERRUPTED, False)
    assert "Once more: exit at once" in log
    assert signal.getsignal(number) is before


def test_a_run_that_is_complete_stays_complete_when_a_signal_comes_late() -> None:
    def work(_: Progress) -> Report:
        os.kill(os.getpid(), signal.SIGINT)
        return COMPLETED

    end, _ = ended(work)
    assert (end.exit_code, end.report.reason) == (0, Reason.COMPLETED)


def test_a_run_that_does_not_stop_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.05)
    released = threading.Event()

    def work(_: Progress) -> Report:
        os.kill(os.getpid(), signal.SIGINT)
        released.wait(30)
        return COMPLETED

    end, _ = ended(work)
    released.set()
    assert (end.exit_code, end.report.reason, end.stuck) == (130, Reason.INTERRUPTED, True)


def test_a_second_signal_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)

    def work(progress: Progress) -> Report:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            progress.check()

    ended(work)
    assert codes in ([143], [130])  # whichever of two signals at once is delivered last
